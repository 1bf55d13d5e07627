use super::*;
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

fn parse(text: impl AsRef<[u8]>) -> Result<Parsed, HeadError> {
    RequestHead::parse(text.as_ref())
}

fn complete(text: impl AsRef<[u8]>) -> RequestHead {
    let text = text.as_ref();
    match parse(text) {
        Ok(Parsed::Complete { head, len }) => {
            assert_eq!(len, text.len(), "{:?}", String::from_utf8_lossy(text));
            head
        }
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(text)),
    }
}

/// A GET of `/` with these extra lines (each with its CR LF).
fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

const CONTAINERD: &str = "HEAD /v2/library/three5m/manifests/latest?ns=docker.io HTTP/1.1\r\n\
    Host: 127.0.0.1:5710\r\nUser-Agent: containerd/2.3.4\r\n\
    Accept: application/vnd.docker.distribution.manifest.v2+json, */*\r\n\
    Accept-Encoding: zstd;q=1.0, gzip;q=0.8, deflate;q=0.5\r\n\r\n";

#[test]
fn a_real_head_is_read() {
    let head = complete(CONTAINERD);
    assert_eq!(head.method, Method::Head);
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.path(), "/v2/library/three5m/manifests/latest");
    assert_eq!(head.query(), Some("ns=docker.io"));
    assert_eq!(head.host(), Some("127.0.0.1:5710"));
    assert_eq!(head.user_agent(), Some("containerd/2.3.4"));
    let accept = head.accept();
    assert_eq!(
        accept.as_deref(),
        Some("application/vnd.docker.distribution.manifest.v2+json, */*")
    );
    assert!(matches!(accept, Some(Cow::Borrowed(_))));
    assert_eq!((head.body, head.content_length), (BodyFraming::None, None));
    assert!(head.keep_alive && !head.expect_100 && !head.has_authorization());
    assert_eq!((head.range(), head.if_range(), head.if_none_match()), (None, None, None));
    let names: Vec<_> = head.headers().map(|(name, _)| name).collect();
    assert_eq!(names, ["Host", "User-Agent", "Accept", "Accept-Encoding"]);
}

#[test]
fn headers_are_found_whatever_their_case_and_number() {
    let head = complete(get(
        "ACCEPT:a/b\r\naccept: \tc/d \t\r\nAccept: \r\nrange: bytes=0-\r\nIf-Range: \"x\"\r\n\
         If-None-Match: \"a\"\r\nif-none-match: W/\"b\"\r\nX-Dragonfly-Registry: https://a.b\r\n\
         x-dragonfly-registry: c.d\r\nAuthorization: Basic x\r\nVia: 1.1 a\r\nVia: 1.1 b\r\n\
         X-Obs: \u{e9}\r\n",
    ));
    assert_eq!(head.accept().as_deref(), Some("a/b, c/d, "));
    assert_eq!(head.range(), Some("bytes=0-"));
    assert_eq!(head.if_range(), Some("\"x\""));
    assert_eq!(head.if_none_match().as_deref(), Some("\"a\", W/\"b\""));
    let registries: Vec<_> = head.x_dragonfly_registry().collect();
    assert_eq!(registries, [&b"https://a.b"[..], b"c.d"]);
    assert!(head.has_authorization());
    assert_eq!(head.via().as_deref(), Some("1.1 a, 1.1 b"));
    assert_eq!(head.header("x-OBS"), Some("\u{e9}".as_bytes()));
    assert_eq!(head.header("x-ob"), None);
    assert_eq!(head.header_str("accept"), Some("a/b"));
}

#[test]
fn bytes_that_are_not_utf8_are_kept_as_bytes() {
    let head = complete(b"GET / HTTP/1.1\r\nHost: h\r\nIf-Range: \xff\r\nRange: \xfe\r\n\r\n");
    assert_eq!(head.header("range"), Some(&b"\xfe"[..]));
    assert_eq!(head.range(), None);
    assert_eq!(head.if_range(), Some(""), "present, and equal to no tag");
}

#[test]
fn targets_take_their_three_forms() {
    let cases = [
        ("GET / HTTP/1.1", "/", None),
        ("GET /v2/?ns=a?b HTTP/1.1", "/v2/", Some("ns=a?b")),
        ("GET /? HTTP/1.1", "/", Some("")),
        ("GET //x HTTP/1.1", "//x", None),
        ("GET /%2e%2e/[x]@:!$&'()*+,;=~ HTTP/1.1", "/%2e%2e/[x]@:!$&'()*+,;=~", None),
        ("GET http://h/v2/?x HTTP/1.1", "/v2/", Some("x")),
        ("GET HTTP://H/v2/ HTTP/1.1", "/v2/", None),
        ("GET https://h HTTP/1.1", "/", None),
        ("GET http://h?x HTTP/1.1", "/", Some("x")),
        ("OPTIONS * HTTP/1.1", "*", None),
    ];
    for (line, path, query) in cases {
        let head = complete(format!("{line}\r\nHost: h\r\n\r\n"));
        assert_eq!((head.path(), head.query()), (path, query), "{line}");
        assert_eq!(head.target(), (path.as_bytes(), query.map(str::as_bytes)), "{line}");
    }
}

#[test]
fn methods_are_told_apart() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let head = complete(format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(head.method.as_str(), method);
        assert_eq!(head.method.reads(), matches!(method, "GET" | "HEAD"));
    }
    let head = complete("VERSION-CONTROL / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(head.method, Method::Other);
}

#[test]
fn bodies_and_connections_are_framed() {
    let long = format!("Content-Length: {}\r\n", 1u64 << 53);
    let cases = [
        ("", BodyFraming::None, None),
        ("Content-Length: 0\r\n", BodyFraming::None, Some(0)),
        ("content-length:\t7 \r\n", BodyFraming::Length(7), Some(7)),
        ("Content-Length: 007\r\n", BodyFraming::Length(7), Some(7)),
        (&long, BodyFraming::Length(1 << 53), Some(1 << 53)),
        ("Transfer-Encoding: chunked\r\n", BodyFraming::Chunked, None),
        ("transfer-encoding: Chunked \r\n", BodyFraming::Chunked, None),
    ];
    for (lines, body, length) in cases {
        let head = complete(get(lines));
        assert_eq!((head.body, head.content_length), (body, length), "{lines}");
    }
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: foo , CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n", true),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: close, keep-alive\r\n", false),
    ];
    for (version, lines, expected) in cases {
        let head = complete(format!("GET / HTTP/{version}\r\nHost: h\r\n{lines}\r\n"));
        assert_eq!(head.keep_alive, expected, "{version} {lines}");
    }
    assert!(complete(get("Expect: 100-Continue\r\n")).expect_100);
    assert!(!complete(get("Expect: 200-maybe\r\n")).expect_100);
    assert!(!complete("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect_100);
}

#[test]
fn hosts_of_every_form_are_taken() {
    for host in ["h", "a.b-c", "a.b:5000", "127.0.0.1", "[::1]", "[::1]:80", "a:", "x_y"] {
        let head = complete(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(head.host(), Some(host));
    }
    assert_eq!(complete("GET / HTTP/1.0\r\n\r\n").host(), None);
}

/// Every refusal of the strictness table, with its status.
#[test]
fn everything_ambiguous_is_refused() {
    use HeadError as E;
    let host_lines = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n");
    let cases = [
        // Line ends.
        ("GET / HTTP/1.1\nHost: h\r\n\r\n".into(), E::LineEnd),
        ("GET / HTTP/1.1\r\nHost: h\n\r\n".into(), E::LineEnd),
        ("GET / HTTP/1.1\r\nHost: h\r\n\n".into(), E::LineEnd),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n".into(), E::LineEnd),
        ("GET / HTTP/1.1\r\nHost: h\r\r\n\r\n".into(), E::LineEnd),
        ("GET / HTTP/1.1\rHost: h\r\n\r\n".into(), E::LineEnd),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        // The request line.
        (" GET / HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET /  HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET / HTTP/1.1 \r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET /\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET / x HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET / http/1.1\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET / HTTP/1.\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET / HTTP/11\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET / HTTP/1.10\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET / ICY/1.1\r\nHost: h\r\n\r\n".into(), E::RequestLine),
        ("GET / HTTP/1.2\r\nHost: h\r\n\r\n".into(), E::Version),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".into(), E::Version),
        ("GET / HTTP/0.9\r\nHost: h\r\n\r\n".into(), E::Version),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), E::Version),
        ("get / HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Method),
        ("Get / HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Method),
        ("G!T / HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Method),
        ("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Method),
        ("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Method),
        ("GET \u{e9} HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Target),
        ("GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Target),
        ("GET /a\"b HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Target),
        ("GET /<x> HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Target),
        ("GET /#x HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Target),
        ("GET /a\\b HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Target),
        ("GET /{x}|^` HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Target),
        ("GET v2/ HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Target),
        ("GET * HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Target),
        ("GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Target),
        ("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::Target),
        // Header lines.
        (get("X : y\r\n"), E::HeaderName),
        (get("X\t: y\r\n"), E::HeaderName),
        (get(" X: y\r\n"), E::HeaderName),
        (get("X: y\r\n folded\r\n"), E::HeaderName),
        (get("X: y\r\n\tfolded\r\n"), E::HeaderName),
        (get(": y\r\n"), E::HeaderName),
        (get("X\r\n"), E::HeaderName),
        (get("X y: z\r\n"), E::HeaderName),
        (get("X(y): z\r\n"), E::HeaderName),
        (get("X\0: z\r\n"), E::HeaderName),
        (get("\u{e9}: z\r\n"), E::HeaderName),
        (get("X: a\0b\r\n"), E::HeaderValue),
        (get("X: a\u{1}b\r\n"), E::HeaderValue),
        (get("X: a\u{b}\r\n"), E::HeaderValue),
        (get("X: a\u{7f}\r\n"), E::HeaderValue),
        // Host.
        (host_lines(""), E::HostCount),
        (host_lines("Host: h\r\nHost: h\r\n"), E::HostCount),
        (host_lines("Host: h\r\nhOST: x\r\n"), E::HostCount),
        (host_lines("Host:\r\n"), E::HostSyntax),
        (host_lines("Host: \t\r\n"), E::HostSyntax),
        (host_lines("Host: a, b\r\n"), E::HostSyntax),
        (host_lines("Host: a b\r\n"), E::HostSyntax),
        (host_lines("Host: u@h\r\n"), E::HostSyntax),
        (host_lines("Host: h/x\r\n"), E::HostSyntax),
        (host_lines("Host: http://h\r\n"), E::HostSyntax),
        (host_lines("Host: h:80:80\r\n"), E::HostSyntax),
        (host_lines("Host: h:x\r\n"), E::HostSyntax),
        (host_lines("Host: h:123456\r\n"), E::HostSyntax),
        (host_lines("Host: :80\r\n"), E::HostSyntax),
        (host_lines("Host: [::1\r\n"), E::HostSyntax),
        (host_lines("Host: []\r\n"), E::HostSyntax),
        (host_lines("Host: [::1]x\r\n"), E::HostSyntax),
        (host_lines("Host: \u{e9}\r\n"), E::HostSyntax),
        ("GET http://x/ HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::HostDiffers),
        ("GET http://h:80/ HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::HostDiffers),
        ("GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::HostDiffers),
        ("GET http:/// HTTP/1.1\r\nHost: h\r\n\r\n".into(), E::HostDiffers),
        ("GET http://h/ HTTP/1.0\r\n\r\n".into(), E::HostDiffers),
        // Length and coding.
        (get("Content-Length: 1\r\nContent-Length: 1\r\n"), E::RepeatedLength),
        (get("Content-Length: 1\r\ncontent-length: 2\r\n"), E::RepeatedLength),
        (get("Content-Length: 1,1\r\n"), E::RepeatedLength),
        (get("Content-Length: 1, 2\r\n"), E::RepeatedLength),
        (get("Content-Length:\r\n"), E::Length),
        (get("Content-Length: +1\r\n"), E::Length),
        (get("Content-Length: -1\r\n"), E::Length),
        (get("Content-Length: 0x10\r\n"), E::Length),
        (get("Content-Length: 1 1\r\n"), E::Length),
        (get("Content-Length: 1e3\r\n"), E::Length),
        (get("Content-Length: 9007199254740993\r\n"), E::Length),
        (get("Content-Length: 18446744073709551616\r\n"), E::Length),
        (get("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), E::LengthAndCoding),
        (get("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), E::LengthAndCoding),
        (get("Transfer-Encoding: gzip\r\nContent-Length: 0\r\n"), E::LengthAndCoding),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), E::CodingInHttp10),
        (get("Transfer-Encoding: gzip\r\n"), E::Coding),
        (get("Transfer-Encoding: gzip, chunked\r\n"), E::Coding),
        (get("Transfer-Encoding: chunked, chunked\r\n"), E::Coding),
        (get("Transfer-Encoding: identity\r\n"), E::Coding),
        (get("Transfer-Encoding: xchunked\r\n"), E::Coding),
        (get("Transfer-Encoding: chunked;x=1\r\n"), E::Coding),
        (get("Transfer-Encoding: \"chunked\"\r\n"), E::Coding),
        (get("Transfer-Encoding:\r\n"), E::Coding),
        (get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), E::Coding),
        (get("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), E::Coding),
        (get("Range: bytes=0-\r\nRange: bytes=1-\r\n"), E::RepeatedRange),
        (get("If-Range: x\r\nif-range: x\r\n"), E::RepeatedRange),
        // Not HTTP at all.
        ("\u{16}\u{3}\u{1}".into(), E::Tls),
        ("\0".into(), E::RequestLine),
        ("\u{80}.\u{1}".into(), E::RequestLine),
    ];
    for (text, expected) in cases {
        match parse(&text) {
            Err(found) => assert_eq!(found, expected, "{text:?}"),
            Ok(parsed) => panic!("{text:?} was taken: {parsed:?}"),
        }
        fed_by_byte_is_the_same(text.as_bytes());
    }
}

#[test]
fn each_refusal_has_one_of_five_statuses() {
    let cases = [
        (HeadError::Tls, 400),
        (HeadError::LineEnd, 400),
        (HeadError::LengthAndCoding, 400),
        (HeadError::CodingInHttp10, 400),
        (HeadError::TargetTooLong, 414),
        (HeadError::TooLarge, 431),
        (HeadError::TooManyHeaders, 431),
        (HeadError::Coding, 501),
        (HeadError::Version, 505),
    ];
    for (error, status) in cases {
        assert_eq!(error.status(), status, "{error:?}");
    }
}

/// Feeds longer and longer beginnings: the first verdict must be that of the whole.
fn fed_by_byte_is_the_same(text: &[u8]) {
    let describe = |parsed: Result<Parsed, HeadError>| match parsed {
        Ok(Parsed::Partial) => None,
        Ok(Parsed::Complete { head, len }) => Some(format!("{head:?} {len}")),
        Err(error) => Some(format!("{error:?}")),
    };
    let whole = describe(parse(text));
    let first = (0..=text.len()).find_map(|end| describe(parse(&text[..end])));
    assert_eq!(first, whole, "{:?}", String::from_utf8_lossy(text));
}

#[test]
fn a_head_does_not_depend_on_how_it_was_split() {
    for text in [CONTAINERD.to_owned(), format!("\r\n{CONTAINERD}"), get("X: y\r\n")] {
        for end in 0..text.len() {
            assert!(matches!(parse(&text[..end]), Ok(Parsed::Partial)), "{:?}", &text[..end]);
        }
        fed_by_byte_is_the_same(text.as_bytes());
    }
}

/// Whatever was read before into the same memory.
#[test]
fn a_head_does_not_depend_on_the_one_before() {
    let lines = [
        "GET / HTTP/1.1",
        "GET /v2/a/manifests/v1?ns=b HTTP/1.1",
        "HEAD /v2/?x HTTP/1.1",
        "PUT / HTTP/1.1",
        "GET / HTTP/1.0",
        "GET http://h/x HTTP/1.1",
        "GET http://other/ HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET * HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/2.0",
        "GET /\u{e9} HTTP/1.1",
        "GET /\n HTTP/1.1",
        "CONNECT h HTTP/1.1",
        "",
    ];
    let blocks = [
        "Host: h\r\n",
        "Host: h\r\nVia: 1.1 a\r\nRange: bytes=0-\r\n",
        "Host: h\r\nConnection: close\r\nContent-Length: 3\r\n",
        "Host: h\r\nContent-Length: 0\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n",
        "Host: h\r\nTransfer-Encoding: chunked\r\nAuthorization: Basic x\r\n",
        "Host: h\r\nX:\r\n y\r\n",
        "Host: h\r\nHost: h\r\n",
        "X: y\r\n",
        "",
    ];
    let mut texts: Vec<String> = Vec::new();
    for line in lines {
        for block in blocks {
            texts.push(format!("{line}\r\n{block}\r\n"));
        }
        texts.push(format!("\r\n{line}\r\nHost: h\r\n\r\nGET / HT"));
        texts.push(format!("{line}\nHost: h\r\n\r\n"));
        texts.push(format!("{line}\r\nHost: h\r\n"));
    }
    texts.push(format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(TARGET_BYTES_MAX)));
    let said = |read: Result<Option<usize>, HeadError>, head: &RequestHead| match read {
        Ok(Some(len)) => {
            let about = (head.method, head.version, head.body, head.content_length);
            let flags = (head.expect_100, head.keep_alive, head.asked);
            let headers: Vec<_> =
                head.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            let (path, query, host) = (head.path(), head.query(), head.host());
            format!("{len} {about:?} {flags:?} {path} {query:?} {host:?} {headers:?}")
        }
        other => format!("{other:?}"),
    };
    let mut fell_back = 0;
    for before in &texts {
        for text in &texts {
            let mut used = RequestHead::none();
            let _ = used.read(before.as_bytes());
            let mut fresh = RequestHead::none();
            let expected = fresh.read(text.as_bytes());
            let mut copy = used.clone();
            fell_back += usize::from(parse::repeated(text.as_bytes(), &mut copy).is_none());
            let read = used.read(text.as_bytes());
            assert_eq!(said(read, &used), said(expected, &fresh), "{before:?}, then {text:?}");
            // And the one behind it.
            let read = used.read(before.as_bytes());
            let mut fresh = RequestHead::none();
            let expected = fresh.read(before.as_bytes());
            assert_eq!(said(read, &used), said(expected, &fresh), "{before:?} after {text:?}");
        }
    }
    let all = texts.len() * texts.len();
    assert!(fell_back < all, "nothing was ever repeated");
    assert!(fell_back > all / 2, "nearly all differ");
}

#[test]
fn what_follows_the_head_is_left_alone() {
    let text = format!("\r\n{CONTAINERD}\0garbage\nGET");
    match parse(&text).unwrap() {
        Parsed::Complete { len, .. } => assert_eq!(len, CONTAINERD.len() + 2),
        Parsed::Partial => panic!("whole"),
    }
}

#[test]
fn sizes_are_bounded_at_the_byte() {
    let padded = |total: usize| {
        let empty = get("X: \r\n").len();
        get(&format!("X: {}\r\n", "a".repeat(total - empty)))
    };
    assert_eq!(padded(HEAD_BYTES_MAX).len(), HEAD_BYTES_MAX);
    complete(padded(HEAD_BYTES_MAX));
    assert_eq!(parse(padded(HEAD_BYTES_MAX + 1)).unwrap_err(), HeadError::TooLarge);
    assert_eq!(parse(get(&"X: y\r\n".repeat(9000))).unwrap_err(), HeadError::TooLarge);
    // A reader whose buffer is full must get a verdict, or it would wait for room for ever.
    let full = &padded(HEAD_BYTES_MAX + 1)[..HEAD_BYTES_MAX];
    assert_eq!(parse(full).unwrap_err(), HeadError::TooLarge);
    fed_by_byte_is_the_same(padded(HEAD_BYTES_MAX + 9).as_bytes());

    complete(get(&"X: y\r\n".repeat(HEADERS_MAX - 1)));
    let many = get(&"X: y\r\n".repeat(HEADERS_MAX));
    assert_eq!(parse(many).unwrap_err(), HeadError::TooManyHeaders);

    let target =
        |length: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(length - 1));
    complete(target(TARGET_BYTES_MAX));
    assert_eq!(parse(target(TARGET_BYTES_MAX + 1)).unwrap_err(), HeadError::TargetTooLong);
    assert_eq!(parse("G".repeat(5000)).unwrap_err(), HeadError::TargetTooLong);
    fed_by_byte_is_the_same(target(TARGET_BYTES_MAX + 100).as_bytes());
}

#[test]
fn debug_output_holds_no_secret() {
    let head =
        complete("GET /p?token=canary HTTP/1.1\r\nHost: h\r\nAuthorization: Basic canary\r\n\r\n");
    let shown = format!("{head:?}");
    assert!(shown.contains("/p") && !shown.contains("canary"), "{shown}");
}

/// Every byte at every place of a head: no panic, and whatever is taken has one meaning.
#[test]
fn one_wrong_byte_anywhere_is_survived() {
    let original = get("Content-Length: 10\r\nRange: bytes=0-1\r\nX: y\r\n").into_bytes();
    for at in 0..original.len() {
        for byte in 0..=255u8 {
            let mut text = original.clone();
            text[at] = byte;
            if let Ok(Parsed::Complete { head, len }) = parse(&text) {
                assert!(len <= text.len() && head.path().starts_with('/'));
                assert!(head.host().is_some_and(|host| !host.is_empty()));
            }
        }
    }
}
