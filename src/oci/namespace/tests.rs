use super::*;

#[test]
fn hosts_are_normalised_to_one_key() {
    let cases = [
        ("docker.io", "docker.io"),
        ("Docker.IO", "docker.io"),
        ("ghcr.io:443", "ghcr.io"),
        ("ghcr.io:80", "ghcr.io:80"),
        ("myregistry.io:5000", "myregistry.io:5000"),
        ("localhost", "localhost"),
        ("localhost:5711", "localhost:5711"),
        ("registry", "registry"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a-b.c--d.e1", "a-b.c--d.e1"),
        ("3com.com", "3com.com"),
        ("169.254.169.254", "169.254.169.254"),
        ("127.0.0.1:22", "127.0.0.1:22"),
        ("[::1]", "[::1]"),
        ("[::1]:443", "[::1]"),
        ("[::1]:5000", "[::1]:5000"),
        ("[FE80:0:0:0:0:0:0:1]", "[fe80::1]"),
        ("[0:0::1]:5000", "[::1]:5000"),
        ("[::ffff:169.254.169.254]", "[::ffff:169.254.169.254]"),
    ];
    for (text, expected) in cases {
        let namespace = Namespace::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(namespace.as_str(), expected, "{text}");
        assert_eq!(Namespace::parse(expected), Ok(namespace), "{text} is normal after one pass");
    }
}

#[test]
fn host_and_port_come_apart_again() {
    let cases = [
        ("docker.io", "docker.io", None),
        ("a.b:443", "a.b", None),
        ("a.b:5000", "a.b", Some(5000)),
        ("[::1]:5000", "[::1]", Some(5000)),
        ("[::1]", "[::1]", None),
    ];
    for (text, host, port) in cases {
        let namespace = Namespace::parse(text).unwrap();
        assert_eq!((namespace.host(), namespace.port()), (host, port), "{text}");
    }
}

#[test]
fn attacks_and_slips_are_refused() {
    use NamespaceError as E;
    let cases: &[(&str, E)] = &[
        ("", E::Empty),
        ("https://docker.io", E::Scheme),
        ("http://169.254.169.254/latest", E::Scheme),
        ("file:///etc/passwd", E::Scheme),
        ("a@b", E::UserInfo),
        ("user:pass@docker.io", E::UserInfo),
        ("docker.io/library", E::Path),
        ("/docker.io", E::Path),
        ("docker.io\\x", E::Path),
        ("docker.io?x", E::Path),
        ("docker.io#x", E::Path),
        ("../../etc", E::Path),
        ("..", E::Label),
        (".", E::Label),
        ("%2e%2e", E::Character { at: 0 }),
        ("%252e%252e", E::Character { at: 0 }),
        ("docker%2Eio", E::Character { at: 6 }),
        ("docker.io ", E::Character { at: 9 }),
        (" docker.io", E::Character { at: 0 }),
        ("docker.io\r\nX: y", E::Character { at: 9 }),
        ("docker.io\0", E::Character { at: 9 }),
        ("docker.io\x7f", E::Character { at: 9 }),
        ("docker_io", E::Character { at: 6 }),
        ("dócker.io", E::Character { at: 1 }),
        ("docker。io", E::Character { at: 6 }),
        ("a,b", E::Character { at: 1 }),
        ("*.docker.io", E::Character { at: 0 }),
        ("docker.io.", E::Label),
        (".docker.io", E::Label),
        ("docker..io", E::Label),
        ("-docker.io", E::Label),
        ("docker-.io", E::Label),
        ("do[cker.io", E::Label),
        ("docker.io]", E::Label),
        (":5000", E::Label),
        ("2130706433", E::Number),
        ("0x7f000001", E::Number),
        ("0X7F000001", E::Number),
        ("127.1", E::Number),
        ("0177.0.0.1", E::Number),
        ("127.0.0.0x1", E::Number),
        ("256.0.0.1", E::Number),
        ("1.2.3.4.5", E::Number),
        ("a.0x", E::Number),
        ("::1", E::Ipv6),
        ("fe80::1", E::Ipv6),
        ("docker.io:80:80", E::Ipv6),
        ("[::1", E::Ipv6),
        ("[::1]x", E::Ipv6),
        ("[]", E::Ipv6),
        ("[127.0.0.1]", E::Ipv6),
        ("[fe80::1%eth0]", E::Character { at: 8 }),
        ("[[::1]]", E::Ipv6),
        ("docker.io:", E::Port),
        ("docker.io:0", E::Port),
        ("docker.io:00443", E::Port),
        ("docker.io:65536", E::Port),
        ("docker.io:99999999999", E::Port),
        ("docker.io:http", E::Port),
        ("docker.io:-1", E::Port),
        ("[::1]:", E::Port),
    ];
    for (text, expected) in cases {
        assert_eq!(Namespace::parse(text), Err(*expected), "{text:?}");
    }
}

#[test]
fn lengths_are_bounded() {
    let label = "a".repeat(63);
    let longest = [label.as_str(), &label, &label, &"b".repeat(61)].join(".");
    assert_eq!(longest.len(), 253);
    assert!(Namespace::parse(&longest).is_ok());
    assert_eq!(Namespace::parse(&format!("{longest}c")), Err(NamespaceError::Label));
    assert_eq!(Namespace::parse(&format!("{}.io", "a".repeat(64))), Err(NamespaceError::Label));
    assert_eq!(Namespace::parse(&"a".repeat(300)), Err(NamespaceError::TooLong(300)));
    // The bound on the whole text comes first, so that a long text costs nothing.
    assert_eq!(Namespace::parse(&"@".repeat(256)), Err(NamespaceError::TooLong(256)));
}

#[test]
fn scoped_namespaces_are_told_apart_and_read_back() {
    let base = Namespace::parse("reg.example:5000").unwrap();
    let hub = Namespace::parse("docker.io").unwrap();
    let cases = [
        (None, None, "reg.example:5000"),
        (Some("team-a"), None, "reg.example:5000#team-a"),
        (None, Some(&hub), "reg.example:5000?ns=docker.io"),
        (Some("team-a"), Some(&hub), "reg.example:5000?ns=docker.io#team-a"),
    ];
    for (credential, forward_ns, text) in cases {
        let scoped = base.scoped(credential, forward_ns);
        assert_eq!(scoped.as_str(), text);
        assert_eq!((scoped.base(), scoped.port()), ("reg.example:5000", Some(5000)));
        assert_eq!(Namespace::from_stored(text), Ok(scoped.clone()));
        assert_eq!(scoped.scoped(None, None), base);
        assert_eq!(Namespace::parse(text).is_ok(), text == "reg.example:5000", "{text}");
    }
    assert!(Namespace::from_stored("a b#c").is_err());
    assert!(Namespace::from_stored("a?ns=b/c").is_err());
}
