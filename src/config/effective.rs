//! A [`Config`] written back as TOML: every key with the value that is in force.

use toml::{Spanned, Table, Value as Toml};

use super::schema::{
    AuthTable, CredentialTable, File, HostedTable, LogTable, PluginTable, PoolTable, RoutingTable,
    ServerTable, StorageTable, TokenTable, UpstreamTable, Value, Values,
};
use super::text::{AdminAddress, As, Interval, RealmHost, Size};
use super::{
    Auth, Config, CredentialConfig, HostedRule, Log, PluginConfig, ProxyConfig, Routing, Server,
    Storage, TokenAuth, UpstreamConfig,
};
use crate::oci::Namespace;

/// Parts of plugin keys whose text values are not shown; keys that name a file are.
const SECRET_WORDS: [&str; 5] = ["password", "secret", "token", "credential", "private_key"];

impl Config {
    /// The effective configuration as TOML that [`Config::parse`] reads as the same configuration.
    /// Ours holds secrets' paths only; of a plugin's table, texts under keys that sound like a
    /// secret are replaced.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(&self.to_file())
    }

    fn to_file(&self) -> File {
        File {
            server: Some(server(&self.server)),
            storage: Some(storage(&self.storage)),
            routing: Some(routing(&self.routing)),
            auth: Some(auth(&self.auth)),
            log: Some(log(&self.log)),
            hosted: self.hosted.iter().map(|one| placed(hosted(one))).collect(),
            upstream: self.upstreams.iter().map(|one| placed(upstream(one))).collect(),
            plugin: self.plugins.iter().map(|one| placed(plugin(one))).collect(),
        }
    }
}

// Struct literals without `..`: a key that is added to the schema must be added here.

fn server(server: &Server) -> ServerTable {
    let tls = server.tls.as_ref();
    let ca = tls.and_then(|tls| tls.client_ca_file.clone());
    ServerTable {
        listen: texts(server.listen.iter().copied()),
        tls_listen: tls.and_then(|tls| texts(tls.listen.iter().copied())),
        tls_certificate: tls.and_then(|tls| value(tls.certificate.clone())),
        tls_key: tls.and_then(|tls| value(tls.key.clone())),
        client_certificate: ca.as_ref().and(tls).and_then(|tls| text(tls.client_certificate)),
        client_ca_file: ca.and_then(value),
        admin: text(AdminAddress(server.admin)),
        admin_public: value(server.admin_public),
        workers: count(server.workers),
        driver: text(server.driver),
        drain_timeout: text(server.drain_timeout),
        connections_max: count(server.connections_max),
        head_timeout: text(server.head_timeout),
        idle_timeout: text(server.idle_timeout),
    }
}

fn storage(storage: &Storage) -> StorageTable {
    let pool = |pool: &super::Pool| PoolTable {
        name: placed(pool.name.clone()),
        path: placed(pool.path.clone()),
        max_size: pool.max_size.map(Size).and_then(text),
    };
    StorageTable {
        root: value(storage.root.clone()),
        max_size: text(Size(storage.max_size)),
        verify_rate: text(Size(storage.verify_rate)),
        verify_interval: text(Interval(storage.verify_interval)),
        remote_tiers: texts(storage.remote_tiers.iter().cloned()),
        remote_allow_private: texts(storage.remote_allow_private.iter().copied()),
        pool: storage.pools.iter().map(|one| placed(pool(one))).collect(),
    }
}

fn routing(routing: &Routing) -> RoutingTable {
    RoutingTable {
        resolvers: values(routing.resolvers.iter().cloned()),
        default_upstream: routing.default_upstream.clone().and_then(text),
        hosted: values(routing.hosted.iter().cloned()),
    }
}

fn log(log: &Log) -> LogTable {
    LogTable { level: text(log.level), format: text(log.format), access: text(log.access.clone()) }
}

fn auth(auth: &Auth) -> AuthTable {
    let token = |token: &TokenAuth| TokenTable {
        realm: placed(token.realm.clone()),
        service: placed(token.service.clone()),
        issuer: placed(token.issuer.clone()),
        key_files: placed(token.key_files.iter().cloned().map(placed).collect()),
    };
    AuthTable {
        realm: value(auth.realm.clone()),
        htpasswd_file: auth.htpasswd_file.clone().and_then(value),
        login_first: value(auth.login_first),
        catalog: texts(auth.catalog.iter().cloned()),
        anonymous_writes_public: value(auth.anonymous_writes_public),
        token: auth.token.as_ref().map(token),
    }
}

fn hosted(rule: &HostedRule) -> HostedTable {
    HostedTable {
        repositories: placed(rule.repositories.iter().cloned().map(placed).collect()),
        pull: texts(rule.pull.iter().cloned()),
        push: texts(rule.push.iter().cloned()),
        delete: texts(rule.delete.iter().cloned()),
        immutable_tags: values(rule.immutable_tags.iter().cloned()),
        anonymous_mount: value(rule.anonymous_mount),
        missing_references: text(rule.missing_references),
        max_size: rule.max_size.map(Size).and_then(text),
        max_tags: rule.max_tags.and_then(count),
        keep_last: rule.keep_last.and_then(count),
        keep_newer: rule.keep_newer.and_then(text),
    }
}

fn upstream(upstream: &UpstreamConfig) -> UpstreamTable {
    let realms = upstream.token_realms.iter();
    UpstreamTable {
        namespace: placed(As(upstream.namespace.clone())),
        aliases: texts(upstream.aliases.iter().cloned()),
        endpoints: texts(upstream.endpoints.iter().cloned()),
        tag_ttl: text(upstream.tag_ttl),
        stale_max: text(upstream.stale_max),
        stale_while_revalidate: text(upstream.stale_while_revalidate),
        negative_ttl: text(upstream.negative_ttl),
        immutable_tags: values(upstream.immutable_tags.iter().cloned()),
        username: upstream.username.clone().and_then(value),
        password_file: upstream.password_file.clone().and_then(value),
        token_file: upstream.token_file.clone().and_then(value),
        credential_command: words(&upstream.credential_command),
        ca_file: upstream.ca_file.clone().and_then(value),
        client_cert: upstream.client_cert.clone().and_then(value),
        client_key: upstream.client_key.clone().and_then(value),
        allow_private: texts(upstream.allow_private.iter().copied()),
        forward_ns: value(upstream.forward_ns),
        proxy: Some(upstream.proxy.clone()).filter(is_written).and_then(text),
        proxy_username: upstream.proxy_username.clone().and_then(value),
        proxy_password_file: upstream.proxy_password_file.clone().and_then(value),
        token_realms: texts(realms.filter_map(|host| Namespace::parse(host).ok()).map(RealmHost)),
        connect_timeout: text(upstream.connect_timeout),
        tls_timeout: text(upstream.tls_timeout),
        first_byte_timeout: text(upstream.first_byte_timeout),
        hedge_after: text(upstream.hedge_after),
        stall_timeout: text(upstream.stall_timeout),
        fills_max: count(upstream.fills_max),
        cold_ranges: text(upstream.cold_ranges),
        background_fill: value(upstream.background_fill),
        extents_keep: text(upstream.extents_keep),
        max_size: upstream.max_size.map(Size).and_then(text),
        pull: texts(upstream.pull.iter().cloned()),
        credential: upstream.credentials.iter().map(|one| placed(credential(one))).collect(),
    }
}

/// The environment's proxies are used when the key is left out, and only then.
fn is_written(proxy: &ProxyConfig) -> bool {
    *proxy != ProxyConfig::Environment
}

fn credential(credential: &CredentialConfig) -> CredentialTable {
    CredentialTable {
        name: placed(credential.name.clone()),
        rotate: value(credential.rotate),
        username: credential.username.clone().and_then(value),
        password_file: credential.password_file.clone().and_then(value),
        token_file: credential.token_file.clone().and_then(value),
        credential_command: words(&credential.credential_command),
    }
}

fn plugin(plugin: &PluginConfig) -> PluginTable {
    let mut config = plugin.config.clone();
    redact(&mut config);
    PluginTable {
        name: placed(plugin.name.clone()),
        path: placed(plugin.path.clone()),
        sha256: plugin.sha256.clone().and_then(value),
        budget: text(plugin.budget),
        config,
    }
}

/// We can't know which of a plugin's values are secret, so we go by the key.
fn redact(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        let key = key.to_ascii_lowercase();
        let names_a_file = key.ends_with("_file") || key.ends_with("_path");
        let secret = SECRET_WORDS.iter().any(|word| key.contains(word)) && !names_a_file;
        redact_value(value, secret);
    }
}

fn redact_value(value: &mut Toml, secret: bool) {
    match value {
        Toml::String(text) if secret => *text = "[redacted]".to_owned(),
        Toml::Table(inner) => redact(inner),
        Toml::Array(items) => items.iter_mut().for_each(|item| redact_value(item, secret)),
        _ => {}
    }
}

/// The place does not matter when writing.
fn placed<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

fn value<T>(value: T) -> Value<T> {
    Some(placed(value))
}

fn text<T>(value: T) -> Value<As<T>> {
    Some(placed(As(value)))
}

fn words(list: &Option<Vec<String>>) -> Values<String> {
    list.as_ref().and_then(|list| values(list.iter().cloned()))
}

fn count(number: usize) -> Value<u64> {
    u64::try_from(number).ok().map(placed)
}

fn values<T>(items: impl Iterator<Item = T>) -> Values<T> {
    Some(placed(items.map(placed).collect()))
}

fn texts<T>(items: impl Iterator<Item = T>) -> Values<As<T>> {
    values(items.map(As))
}
