//! What the client tells about itself, so that it need not know how things are counted.

use super::message::Method;
use crate::oci::Namespace;

/// Told of every request that leaves. Called on workers: implementations only count.
pub trait Observer: Send + Sync {
    /// One request to `upstream` (redirect hops and repeats count each); `status` is `None` when it
    /// could not be sent or no response came.
    fn upstream_request(&self, upstream: &Namespace, method: Method, status: Option<u16>) {
        let _ = (upstream, method, status);
    }

    /// One request to a token service on behalf of `upstream`; `status` as above.
    fn token_request(&self, upstream: &Namespace, status: Option<u16>) {
        let _ = (upstream, status);
    }

    /// `bytes` of a response body were received.
    fn upstream_bytes(&self, upstream: &Namespace, bytes: u64) {
        let _ = (upstream, bytes);
    }
}

/// Counts nothing.
impl Observer for () {}
