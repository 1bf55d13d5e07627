//! HTTP/1.1 as a server speaks it: request heads, body framing, ranges, validators, response heads.
//!
//! What it is: a codec without sockets and without a clock. Bytes come in as slices and go out
//! into a `Vec<u8>`; the time for `Date` is handed in. httparse splits a head into its tokens; what
//! may stand in them is decided here, more strictly than RFC 9112 allows where leniency has led to
//! request smuggling elsewhere (bare LF, repeated lengths, length with chunks, folded lines, empty
//! chunk sizes).
//!
//! May import: [`crate::limits`], `httparse` (only here), `httpdate`, `thiserror`.
//!
//! **Invariant:** a head either parses to exactly one meaning, or is refused with a status from
//! {400, 414, 431, 501, 505} and a sentence, after which the connection is closed.
//! **Invariant:** the end of every message is known before its first body byte is read.
//! **Invariant:** every function is total over its input, and the result does not depend on how
//! the input was split into reads.
//! **Invariant:** no byte of a peer reaches a response head unfiltered: CR, LF and other control
//! bytes are replaced.
//!
//! Deliberately absent: timers and reading (`server`), what a target means (`oci::Endpoint`),
//! transfer codings other than `chunked`, Upgrade, CONNECT, TRACE and multipart ranges.

pub mod chunked;
pub mod date;
pub mod etag;
mod head_error;
mod method;
pub mod range;
mod request;
mod response;

pub use chunked::{ChunkError, ChunkedDecoder, Step};
pub use date::DateCache;
pub use head_error::HeadError;
pub use method::Method;
pub use range::{ByteRange, RangeOutcome};
pub use request::{BodyFraming, Parsed, RequestHead, Version, looks_like_tls};
pub use response::{CONTINUE, ResponseHead, status_reason};
