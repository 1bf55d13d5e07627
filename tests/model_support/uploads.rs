//! Uploads as clients make them: all at once, in pieces, cut off and gone on with.

use super::operation::Way;
use super::wire::{Body, Told, UnderWay, Wire, expect, expect_header, location, with_query, wrong};
use crate::support::http::Answer;
use crate::support::ms;

/// An upload session that a client has opened.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Whose it is.
    pub repo: usize,
    /// What it is to become.
    pub blob: usize,
    /// Where it goes on.
    pub target: String,
    /// Bytes that the server has said it has.
    pub offset: usize,
    /// Bytes that were sent at most.
    pub sent: usize,
    /// When it last got a piece, in hours of the moved clock: after a day it may have expired.
    pub moved: u64,
    /// The server ended since: it may be gone, or less far.
    pub is_uncertain: bool,
}

/// Begins one; where it goes on.
pub fn open(wire: &mut Wire, repository: &str) -> Told<String> {
    let target = format!("/v2/{repository}/blobs/uploads/");
    let answer = wire.ask("POST", &target, &[], Body::Bytes(b""))?;
    expect(&answer, &[202], &target)?;
    let target = location(&answer, &target)?;
    wire.under_way = Some(UnderWay { target: target.clone(), sent: 0 });
    Ok(target)
}

/// Sends a piece that begins at `offset`; where it goes on.
pub fn append(
    wire: &mut Wire,
    target: &str,
    offset: usize,
    piece: &[u8],
    is_streamed: bool,
) -> Told<String> {
    let what = format!("PATCH of {} bytes at {offset}", piece.len());
    wire.under_way = Some(UnderWay { target: target.to_owned(), sent: offset + piece.len() });
    let answer = send(wire, target, offset, piece, is_streamed)?;
    expect(&answer, &[202], &what)?;
    let end = offset + piece.len();
    if end > 0 {
        expect_header(&answer, "range", &format!("0-{}", end - 1), &what)?;
    }
    location(&answer, &what)
}

/// The request of a piece.
pub fn send(
    wire: &mut Wire,
    target: &str,
    offset: usize,
    piece: &[u8],
    is_streamed: bool,
) -> Told<Answer> {
    let octets = ("Content-Type", "application/octet-stream");
    if is_streamed {
        return wire.ask("PATCH", target, &[octets], Body::Chunks(piece));
    }
    let range = format!("{offset}-{}", (offset + piece.len()).saturating_sub(1));
    wire.ask("PATCH", target, &[octets, ("Content-Range", &range)], Body::Bytes(piece))
}

/// How far the server is, and where it goes on; `None` when it knows no such upload.
pub fn status(wire: &mut Wire, target: &str) -> Told<Option<(usize, String)>> {
    let answer = wire.ask("GET", target, &[], Body::None)?;
    expect(&answer, &[204, 404], target)?;
    if answer.status() == 404 {
        return Ok(None);
    }
    let range = answer.head.headers.one("range").unwrap_or("0-0");
    let Some(last) = range.strip_prefix("0-").and_then(|last| last.parse::<usize>().ok()) else {
        return wrong(format!("GET {target}: `range` is {range:?}"));
    };
    // Nothing can not be told from one byte.
    let offset = if last == 0 { 0 } else { last + 1 };
    Ok(Some((offset, location(&answer, target)?)))
}

/// Ends an upload with what is left of it; the answer.
pub fn finish(wire: &mut Wire, target: &str, digest: &str, rest: &[u8]) -> Told<Answer> {
    if let Some(under_way) = &mut wire.under_way {
        under_way.sent += rest.len();
    }
    let target = with_query(target, &format!("digest={digest}"));
    let octets = ("Content-Type", "application/octet-stream");
    let answer = wire.ask("PUT", &target, &[octets], Body::Bytes(rest))?;
    if answer.status() == 201 {
        wire.under_way = None;
    }
    Ok(answer)
}

/// Pushes a blob; the last answer, which must be a 201.
pub fn push(
    wire: &mut Wire,
    repository: &str,
    digest: &str,
    bytes: &[u8],
    way: Way,
) -> Told<Answer> {
    match way {
        Way::Single => {
            let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
            let octets = ("Content-Type", "application/octet-stream");
            let answer = wire.ask("POST", &target, &[octets], Body::Bytes(bytes))?;
            if answer.status() != 202 {
                return Ok(answer);
            }
            // Allowed by the specification: it takes no body here.
            let target = location(&answer, &target)?;
            finish(wire, &target, digest, bytes)
        }
        Way::Put => {
            let target = open(wire, repository)?;
            finish(wire, &target, digest, bytes)
        }
        Way::Chunks { count, last_by_put } => {
            let mut target = open(wire, repository)?;
            let size = bytes.len().div_ceil(count).max(1);
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            let by_patch = pieces.len() - usize::from(last_by_put && !pieces.is_empty());
            for (n, piece) in pieces[..by_patch].iter().enumerate() {
                target = append(wire, &target, n * size, piece, false)?;
            }
            finish(wire, &target, digest, pieces.get(by_patch).unwrap_or(&&b""[..]))
        }
        Way::Streamed => {
            let target = open(wire, repository)?;
            let target = append(wire, &target, 0, bytes, true)?;
            finish(wire, &target, digest, b"")
        }
        Way::Cut { .. } if bytes.len() < 2 => push(wire, repository, digest, bytes, Way::Put),
        Way::Cut { percent, by_reset } => {
            let target = open(wire, repository)?;
            let part = &bytes[..bytes.len() * percent / 100];
            let range = format!("0-{}", bytes.len().saturating_sub(1));
            let headers = [("Content-Range", range.as_str())];
            wire.under_way = Some(UnderWay { target: target.clone(), sent: part.len() });
            wire.ask_and_leave("PATCH", &target, &headers, part, bytes.len(), by_reset)?;
            go_on(wire, &target, part.len(), digest, bytes)
        }
    }
}

/// Finds out how far a cut off upload is, and brings the rest.
fn go_on(wire: &mut Wire, target: &str, sent: usize, digest: &str, bytes: &[u8]) -> Told<Answer> {
    let (mut last, mut is_one) = (None, false);
    for _ in 0..400 {
        let Some((mut offset, target)) = status(wire, target)? else {
            return wrong(format!("{target}: an upload whose connection ended is gone"));
        };
        // What is told is the same for nothing and for one byte.
        if offset == 0 && is_one {
            offset = 1;
        }
        if offset > sent {
            return wrong(format!("{target}: {offset} bytes are there of {sent} that were sent"));
        }
        // The server may still be reading what had come.
        if last == Some(offset) {
            let range = format!("{offset}-{}", bytes.len().saturating_sub(1));
            let rest = &bytes[offset..];
            if rest.is_empty() {
                return finish(wire, &target, digest, rest);
            }
            wire.under_way = Some(UnderWay { target: target.clone(), sent: bytes.len() });
            let headers = [("Content-Range", range.as_str())];
            let answer = wire.ask("PATCH", &target, &headers, Body::Bytes(rest))?;
            if answer.status() == 202 {
                let target = location(&answer, "PATCH of the rest")?;
                return finish(wire, &target, digest, b"");
            }
            expect(&answer, &[409, 416], "PATCH of the rest")?;
            is_one = offset == 0 && sent > 0;
        }
        last = Some(offset);
        std::thread::sleep(ms(3));
    }
    wrong(format!("{target}: does not come to rest after its connection ended"))
}
