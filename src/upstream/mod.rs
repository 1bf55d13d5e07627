//! The client to other registries: from "this path at that upstream" to a checked response.
//!
//! One [`Client`] a worker (it is not `Send`) over hyper and rustls. [`Client::exchange`] tries the
//! upstream's endpoints in order, resolves and checks the address, signs in as the endpoint asks,
//! follows redirects by hand and hands back head and body. What the workers share (tokens, resolved
//! names) is in [`Shared`]; what is configured is in [`UpstreamSet`].
//!
//! May import: `oci`, `http` (for the range asked for), `config`, `limits`, `runtime`. The only door to
//! hyper and to rustls's client.
//!
//! **Invariant:** a closed world. Only a declared upstream can be asked, only its endpoints, the
//! realms it may name and the targets it redirects to are dialled, and every connection goes to an
//! address that [`AddressPolicy`] passed: the address checked is the address connected to. A proxy
//! that the operator named is the exception; what it is asked for is checked as far as it can be.
//! **Invariant:** `Authorization` is sent to the endpoint's own (scheme, host, port) or to a realm
//! that `realm::check` passed, and to nobody after a redirect has once left the endpoint.
//! **Invariant:** https never leads to http, neither by a redirect nor by a realm.
//! **Invariant:** bytes are as the upstream stores them: identity encoding or an error.
//! **Invariant:** everything is bounded: heads, frames, redirects, sign-ins, idle connections,
//! names, tokens, and the time of every step.
//! **Invariant:** a request to a remote tier goes to a declared origin as it was signed, carries
//! nothing of an upstream's, and follows no redirect.
//! **Invariant:** no error, log line or `Debug` holds a query string, a token or a password.
//!
//! Deliberately absent: HTTP/2 (one blob fills a connection), SOCKS, cookies, decompression,
//! caching of responses, and any decision about what a 404 means to a client.

mod address;
mod attempts;
mod body;
mod budget;
mod challenge;
mod client;
mod command;
mod command_reply;
mod connection;
mod credentials;
mod dial;
mod dns;
mod error;
mod exchange;
mod governor;
mod health;
mod issued;
mod message;
mod observer;
mod outgoing;
mod pool;
mod proxy;
mod proxy_environment;
mod ratelimit;
mod realm;
mod redirect;
mod reply;
mod set;
mod shards;
mod shared;
mod sign_in;
mod tier;
mod tls;
mod token;
mod token_reply;
mod url;
mod via;

#[cfg(test)]
mod tests;

pub use address::{AddressPolicy, BlockedAddress};
pub use body::Body;
pub use client::Client;
pub use error::{Phase, Site, UpstreamError};
pub use governor::{Governor, LoginBudget};
pub use health::Health;
pub use message::{Accept, ContentRange, Method, Request, Response};
pub use observer::Observer;
pub use outgoing::Upload;
pub use set::{Upstream, UpstreamSet, UpstreamSetError};
pub use shared::{Lasting, Shared};
pub use tier::{TierReply, TierRequest};
pub use via::{Hops, Loop};
