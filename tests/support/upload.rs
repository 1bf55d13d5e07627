//! One upload session by the raw client: every request, every break-off is the test's.

use super::http::{Answer, Connection, request_bytes, send_body};
use std::net::SocketAddr;

const BYTES: &str = "application/octet-stream";

/// A session: where the next request of it goes.
pub struct Upload {
    addr: SocketAddr,
    /// Path and query.
    pub location: String,
}

/// Path and query of a `Location`, which may have a scheme and host before them.
pub fn path_of(location: &str) -> String {
    location.find("/v2/").map_or(location, |at| &location[at..]).to_owned()
}

impl Upload {
    /// Begins one in a repository.
    #[track_caller]
    pub fn begin(addr: SocketAddr, repository: &str) -> Upload {
        let target = format!("/v2/{repository}/blobs/uploads/");
        let answer = send_body(addr, "POST", &target, BYTES, b"");
        assert_eq!(answer.status(), 202, "POST {target}: {}", answer.text());
        Upload { addr, location: path_of(answer.header("location")) }
    }

    fn follow(&mut self, answer: Answer) -> Answer {
        if !answer.header("location").is_empty() {
            self.location = path_of(answer.header("location"));
        }
        answer
    }

    /// PATCH of a piece that starts at `start`, whole; the answer.
    #[track_caller]
    pub fn patch(&mut self, start: usize, piece: &[u8]) -> Answer {
        let head = self.patch_head(start, piece.len());
        let mut connection = Connection::open(self.addr);
        connection.send(head);
        connection.send(piece);
        let answer = connection.read_answer("PATCH");
        self.follow(answer.unwrap_or_else(|e| panic!("no answer to a PATCH: {e}")))
    }

    /// PATCH that announces `piece` and of which only `sent` bytes go out; the connection, open.
    #[track_caller]
    pub fn patch_part(&self, start: usize, piece: &[u8], sent: usize) -> Connection {
        let mut connection = Connection::open(self.addr);
        connection.send(self.patch_head(start, piece.len()));
        connection.send(&piece[..sent]);
        connection
    }

    fn patch_head(&self, start: usize, length: usize) -> String {
        let range = format!("{start}-{}", start + length - 1);
        let length = length.to_string();
        let headers =
            [("Content-Type", BYTES), ("Content-Range", &range), ("Content-Length", &length)];
        request_bytes("PATCH", &self.location, &headers)
    }

    /// GET of the session: how many bytes it has, or the answer that is no 204.
    #[track_caller]
    pub fn status(&mut self) -> Result<usize, Answer> {
        let answer = Connection::open(self.addr).exchange("GET", &self.location, &[]);
        if answer.status() != 204 {
            return Err(answer);
        }
        let range = answer.header("range").to_owned();
        let last = range.strip_prefix("0-").and_then(|last| last.parse::<usize>().ok());
        let last = last.unwrap_or_else(|| panic!("Range: {range:?}"));
        self.follow(answer);
        // `0-0` is what both none and one byte look like; no test sends one.
        Ok(if last == 0 { 0 } else { last + 1 })
    }

    /// PUT that closes it, with a last piece or none.
    #[track_caller]
    pub fn put(&mut self, digest: &str, piece: &[u8]) -> Answer {
        let joint = if self.location.contains('?') { '&' } else { '?' };
        let target = format!("{}{joint}digest={digest}", self.location);
        send_body(self.addr, "PUT", &target, BYTES, piece)
    }

    /// DELETE of the session.
    #[track_caller]
    pub fn cancel(&self) -> Answer {
        Connection::open(self.addr).exchange("DELETE", &self.location, &[])
    }
}
