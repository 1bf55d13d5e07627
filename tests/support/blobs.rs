//! What the tests of uploads send and expect, request by request.

use super::http::{Answer, Connection, request_bytes, send_body};
use super::images::sha256;
use super::scratch::files_below;
use super::server::Server;
use super::{secs, wait_until};

const BYTES: &str = "application/octet-stream";

/// Hosted repositories that everybody may do everything with.
pub const OPEN: &str = "[[hosted]]\nrepositories = [\"*\"]\npush = [\"anonymous\"]\n\
    delete = [\"anonymous\"]\nanonymous_mount = true\n";

/// Where sessions of a repository begin, or one of them.
pub fn uploads(repository: &str, query: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{query}")
}

/// A request with a body of known length.
pub fn send(server: &Server, method: &str, target: &str, body: &[u8]) -> Answer {
    send_body(server.addr, method, target, BYTES, body)
}

/// With `Content-Range`, and a length that need not be the body's.
pub fn patch(server: &Server, target: &str, range: &str, body: &[u8]) -> Answer {
    let length = body.len().to_string();
    let headers = [("Content-Range", range), ("Content-Length", &length)];
    let mut connection = Connection::open(server.addr);
    connection.send(request_bytes("PATCH", target, &headers));
    connection.send(body);
    connection.read_answer("PATCH").unwrap()
}

/// A request with its body in chunks, and more header lines.
pub fn chunked(
    server: &Server,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    pieces: &[&[u8]],
) -> Answer {
    let mut connection = Connection::open(server.addr);
    let mut all = vec![("Transfer-Encoding", "chunked")];
    all.extend(headers);
    connection.send(request_bytes(method, target, &all));
    for piece in pieces {
        connection.send(format!("{:x}\r\n", piece.len()));
        connection.send(piece);
        connection.send("\r\n");
    }
    connection.send("0\r\n\r\n");
    connection.read_answer(method).unwrap()
}

/// An error, by status and code.
#[track_caller]
pub fn expect(answer: &Answer, status: u16, code: &str) {
    let found = (answer.status(), answer.error_code());
    assert_eq!(found, (status, code.to_owned()), "{:?} {}", answer.head, answer.text());
}

/// It is there for everybody, at once, on connections that land on any worker, with its bytes.
#[track_caller]
pub fn expect_blob(server: &Server, repository: &str, digest: &str, bytes: &[u8]) {
    let target = format!("/v2/{repository}/blobs/{digest}");
    for _ in 0..4 {
        let head = server.head(&target);
        assert_eq!(head.status(), 200, "HEAD {target}");
        assert_eq!(head.header("content-length"), bytes.len().to_string());
        assert_eq!(head.header("docker-content-digest"), digest);
    }
    let answer = server.get(&target);
    assert!(answer.status() == 200 && answer.body == bytes, "{target}: {}", answer.status());
}

/// It is not there.
#[track_caller]
pub fn expect_no_blob(server: &Server, repository: &str, digest: &str) {
    let answer = server.get(&format!("/v2/{repository}/blobs/{digest}"));
    expect(&answer, 404, "BLOB_UNKNOWN");
}

/// Pushes a blob by one request; its digest.
#[track_caller]
pub fn pushed(server: &Server, repository: &str, bytes: &[u8]) -> String {
    let digest = sha256(bytes);
    let target = uploads(repository, &format!("?digest={digest}"));
    let answer = send(server, "POST", &target, bytes);
    assert_eq!(answer.status(), 201, "{}", answer.text());
    assert_eq!(answer.header("location"), format!("/v2/{repository}/blobs/{digest}"));
    assert_eq!(answer.header("docker-content-digest"), digest);
    digest
}

/// Nothing is left of any upload.
#[track_caller]
pub fn expect_no_uploads(server: &Server) {
    wait_until("uploads to be gone", secs(10), || {
        files_below(&server.root().join("uploads")).is_empty()
    });
    assert_eq!(server.metric("ringport_uploads_open", &[]), 0.0);
}
