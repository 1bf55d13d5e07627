//! `[[upstream]]`.

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::access::who;
use super::server::MAX_SIZE_MIN;
use super::{Checker, flag, items, text};
use crate::config::model::{ColdRanges, CredentialConfig, UpstreamConfig};
use crate::config::schema::{CredentialTable, UpstreamTable, Value, Values};
use crate::config::text::As;
use crate::config::{EndpointUrl, Subject};
use crate::limits::{REPOSITORY_NAME_BYTES_MAX, TAG_BYTES_MAX};
use crate::oci::Namespace;

const TAG_TTL: Duration = Duration::from_secs(5 * 60);
const STALE_MAX: Duration = Duration::from_secs(24 * 3600);
const NEGATIVE_TTL: Duration = Duration::from_secs(10);
/// Whoever has pushed what was missing waits at most this long for it.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(3600);
/// Longest pattern of `immutable_tags`: the longest repository name, a colon, the longest tag.
const TAG_PATTERN_BYTES_MAX: usize = REPOSITORY_NAME_BYTES_MAX + 1 + TAG_BYTES_MAX;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Late for a registry, and early enough for a second one to answer before a client loses patience.
const HEDGE_AFTER: Duration = Duration::from_secs(3);
/// Below the 30 s after which containerd gives its mirror up, so that the client hears why.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(20);
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const EXTENTS_KEEP: Duration = Duration::from_secs(60);
const FILLS_MAX: usize = 64;
const FILLS_MAX_MAX: u64 = 65_536;

/// Docker Hub is known under names that are none of them the host of its API.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_ENDPOINT: &str = "https://registry-1.docker.io";
const DOCKER_HUB_ALIASES: [&str; 3] =
    ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
const DOCKER_HUB_REALM: &str = "auth.docker.io";

impl Checker<'_> {
    pub(super) fn upstreams(&mut self, tables: Vec<Spanned<UpstreamTable>>) -> Vec<UpstreamConfig> {
        let declared = self.declared_names(&tables);
        let take = |table: Spanned<UpstreamTable>| self.upstream(table, &declared);
        tables.into_iter().map(take).collect()
    }

    /// Every namespace and alias as written; each may be there once over all upstreams.
    fn declared_names(&mut self, tables: &[Spanned<UpstreamTable>]) -> Vec<Namespace> {
        let mut declared: Vec<Namespace> = Vec::new();
        for table in tables {
            let table = table.get_ref();
            let aliases = table.aliases.iter().flat_map(|list| list.get_ref());
            for name in std::iter::once(&table.namespace).chain(aliases) {
                let namespace = &name.get_ref().0;
                if declared.contains(namespace) {
                    let expected = "each namespace and alias once over all upstreams";
                    let remedy = "a request for it could not be told apart";
                    self.refuse(name.span(), expected, format!("{namespace} twice"), remedy);
                }
                declared.push(namespace.clone());
            }
        }
        declared
    }

    fn upstream(
        &mut self,
        table: Spanned<UpstreamTable>,
        declared: &[Namespace],
    ) -> UpstreamConfig {
        let table_span = table.span();
        let table = table.into_inner();
        let namespace = table.namespace.get_ref().0.clone();
        self.login(&table.username, &table.password_file, &table.token_file);
        self.expect_safe_endpoints(&table);
        self.client_certificate(&table);
        let proxy = self.proxy(&table);
        let has_login = table.username.is_some() || table.token_file.is_some();
        let credential_command = self.credential_command(table.credential_command, has_login);
        let token_realms = match table.token_realms {
            Some(list) => {
                list.into_inner().into_iter().map(|r| r.into_inner().0.0.to_string()).collect()
            }
            None if namespace.as_str() == DOCKER_HUB => vec![DOCKER_HUB_REALM.to_owned()],
            None => Vec::new(),
        };
        UpstreamConfig {
            aliases: match table.aliases {
                Some(list) => list.into_inner().into_iter().map(|a| a.into_inner().0).collect(),
                None => implied_aliases(&namespace, declared),
            },
            endpoints: self.endpoints(table.endpoints, &namespace, table_span),
            namespace,
            tag_ttl: text(table.tag_ttl, TAG_TTL),
            stale_max: text(table.stale_max, STALE_MAX),
            stale_while_revalidate: text(table.stale_while_revalidate, Duration::ZERO),
            negative_ttl: self.negative_ttl(table.negative_ttl),
            immutable_tags: self.immutable_tags(table.immutable_tags),
            username: table.username.map(Spanned::into_inner),
            password_file: self.file(table.password_file, true),
            token_file: self.file(table.token_file, true),
            credential_command,
            ca_file: self.file(table.ca_file, false),
            client_cert: self.file(table.client_cert, false),
            client_key: self.file(table.client_key, true),
            allow_private: items(table.allow_private)
                .into_iter()
                .map(|n| n.into_inner().0)
                .collect(),
            forward_ns: flag(table.forward_ns, false),
            proxy,
            proxy_username: table.proxy_username.map(Spanned::into_inner),
            proxy_password_file: self.file(table.proxy_password_file, true),
            token_realms,
            connect_timeout: self.limit(table.connect_timeout, CONNECT_TIMEOUT),
            tls_timeout: self.limit(table.tls_timeout, TLS_TIMEOUT),
            hedge_after: text(table.hedge_after, HEDGE_AFTER),
            first_byte_timeout: self.limit(table.first_byte_timeout, FIRST_BYTE_TIMEOUT),
            stall_timeout: self.limit(table.stall_timeout, STALL_TIMEOUT),
            fills_max: self.count(table.fills_max, FILLS_MAX, 1..=FILLS_MAX_MAX),
            cold_ranges: text(table.cold_ranges, ColdRanges::Verified),
            background_fill: flag(table.background_fill, true),
            extents_keep: self.limit(table.extents_keep, EXTENTS_KEEP),
            max_size: table.max_size.map(|value| self.size(&value, MAX_SIZE_MIN)),
            pull: who(table.pull, Subject::Anonymous),
            credentials: self.credentials(table.credential),
        }
    }

    /// What was written, or the namespace itself by https.
    fn endpoints(
        &mut self,
        list: Values<As<EndpointUrl>>,
        namespace: &Namespace,
        table_span: std::ops::Range<usize>,
    ) -> Vec<EndpointUrl> {
        let Some(list) = list else {
            let implied = match namespace.as_str() {
                DOCKER_HUB => DOCKER_HUB_ENDPOINT.to_owned(),
                host => format!("https://{host}"),
            };
            return match EndpointUrl::parse(&implied) {
                Ok(endpoint) => vec![endpoint],
                Err(reason) => {
                    self.refuse(table_span, "the key `endpoints`", "none", reason);
                    Vec::new()
                }
            };
        };
        if list.get_ref().is_empty() {
            let remedy = format!("leave the key out for https://{namespace}");
            self.refuse(list.span(), "at least one endpoint", "an empty list", remedy);
        }
        let mut endpoints: Vec<EndpointUrl> = Vec::new();
        for endpoint in list.into_inner() {
            let span = endpoint.span();
            let url = endpoint.into_inner().0;
            if endpoints.contains(&url) {
                self.refuse(span, "each endpoint once", format!("{url} twice"), "");
            }
            endpoints.push(url);
        }
        endpoints
    }

    fn negative_ttl(&mut self, value: Value<As<Duration>>) -> Duration {
        let Some(value) = value else { return NEGATIVE_TTL };
        let ttl = value.get_ref().0;
        if ttl > NEGATIVE_TTL_MAX {
            let found = crate::config::format_duration(ttl);
            let remedy = "what was missing may be pushed at any time, and is wanted then";
            self.refuse(value.span(), "a time from 0s to 1h", found, remedy);
        }
        ttl
    }

    /// Patterns that a `repository:tag` can match.
    fn immutable_tags(&mut self, list: Values<String>) -> Vec<String> {
        let list = items(list);
        for pattern in &list {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/:*".contains(&b);
            let text = pattern.get_ref();
            let is_fit = !text.is_empty() && text.len() <= TAG_PATTERN_BYTES_MAX;
            let has_place = text.contains(['*', ':']) && text.matches(':').count() <= 1;
            if !is_fit || !has_place || !text.bytes().all(allowed) {
                let remedy = "it is compared with `repository:tag` as a whole; `*` stands for any \
                              run of characters";
                let expected = "a pattern such as \"library/*:v*\"";
                self.refuse(pattern.span(), expected, format!("{text:?}"), remedy);
            }
        }
        list.into_iter().map(Spanned::into_inner).collect()
    }

    /// `[[upstream.credential]]`: logins by name, of which a plugin chooses one.
    fn credentials(&mut self, tables: Vec<Spanned<CredentialTable>>) -> Vec<CredentialConfig> {
        let mut credentials: Vec<CredentialConfig> = Vec::new();
        for table in tables {
            let (span, table) = (table.span(), table.into_inner());
            let CredentialTable { name, rotate, username, password_file, token_file, .. } = &table;
            let (name, rotate) = (name.clone(), rotate.clone());
            self.name(&name);
            self.login(username, password_file, token_file);
            let has_files = username.is_some() || password_file.is_some() || token_file.is_some();
            if !has_files && table.credential_command.is_none() {
                let expected = "`username` with `password_file`, `token_file`, or \
                                `credential_command`";
                self.refuse(span, expected, "none of them", "");
            }
            let command = self.credential_command(table.credential_command, has_files);
            if credentials.iter().any(|other| other.name == *name.get_ref()) {
                let found = format!("{:?} twice", name.get_ref());
                self.refuse(name.span(), "a name of its own within the upstream", found, "");
            }
            credentials.push(CredentialConfig {
                name: name.into_inner(),
                rotate: rotate.is_some_and(Spanned::into_inner),
                username: table.username.map(Spanned::into_inner),
                password_file: self.file(table.password_file, true),
                token_file: self.file(table.token_file, true),
                credential_command: command,
            });
        }
        credentials
    }

    /// A user name needs a password, and a token stands alone.
    fn login(
        &mut self,
        username: &Value<String>,
        password_file: &Value<PathBuf>,
        token_file: &Value<PathBuf>,
    ) {
        if let Some(username) = username {
            self.username(username);
            if password_file.is_none() {
                let remedy = "add `password_file`, the path of a file that holds the password";
                self.refuse(username.span(), "`password_file` beside it", "none", remedy);
            }
        }
        if let (Some(file), None) = (password_file, username) {
            self.refuse(file.span(), "`username` beside it", "none", "add `username`");
        }
        if let (Some(file), Some(_)) = (token_file, username) {
            let expected = "either `token_file` or `username` with `password_file`";
            self.refuse(file.span(), expected, "both", "remove one of them");
        }
    }

    /// Secrets do not travel in the clear.
    fn expect_safe_endpoints(&mut self, table: &UpstreamTable) {
        if !has_secrets(table) {
            return;
        }
        for endpoint in table.endpoints.iter().flat_map(|list| list.get_ref()) {
            let url = &endpoint.get_ref().0;
            if !url.https && !url.is_loopback_literal() {
                let remedy = "this upstream has credentials, and they are sent in the clear to \
                              loopback addresses (127.0.0.0/8, ::1) only";
                self.refuse(endpoint.span(), "an https:// endpoint", url.to_string(), remedy);
            }
        }
    }

    /// RFC 7617 §2: a user-id holds no colon and no control characters.
    pub(super) fn username(&mut self, username: &Spanned<String>) {
        let name = username.get_ref();
        if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
            let expected = "a user name without colons and control characters";
            self.refuse(username.span(), expected, format!("{name:?}"), "");
        }
    }

    fn client_certificate(&mut self, table: &UpstreamTable) {
        let mut pair = |present: &Value<PathBuf>, absent: bool, other: &str| {
            if let (Some(value), true) = (present, absent) {
                let expected = format!("`{other}` beside it");
                self.refuse(value.span(), expected, "none", format!("add `{other}`"));
            }
        };
        pair(&table.client_cert, table.client_key.is_none(), "client_key");
        pair(&table.client_key, table.client_cert.is_none(), "client_cert");
    }
}

/// Whether a secret of ours is sent to this upstream.
pub(super) fn has_secrets(table: &UpstreamTable) -> bool {
    table.password_file.is_some()
        || table.token_file.is_some()
        || table.credential_command.is_some()
        || !table.credential.is_empty()
}

/// Docker Hub's other names, as far as no upstream of the file claims them.
fn implied_aliases(namespace: &Namespace, declared: &[Namespace]) -> Vec<Namespace> {
    if namespace.as_str() != DOCKER_HUB {
        return Vec::new();
    }
    let names = DOCKER_HUB_ALIASES.iter().filter_map(|name| Namespace::parse(name).ok());
    names.filter(|name| !declared.contains(name)).collect()
}
