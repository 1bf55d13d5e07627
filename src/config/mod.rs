//! The configuration: a TOML file made into a [`Config`] whose every value has been checked.
//!
//! `schema` is the file as written (serde, unknown keys refused), `text` the values within it,
//! `check` turns it into the types of `model` and makes the checks that need two keys at once,
//! `effective` writes a `Config` back as TOML. `config/ringport.toml` documents every key and is
//! parsed by this module's tests.
//!
//! May import: `oci`, `limits`, serde/toml, and the pattern matcher that plugins have, so that a
//! pattern means the same wherever it stands. Reading the file and the permissions of the
//! secret files and programs it names ([`Config::load`]) is the only I/O, done before any worker
//! starts; [`check_program`] and [`check_secret`] look at one again
//! before it is used.
//!
//! **Invariant:** a `Config` exists only if every check passed; nothing checks it again later.
//! **Invariant:** a refused file is answered with all its problems, each naming file, line,
//! column, key, what was expected, what was found and, where there is one, the way out.
//! **Invariant:** no secret is ever part of a `Config`, only the path of the file that holds it.
//!
//! Absent on purpose: includes, environment substitution, and defaults that depend on the machine
//! (`workers = 0` stays 0 until the runtime resolves it). The tests are in `tests.rs`.

mod access;
mod advice;
mod check;
mod effective;
mod embedded;
mod endpoint_url;
mod error;
mod files;
mod model;
mod parse;
mod proxy;
mod schema;
mod text;
mod units;

#[cfg(test)]
mod tests;

pub use access::{Auth, HostedRule, MissingReferences, Subject, TokenAuth, in_words};
pub use endpoint_url::EndpointUrl;
pub use error::{ConfigError, Problem};
pub use files::{check_program, check_secret};
pub use model::{
    AccessTarget, ClientCertificate, ColdRanges, Config, CredentialConfig, Driver, Log, LogFormat,
    LogLevel, PluginConfig, Pool, Routing, Server, ServerTls, Storage, UpstreamConfig,
};
pub use proxy::ProxyConfig;
pub use units::{format_duration, format_size, parse_duration, parse_size};

/// What the pool that is `storage.root` itself is called, in placements and metrics.
pub const ROOT_POOL: &str = "root";

/// The name of the built-in resolver in `routing.resolvers`.
pub const STANDARD_RESOLVER: &str = "standard";
