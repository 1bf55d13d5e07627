//! The load generator: what is asked, and what has to come back.
//!
//! `plain` asks one request after another and is for preparing and proving; `load` keeps many
//! connections busy, `tls_load` one over TLS; `paced` asks at a given rate, whatever the answers do;
//! `timed` asks once and takes the times. What runs beside each other shares a `Clock`.
//!
//! **Invariant:** of every answer the status and the length are compared with what was expected;
//! of bodies pieces, chosen at random, too.

pub(crate) mod clock;
mod connection;
mod head;
pub(crate) mod load;
pub(crate) mod paced;
pub(crate) mod plain;
mod tally;
#[cfg(test)]
mod tests;
pub(crate) mod timed;
pub(crate) mod tls;
pub(crate) mod tls_load;

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::content::{Blob, Image, MANIFEST_TYPE, digest_of, named};
pub(crate) use tally::Tally;

/// A request, and what its answer has to be.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// As they are sent.
    pub(crate) bytes: Vec<u8>,
    /// Method and target.
    pub(crate) name: String,
    /// Of the answer.
    pub(crate) status: u16,
    /// Of the answer.
    pub(crate) body: Body,
}

/// What follows an answer's head.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Nothing, whatever `Content-Length` says. With a length: what it has to say.
    None(Option<u64>),
    /// These bytes.
    Small(Arc<[u8]>),
    /// What is made from this seed.
    Seeded { bytes: u64, seed: u64 },
    /// Anything that has a length.
    Any,
}

impl Ask {
    fn new(method: &str, target: &str, headers: &str, status: u16, body: Body) -> Ask {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n");
        Ask { bytes: text.into_bytes(), name: format!("{method} {target}"), status, body }
    }

    /// The whole of a blob.
    pub(crate) fn blob(blob: &Blob) -> Ask {
        let body = Body::Seeded { bytes: blob.bytes, seed: blob.seed };
        Ask::new("GET", &blob.target(), "", 200, body)
    }

    /// A manifest, as containerd asks for it.
    pub(crate) fn manifest(image: &Image, target: &str) -> Ask {
        Ask::new("GET", target, &accept(), 200, Body::Small(image.body.clone()))
    }

    /// Whether a manifest is there, as containerd asks before a pull.
    pub(crate) fn manifest_head(image: &Image, target: &str) -> Ask {
        let body = Body::None(Some(image.body.len() as u64));
        Ask::new("HEAD", target, &accept(), 200, body)
    }

    /// A manifest that the client has already: `etag` is what the server called it before.
    pub(crate) fn not_modified(target: &str, etag: &str) -> Ask {
        let headers = format!("{}If-None-Match: {etag}\r\n", accept());
        Ask::new("GET", target, &headers, 304, Body::None(None))
    }

    /// How long the body of the answer has to be, where that is known.
    pub(crate) fn body_bytes(&self) -> u64 {
        match &self.body {
            Body::Small(bytes) => bytes.len() as u64,
            Body::Seeded { bytes, .. } => *bytes,
            Body::None(_) | Body::Any => 0,
        }
    }

    /// Whether this is a registry.
    pub(crate) fn base() -> Ask {
        Ask::new("GET", "/v2/", "", 200, Body::Any)
    }
}

impl Body {
    /// Its digest, where it is known what it is.
    pub(crate) fn digest(&self) -> Option<String> {
        match self {
            Body::Small(bytes) => Some(named(&Sha256::digest(bytes))),
            Body::Seeded { bytes, seed } => digest_of(*seed, *bytes).ok(),
            Body::None(_) | Body::Any => None,
        }
    }

    /// What `Content-Length` has to say, where that is known.
    fn length(&self) -> Option<u64> {
        match self {
            Body::None(length) => *length,
            Body::Small(bytes) => Some(bytes.len() as u64),
            Body::Seeded { bytes, .. } => Some(*bytes),
            Body::Any => None,
        }
    }
}

fn accept() -> String {
    format!("Accept: {MANIFEST_TYPE}, application/vnd.oci.image.index.v1+json, */*\r\n")
}
