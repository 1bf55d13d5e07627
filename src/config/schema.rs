//! The file as it is written: serde structs in the order in which `ringport check` prints them.
//!
//! `Spanned` keeps the place of a value for the checks that come later; `As` (in `text`) is a value
//! that is text in the file but more than text in meaning.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::access::{MissingReferences, Subject};
use super::model::{AccessTarget, ClientCertificate, ColdRanges, Driver, LogFormat, LogLevel};
use super::text::{AdminAddress, As, Interval, RealmHost, Size};
use super::{EndpointUrl, ProxyConfig};
use crate::oci::Namespace;

pub(super) type Value<T> = Option<Spanned<T>>;
pub(super) type Values<T> = Option<Spanned<Vec<Spanned<T>>>>;

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub server: Option<ServerTable>,
    pub storage: Option<StorageTable>,
    pub routing: Option<RoutingTable>,
    pub auth: Option<AuthTable>,
    pub log: Option<LogTable>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosted: Vec<Spanned<HostedTable>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<Spanned<UpstreamTable>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugin: Vec<Spanned<PluginTable>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerTable {
    pub listen: Values<As<SocketAddr>>,
    pub tls_listen: Values<As<SocketAddr>>,
    pub tls_certificate: Value<PathBuf>,
    pub tls_key: Value<PathBuf>,
    pub client_ca_file: Value<PathBuf>,
    pub client_certificate: Value<As<ClientCertificate>>,
    pub admin: Value<As<AdminAddress>>,
    pub admin_public: Value<bool>,
    pub workers: Value<u64>,
    pub driver: Value<As<Driver>>,
    pub drain_timeout: Value<As<Duration>>,
    pub connections_max: Value<u64>,
    pub head_timeout: Value<As<Duration>>,
    pub idle_timeout: Value<As<Duration>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StorageTable {
    pub root: Value<PathBuf>,
    pub max_size: Value<As<Size>>,
    pub verify_rate: Value<As<Size>>,
    pub verify_interval: Value<As<Interval>>,
    pub remote_tiers: Values<As<EndpointUrl>>,
    pub remote_allow_private: Values<As<IpNet>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<Spanned<PoolTable>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolTable {
    pub name: Spanned<String>,
    pub path: Spanned<PathBuf>,
    pub max_size: Value<As<Size>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoutingTable {
    pub resolvers: Values<String>,
    pub default_upstream: Value<As<Namespace>>,
    pub hosted: Values<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthTable {
    pub realm: Value<String>,
    pub htpasswd_file: Value<PathBuf>,
    pub login_first: Value<bool>,
    pub catalog: Values<As<Subject>>,
    pub anonymous_writes_public: Value<bool>,
    pub token: Option<TokenTable>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenTable {
    pub realm: Spanned<String>,
    pub service: Spanned<String>,
    pub issuer: Spanned<String>,
    pub key_files: Spanned<Vec<Spanned<PathBuf>>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostedTable {
    pub repositories: Spanned<Vec<Spanned<String>>>,
    pub pull: Values<As<Subject>>,
    pub push: Values<As<Subject>>,
    pub delete: Values<As<Subject>>,
    pub immutable_tags: Values<String>,
    pub anonymous_mount: Value<bool>,
    pub missing_references: Value<As<MissingReferences>>,
    pub max_size: Value<As<Size>>,
    pub max_tags: Value<u64>,
    pub keep_last: Value<u64>,
    pub keep_newer: Value<As<Duration>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogTable {
    pub level: Value<As<LogLevel>>,
    pub format: Value<As<LogFormat>>,
    pub access: Value<As<AccessTarget>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamTable {
    pub namespace: Spanned<As<Namespace>>,
    pub aliases: Values<As<Namespace>>,
    pub endpoints: Values<As<EndpointUrl>>,
    pub tag_ttl: Value<As<Duration>>,
    pub stale_max: Value<As<Duration>>,
    pub stale_while_revalidate: Value<As<Duration>>,
    pub negative_ttl: Value<As<Duration>>,
    pub immutable_tags: Values<String>,
    pub username: Value<String>,
    pub password_file: Value<PathBuf>,
    pub token_file: Value<PathBuf>,
    pub credential_command: Values<String>,
    pub ca_file: Value<PathBuf>,
    pub client_cert: Value<PathBuf>,
    pub client_key: Value<PathBuf>,
    pub allow_private: Values<As<IpNet>>,
    pub forward_ns: Value<bool>,
    pub proxy: Value<As<ProxyConfig>>,
    pub proxy_username: Value<String>,
    pub proxy_password_file: Value<PathBuf>,
    pub token_realms: Values<As<RealmHost>>,
    pub connect_timeout: Value<As<Duration>>,
    pub tls_timeout: Value<As<Duration>>,
    pub first_byte_timeout: Value<As<Duration>>,
    pub hedge_after: Value<As<Duration>>,
    pub stall_timeout: Value<As<Duration>>,
    pub fills_max: Value<u64>,
    pub cold_ranges: Value<As<ColdRanges>>,
    pub background_fill: Value<bool>,
    pub extents_keep: Value<As<Duration>>,
    pub max_size: Value<As<Size>>,
    pub pull: Values<As<Subject>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credential: Vec<Spanned<CredentialTable>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CredentialTable {
    pub name: Spanned<String>,
    pub rotate: Value<bool>,
    pub username: Value<String>,
    pub password_file: Value<PathBuf>,
    pub token_file: Value<PathBuf>,
    pub credential_command: Values<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PluginTable {
    pub name: Spanned<String>,
    pub path: Spanned<PathBuf>,
    pub sha256: Value<String>,
    pub budget: Value<As<Duration>>,
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub config: toml::Table,
}
