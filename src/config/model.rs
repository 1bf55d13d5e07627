//! The checked configuration. Every field means what `config/ringport.toml` says of its key.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{Auth, EndpointUrl, HostedRule, ProxyConfig, Subject};
use crate::oci::Namespace;

/// A whole configuration; see the module's invariants.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[storage]`
    pub storage: Storage,
    /// `[routing]`
    pub routing: Routing,
    /// `[auth]`
    pub auth: Auth,
    /// In the order of the file; the first whose pattern matches decides: ask
    /// [`Config::hosted_rule`].
    pub hosted: Vec<HostedRule>,
    /// The built-in rule of hosted repositories that none of `hosted` matches.
    pub hosted_otherwise: HostedRule,
    /// In the order of the file; namespaces and aliases are unique over all of them.
    pub upstreams: Vec<UpstreamConfig>,
    /// In the order of the file; names are unique.
    pub plugins: Vec<PluginConfig>,
    /// `[log]`
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Plain HTTP; empty only where there are addresses in `tls`.
    pub listen: Vec<SocketAddr>,
    /// `None` without `tls_listen`.
    pub tls: Option<ServerTls>,
    /// `None` when the file says `admin = "off"`.
    pub admin: Option<SocketAddr>,
    /// The operator's word that an admin address off loopback is meant.
    pub admin_public: bool,
    /// 0 = one worker per core.
    pub workers: usize,
    /// How workers talk to the kernel.
    pub driver: Driver,
    /// How long requests in flight may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// Open client connections per worker.
    pub connections_max: usize,
    /// From accept (or the previous response) to the end of the request's head.
    pub head_timeout: Duration,
    /// How long a kept-alive connection may stay silent.
    pub idle_timeout: Duration,
}

/// `[server]`: TLS to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Never empty; none of them is in [`Server::listen`].
    pub listen: Vec<SocketAddr>,
    /// The chain that is shown (PEM), the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// Authorities (PEM) of client certificates; without it none is asked for.
    pub client_ca_file: Option<PathBuf>,
    /// What a client without a certificate gets.
    pub client_certificate: ClientCertificate,
}

/// Whether clients must show a certificate, where they are asked for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// One that is shown is verified.
    Optional,
    /// No connection without one.
    Required,
}

/// How workers talk to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the kernel allows it, else epoll.
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Blobs, staging files and the catalog.
    pub root: PathBuf,
    /// Bytes of cached content, over all pools.
    pub max_size: u64,
    /// Bytes per second that a scrub reads.
    pub verify_rate: u64,
    /// How often the store scrubs itself; `None` when the file says `verify_interval = "off"`.
    pub verify_interval: Option<Duration>,
    /// Origins that a plugin's placement may name in requests to a remote tier; no paths.
    pub remote_tiers: Vec<EndpointUrl>,
    /// Private networks that a tier's name may resolve to; a literal address is permitted as it is.
    pub remote_allow_private: Vec<IpNet>,
    /// More disks; names and paths are unique, and none is called [`ROOT_POOL`](super::ROOT_POOL).
    pub pools: Vec<Pool>,
}

/// `[[storage.pool]]`: one more disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What a placement calls it, and what its content is found by: a path may change, this not.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
    /// Bytes of cached content in it; `None` for as much as its disk has room for.
    pub max_size: Option<u64>,
}

/// `[routing]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// `"standard"` or names of `plugins`, each at most once, never empty.
    pub resolvers: Vec<String>,
    /// The canonical namespace of a declared upstream.
    pub default_upstream: Option<Namespace>,
    /// Repository patterns; `*` stands for any run of characters.
    pub hosted: Vec<String>,
}

/// `[[upstream]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Canonical: the part of every cache key that says whose content it is.
    pub namespace: Namespace,
    /// Other names of the same registry.
    pub aliases: Vec<Namespace>,
    /// Tried in order; never empty.
    pub endpoints: Vec<EndpointUrl>,
    /// How long a tag is answered without asking the upstream.
    pub tag_ttl: Duration,
    /// How long past `tag_ttl` a tag may be served while the upstream fails.
    pub stale_max: Duration,
    /// How long past `tag_ttl` a tag is served at once, and asked for behind that; zero is never.
    pub stale_while_revalidate: Duration,
    /// How long a 404 of the upstream is believed; zero is not at all.
    pub negative_ttl: Duration,
    /// Patterns over `repository:tag` of tags that never change; `*` stands for any run of
    /// characters.
    pub immutable_tags: Vec<String>,
    /// Present together with `password_file`.
    pub username: Option<String>,
    /// Present together with `username`.
    pub password_file: Option<PathBuf>,
    /// A ready bearer token; excludes `username`.
    pub token_file: Option<PathBuf>,
    /// A program and its arguments that print a login; excludes the others.
    pub credential_command: Option<Vec<String>>,
    /// Authorities (PEM) trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Present together with `client_key`.
    pub client_cert: Option<PathBuf>,
    /// Present together with `client_cert`.
    pub client_key: Option<PathBuf>,
    /// Address ranges that may be dialled although they are private, loopback or link-local.
    pub allow_private: Vec<IpNet>,
    /// Add `ns=<namespace>` to every request: the endpoint is a mirror itself.
    pub forward_ns: bool,
    /// Through what it is reached.
    pub proxy: ProxyConfig,
    /// Of the proxy; present together with `proxy_password_file`.
    pub proxy_username: Option<String>,
    /// Present together with `proxy_username`.
    pub proxy_password_file: Option<PathBuf>,
    /// Hosts (`host` or `host:port`) that may be asked for tokens besides the endpoint's own.
    pub token_realms: Vec<String>,
    /// For the name and the connection, each.
    pub connect_timeout: Duration,
    /// For the TLS handshake.
    pub tls_timeout: Duration,
    /// From the end of the request to the response's head.
    pub first_byte_timeout: Duration,
    /// How long the first endpoint may leave the head open before the next one is asked too; zero:
    /// for ever.
    pub hedge_after: Duration,
    /// Longest silence within a body.
    pub stall_timeout: Duration,
    /// Downloads at a time from this upstream.
    pub fills_max: usize,
    /// What a range of a blob that is not here is answered from.
    pub cold_ranges: ColdRanges,
    /// Whether the rest of a blob is fetched of which ranges were asked.
    pub background_fill: bool,
    /// Without `background_fill`: how long the extents of a blob are kept after the last read.
    pub extents_keep: Duration,
    /// Bytes of cached content that its downloads brought; `None` for no limit of its own.
    pub max_size: Option<u64>,
    /// Who may pull what is mirrored from it.
    pub pull: Vec<Subject>,
    /// Logins that a plugin may choose instead of the one above; names are unique.
    pub credentials: Vec<CredentialConfig>,
}

/// What a range of a blob that is not here is answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColdRanges {
    /// From a fill whose digest has been compared by the time the answer is complete.
    Verified,
    /// From the bytes of that range, as the upstream sends them.
    Unverified,
}

/// `[[upstream.credential]]`: `username` and `password_file`, or `token_file`, or
/// `credential_command`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialConfig {
    /// What plugins call it.
    pub name: String,
    /// Whether it takes turns with the upstream's own login.
    pub rotate: bool,
    /// Present together with `password_file`.
    pub username: Option<String>,
    /// Present together with `username`.
    pub password_file: Option<PathBuf>,
    /// A ready bearer token; excludes `username`.
    pub token_file: Option<PathBuf>,
    /// A program and its arguments that print a login; excludes the others.
    pub credential_command: Option<Vec<String>>,
}

/// `[[plugin]]`
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConfig {
    /// What `routing.resolvers` calls it.
    pub name: String,
    /// Absolute.
    pub path: PathBuf,
    /// 64 lower-case hex digits.
    pub sha256: Option<String>,
    /// What 99 of 100 of its calls should take at most; 1 µs to 1 s.
    pub budget: Duration,
    /// Handed to the plugin as it stands.
    pub config: toml::Table,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe event that is logged.
    pub level: LogLevel,
    /// How the log is written.
    pub format: LogFormat,
    /// Where the access log goes.
    pub access: AccessTarget,
}

/// The least severe event that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed and needs someone.
    Error,
    /// Something is not as it should be, and work goes on.
    Warn,
    /// Starts, ends and changes.
    Info,
    /// What is decided, and why.
    Debug,
    /// Every step.
    Trace,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere.
    Off,
    /// This file, appended to.
    File(PathBuf),
}

impl Config {
    /// The upstream that `namespace` names, by its canonical namespace or an alias; what
    /// [`Namespace::scoped`] put behind it makes no difference.
    pub fn upstream(&self, namespace: &Namespace) -> Option<&UpstreamConfig> {
        let namespace = namespace.base();
        let names = |upstream: &&UpstreamConfig| {
            let aliases = upstream.aliases.iter().map(Namespace::as_str);
            upstream.namespace.as_str() == namespace || aliases.into_iter().any(|a| a == namespace)
        };
        self.upstreams.iter().find(names)
    }

    /// The canonical namespaces in the order of the file.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.upstreams.iter().map(|upstream| &upstream.namespace)
    }
}

impl Server {
    /// All addresses of the registry, plain and TLS.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let tls = self.tls.iter().flat_map(|tls| &tls.listen);
        self.listen.iter().chain(tls).copied()
    }
}

impl UpstreamConfig {
    /// Whether a secret of ours is sent to this upstream.
    pub fn has_credentials(&self) -> bool {
        self.password_file.is_some()
            || self.token_file.is_some()
            || self.credential_command.is_some()
            || !self.credentials.is_empty()
    }
}

impl LogLevel {
    /// The word for it in the file and in filter directives.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl ColdRanges {
    /// The word for it in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            ColdRanges::Verified => "verified",
            ColdRanges::Unverified => "unverified",
        }
    }
}

impl ClientCertificate {
    /// The word for it in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            ClientCertificate::Optional => "optional",
            ClientCertificate::Required => "required",
        }
    }
}

impl Driver {
    /// The word for it in the file, in metrics and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Driver::Auto => "auto",
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}
