//! Writing response heads.

/// The interim response that lets a client with `Expect: 100-continue` send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A response head in the making: status line first, then headers in the order given.
///
/// ```text
/// ResponseHead::append_to(out, 200).content(digest).content_length(7).finish(dates.at(now))
/// ```
#[derive(Debug)]
#[must_use = "a head is nothing until `finish`"]
pub struct ResponseHead {
    out: Vec<u8>,
    status: u16,
}

impl ResponseHead {
    /// Begins a head behind what `out` holds: a buffer used again, or the previous responses of a
    /// pipelining client. A status that is not three digits becomes 500.
    pub fn append_to(mut out: Vec<u8>, status: u16) -> Self {
        if status == 200 {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
            return Self { out, status };
        }
        let status = if (100..1000).contains(&status) { status } else { 500 };
        out.extend_from_slice(b"HTTP/1.1 ");
        // Three digits, as was just seen.
        out.extend([100, 10, 1].map(|unit| b'0' + (status / unit % 10) as u8));
        out.push(b' ');
        out.extend_from_slice(status_reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        Self { out, status }
    }

    /// Adds a header. CR, LF, other control bytes and bytes outside ASCII in `value` become `?`,
    /// so a value that came from a client, an upstream or a file can't start a line of its own.
    pub fn text(mut self, name: &'static str, value: &str) -> Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        push_filtered(&mut self.out, value);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a header that is the same in all responses: the whole line, with its CR LF.
    pub fn line(mut self, line: &'static str) -> Self {
        self.out.extend_from_slice(line.as_bytes());
        self
    }

    /// Adds what names the content: `ETag`, in double quotes, and `Docker-Content-Digest`. The value as for
    /// [`ResponseHead::text`].
    pub fn content(mut self, digest: &str) -> Self {
        self.out.extend_from_slice(b"ETag: \"");
        let start = self.out.len();
        push_filtered(&mut self.out, digest);
        let written = start..self.out.len();
        self.out.extend_from_slice(b"\"\r\nDocker-Content-Digest: ");
        self.out.extend_from_within(written);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// As [`ResponseHead::text`], for a number.
    pub fn number(self, name: &'static str, value: u64) -> Self {
        // 20 digits at most.
        let mut digits = [0; 20];
        let (mut rest, mut at) = (value, digits.len());
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            at -= 1;
            if rest == 0 {
                break;
            }
        }
        let mut head = self;
        head.out.extend_from_slice(name.as_bytes());
        head.out.extend_from_slice(b": ");
        head.out.extend_from_slice(digits.get(at..).unwrap_or_default());
        head.out.extend_from_slice(b"\r\n");
        head
    }

    /// Adds `Content-Length`, except to 1xx and 204, which must not have one (RFC 9110 §8.6).
    pub fn content_length(self, bytes: u64) -> Self {
        match self.status {
            100..200 | 204 => self,
            _ => self.number("Content-Length", bytes),
        }
    }

    /// Adds `Connection: close`.
    pub fn connection_close(self) -> Self {
        self.text("Connection", "close")
    }

    /// Adds `Connection: keep-alive`, which an HTTP/1.0 client that asked for it waits for.
    pub fn connection_keep_alive(self) -> Self {
        self.text("Connection", "keep-alive")
    }

    /// Adds `Date` (from a [`super::DateCache`]) and the empty line.
    pub fn finish(mut self, date: &str) -> Vec<u8> {
        self.out.extend_from_slice(b"Date: ");
        push_filtered(&mut self.out, date);
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out
    }
}

/// Lets through what a field value may hold (RFC 9110 §5.5, without obs-text).
fn push_filtered(out: &mut Vec<u8>, text: &str) {
    let allowed = |byte: u8| matches!(byte, b'\t' | b' '..=b'~');
    // Without an early end, so that the compiler can look at many bytes at a time.
    if text.bytes().fold(true, |so_far, byte| so_far & allowed(byte)) {
        out.extend_from_slice(text.as_bytes());
    } else {
        let replace = |letter: char| u8::try_from(letter).ok().filter(|byte| allowed(*byte));
        out.extend(text.chars().map(|letter| replace(letter).unwrap_or(b'?')));
    }
}

/// The reason phrase of a status (RFC 9110 §15, RFC 6585), empty for those we never send.
pub const fn status_reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16) -> ResponseHead {
        ResponseHead::append_to(Vec::new(), status)
    }

    fn written(head: ResponseHead) -> String {
        String::from_utf8(head.finish("D")).unwrap()
    }

    #[test]
    fn a_head_is_written_in_order() {
        let whole = head(206)
            .text("A", "b\nc")
            .content("x\r")
            .line("L: 1\r\n")
            .number("N", 0)
            .number("M", u64::MAX)
            .content_length(7)
            .connection_close();
        let expected = "HTTP/1.1 206 Partial Content\r\nA: b?c\r\nETag: \"x?\"\r\n\
                        Docker-Content-Digest: x?\r\nL: 1\r\nN: 0\r\n\
                        M: 18446744073709551615\r\nContent-Length: 7\r\nConnection: close\r\n\
                        Date: D\r\n\r\n";
        assert_eq!(written(whole), expected);
        let behind = ResponseHead::append_to(b"before".to_vec(), 200).connection_keep_alive();
        let expected = "beforeHTTP/1.1 200 OK\r\nConnection: keep-alive\r\nDate: D\r\n\r\n";
        assert_eq!(written(behind), expected);
    }

    #[test]
    fn values_cannot_break_out_of_their_line() {
        let cases = [
            ("a\r\nSet-Cookie: b", "a??Set-Cookie: b"),
            ("a\nb\rc", "a?b?c"),
            ("a\0b\x7fc\u{1b}", "a?b?c?"),
            ("é\u{a0}\u{2028}x", "???x"),
            ("tab\tis fine ~", "tab\tis fine ~"),
            ("", ""),
        ];
        for (value, expected) in cases {
            let found = written(head(200).text("X", value));
            assert_eq!(found, format!("HTTP/1.1 200 OK\r\nX: {expected}\r\nDate: D\r\n\r\n"));
        }
    }

    #[test]
    fn statuses_without_a_length_get_none() {
        for status in [100, 199, 204] {
            assert!(!written(head(status).content_length(0)).contains("Length"));
        }
        for status in [200, 206, 304, 404] {
            let found = written(head(status).content_length(0));
            assert!(found.contains("\r\nContent-Length: 0\r\n"), "{status}");
        }
    }

    #[test]
    fn a_status_line_is_always_well_formed() {
        for (status, line) in [(0, "500 Internal Server Error"), (1000, "500 "), (299, "299 ")] {
            let found = written(head(status));
            assert!(found.starts_with(&format!("HTTP/1.1 {line}")), "{found}");
        }
    }

    #[test]
    fn the_interim_response_is_a_whole_head() {
        assert!(CONTINUE.ends_with(b"\r\n\r\n"));
    }
}
