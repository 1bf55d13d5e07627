//! Asking a running server over its admin address: one small exchange a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// For connecting, and for each read and write.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// An error document.
#[derive(Deserialize)]
struct Refused {
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

/// Sends a request without a body and reads the JSON answer. `method` and `target` are ours.
///
/// # Errors
/// A sentence: nobody answers, or the server refused.
pub(super) fn ask<T: DeserializeOwned>(
    admin: SocketAddr,
    method: &str,
    target: &str,
) -> Result<T, String> {
    let (status, body) = exchange(admin, method, target).map_err(|error| {
        format!("the server does not answer on its admin address {admin}: {error}")
    })?;
    if !(200..300).contains(&status) {
        let refused: Option<Refused> = serde_json::from_slice(&body).ok();
        let reason = refused.and_then(|refused| refused.errors.into_iter().next());
        let message = reason.map_or_else(|| format!("status {status}"), |reason| reason.message);
        return Err(format!("the server on {admin} refuses {method} {target}: {message}"));
    }
    serde_json::from_slice(&body).map_err(|error| {
        format!(
            "the server on {admin} answers {method} {target} with something else than this \
             program expects ({error}); is it another version?"
        )
    })
}

fn exchange(admin: SocketAddr, method: &str, target: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    split(&answer).ok_or_else(|| std::io::Error::other("what came is no whole HTTP answer"))
}

/// Status and body of an answer with a Content-Length.
fn split(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let body = answer.get(end + 4..)?;
    (body.len() == length).then(|| (status, body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_none() {
        let cases: [(&str, Option<(u16, &str)>); 5] = [
            ("HTTP/1.1 202 Accepted\r\nX: y\r\ncontent-length: 2\r\n\r\n{}", Some((202, "{}"))),
            ("HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n", Some((409, ""))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", None),
            ("HTTP/1.1 200 OK\r\n\r\n{}", None),
            ("SSH-2.0-OpenSSH\r\n\r\n", None),
        ];
        for (answer, expected) in cases {
            let expected = expected.map(|(status, body)| (status, body.as_bytes().to_vec()));
            assert_eq!(split(answer.as_bytes()), expected, "{answer:?}");
        }
    }

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let admin = listener.local_addr().expect("its address");
        drop(listener);
        let refused = ask::<serde_json::Value>(admin, "GET", "/verify").expect_err("refused");
        assert!(refused.contains(&admin.to_string()), "{refused}");
    }
}
