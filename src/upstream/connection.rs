//! One HTTP/1.1 connection: hyper's state machine over a plain or TLS stream.

use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::rt::{Read, Write};

use super::outgoing::Outgoing;
use crate::limits::{FRAME_BYTES_MAX, HEAD_BYTES_MAX};
use crate::runtime::spawn;

/// Sends our requests, which have no body unless they write to a remote tier.
pub(super) type Sender = SendRequest<Outgoing>;

/// A head and the rest.
pub(super) type Reply = hyper::Response<Incoming>;

/// Largest response head. Registries' own are below 2 KiB; CDNs add cookies and policies.
const REPLY_HEAD_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;
/// Most header lines in a response.
const REPLY_HEADERS_MAX: usize = 100;

/// Starts HTTP/1.1 on a connected stream. The connection lives in a task of its own until the
/// sender is dropped or the server closes.
///
/// # Errors
/// hyper's, when the stream is closed already.
pub(super) async fn start<S>(stream: S) -> Result<Sender, hyper::Error>
where
    S: Read + Write + Unpin + 'static,
{
    let (sender, connection) = Builder::new()
        .max_buf_size(FRAME_BYTES_MAX)
        .max_header_size(REPLY_HEAD_BYTES_MAX)
        .max_headers(REPLY_HEADERS_MAX)
        .handshake::<_, Outgoing>(stream)
        .await?;
    spawn(async move {
        // What goes wrong reaches whoever waits for the response or reads the body; on an idle
        // connection nobody needs to know.
        if let Err(error) = connection.await {
            tracing::trace!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

/// Whether a request on a reused connection failed before anything of a response came, so that it
/// met a connection the server was closing and may be sent again on a new one.
pub(super) fn met_closing(error: &hyper::Error) -> bool {
    !error.is_parse() && !error.is_user()
}
