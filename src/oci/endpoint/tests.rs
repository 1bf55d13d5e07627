use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parse(target: &str) -> Result<Endpoint, EndpointError> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    Endpoint::parse(true, path, query)
}

/// One line that says what a target was read as.
fn shown(target: &str) -> String {
    let endpoint = match parse(&target.replace("<d>", &format!("sha256:{HEX}"))) {
        Ok(endpoint) => endpoint,
        Err(error) => return format!("{} {}", error.status(), error.code()),
    };
    let text = match &endpoint.target {
        Target::Base => "base".to_owned(),
        Target::Catalog { n, last } => format!("catalog {n:?} {last:?}"),
        Target::Manifest { name, reference: Reference::Tag(tag) } => format!("tag {name} {tag}"),
        Target::Manifest { name, reference: Reference::Digest(_) } => format!("manifest {name}"),
        Target::Blob { name, .. } => format!("blob {name}"),
        Target::TagsList { name, n, last } => format!("tags {name} {n:?} {last:?}"),
        Target::Referrers { name, artifact_type, .. } => format!("ref {name} {artifact_type:?}"),
        Target::Upload { name, session, .. } => format!("upload {name} {session:?}"),
    };
    match &endpoint.ns {
        Some(ns) => format!("{text} ns={ns}"),
        None => text,
    }
}

#[test]
fn paths_are_read_from_the_right() {
    let cases = [
        ("/v2", "base"),
        ("/v2/", "base"),
        ("/v2/_catalog", "catalog None None"),
        ("/v2/_catalog?n=7&last=x/y", "catalog Some(7) Some(\"x/y\")"),
        ("/v2/alpine/manifests/latest", "tag alpine latest"),
        ("/v2/library/alpine/manifests/<d>", "manifest library/alpine"),
        ("/v2/library/alpine/blobs/<d>", "blob library/alpine"),
        ("/v2/ghcr.io/org/app/manifests/x", "tag ghcr.io/org/app x"),
        ("/v2/GHCR.io/org/app/manifests/x", "tag GHCR.io/org/app x"),
        ("/v2/proxy/ghcr.io/org/app/manifests/x", "tag proxy/ghcr.io/org/app x"),
        ("/v2/localhost:5711/x/blobs/<d>", "blob localhost:5711/x"),
        ("/v2/proxy/localhost:5711/x/blobs/<d>", "blob proxy/localhost:5711/x"),
        ("/v2/localhost%3A5711/x/blobs/<d>", "blob localhost:5711/x"),
        ("/v2/x/blobs/sha256%3a0", "400 DIGEST_INVALID"),
        ("/v2/x/tags/list", "tags x None None"),
        ("/v2/x/referrers/<d>", "ref x None"),
        // Names that hold the API's own words.
        ("/v2/a/manifests/b/manifests/c", "tag a/manifests/b c"),
        ("/v2/a/blobs/manifests/latest", "tag a/blobs latest"),
        ("/v2/manifests/manifests/manifests", "tag manifests manifests"),
        ("/v2/blobs/blobs/<d>", "blob blobs"),
        ("/v2/x/tags/manifests/list", "tag x/tags list"),
        ("/v2/x/tags/tags/list", "tags x/tags None None"),
        ("/v2/x/manifests/list", "tag x list"),
        ("/v2/x/referrers/blobs/<d>", "blob x/referrers"),
        ("/v2/x/blobs/uploads/manifests/y", "tag x/blobs/uploads y"),
        // Uploads, with and without the last slash.
        ("/v2/x/blobs/uploads/", "upload x None"),
        ("/v2/x/blobs/uploads", "upload x None"),
        ("/v2/x/y/blobs/uploads/abc-1", "upload x/y Some(\"abc-1\")"),
        ("/v2/uploads/blobs/uploads/1", "upload uploads Some(\"1\")"),
    ];
    for (target, expected) in cases {
        assert_eq!(shown(target), expected, "{target}");
    }
}

#[test]
fn malformed_targets_get_their_status_and_code() {
    let cases = [
        ("/", "404 UNSUPPORTED"),
        ("", "404 UNSUPPORTED"),
        ("/v1/_ping", "404 UNSUPPORTED"),
        ("/v22/", "404 UNSUPPORTED"),
        ("/v2x/manifests/y", "404 UNSUPPORTED"),
        ("/V2/", "404 UNSUPPORTED"),
        ("//v2/", "404 UNSUPPORTED"),
        ("*", "404 UNSUPPORTED"),
        ("/v2/x", "404 UNSUPPORTED"),
        ("/v2/x/", "404 UNSUPPORTED"),
        ("/v2/x/tags/", "404 UNSUPPORTED"),
        ("/v2/x/tags/lists", "404 UNSUPPORTED"),
        ("/v2/x/tags/list/", "404 UNSUPPORTED"),
        ("/v2/x/manifests/y/", "404 UNSUPPORTED"),
        ("/v2/_catalog/", "404 UNSUPPORTED"),
        ("/v2/x/uploads/1", "404 UNSUPPORTED"),
        ("/v2/xblobs/uploads/1", "404 UNSUPPORTED"),
        ("/v2/manifests/latest", "400 NAME_INVALID"),
        ("/v2//manifests/latest", "400 NAME_INVALID"),
        ("/v2/blobs/<d>", "400 NAME_INVALID"),
        ("/v2/tags/list", "400 NAME_INVALID"),
        ("/v2/blobs/uploads/", "400 NAME_INVALID"),
        ("/v2/a//b/manifests/x", "400 NAME_INVALID"),
        ("/v2/X/manifests/latest", "400 NAME_INVALID"),
        ("/v2/x/../y/manifests/latest", "400 NAME_INVALID"),
        ("/v2/x/%2e%2e/y/manifests/latest", "400 NAME_INVALID"),
        ("/v2/x/%252e%252e/y/manifests/latest", "400 NAME_INVALID"),
        ("/v2/x%2fy/manifests/latest", "400 NAME_INVALID"),
        ("/v2%2fx/manifests/latest", "400 NAME_INVALID"),
        ("/v2/x%00/manifests/latest", "400 NAME_INVALID"),
        ("/v2/x%ff/manifests/latest", "400 NAME_INVALID"),
        ("/v2/x%/manifests/latest", "400 NAME_INVALID"),
        ("/v2/x%4/manifests/latest", "400 NAME_INVALID"),
        ("/v2/x%+1/manifests/latest", "400 NAME_INVALID"),
        ("/v2/localhost:5711/manifests/x", "400 NAME_INVALID"),
        ("/v2/a@b.c/x/manifests/y", "400 NAME_INVALID"),
        ("/v2/http://ghcr.io/x/manifests/y", "400 NAME_INVALID"),
        ("/v2/x/blobs/", "400 DIGEST_INVALID"),
        ("/v2/x/blobs/latest", "400 DIGEST_INVALID"),
        ("/v2/x/blobs/sha256:zz", "400 DIGEST_INVALID"),
        ("/v2/x/blobs/sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "400 DIGEST_INVALID"),
        ("/v2/x/manifests/sha256:zz", "400 DIGEST_INVALID"),
        ("/v2/x/manifests/sha256:", "400 DIGEST_INVALID"),
        ("/v2/x/referrers/zz", "400 DIGEST_INVALID"),
        ("/v2/x/manifests/", "404 MANIFEST_UNKNOWN"),
        ("/v2/x/manifests/.hidden", "404 MANIFEST_UNKNOWN"),
        ("/v2/x/manifests/a%20b", "404 MANIFEST_UNKNOWN"),
        ("/v2/x/manifests/a%2525", "404 MANIFEST_UNKNOWN"),
    ];
    for (target, expected) in cases {
        assert_eq!(shown(target), expected, "{target}");
    }
    let error = Endpoint::parse(false, "/v2/x/manifests/.hidden", None).unwrap_err();
    assert_eq!((error.status(), error.code()), (400, ErrorCode::ManifestInvalid));
    let long = format!("/v2/x/manifests/{}", "a".repeat(129));
    assert_eq!(shown(&long), "404 MANIFEST_UNKNOWN");
    let long = format!("/v2/{}/manifests/x", "a".repeat(600));
    assert_eq!(shown(&long), "400 NAME_INVALID");
}

#[test]
fn ns_is_decoded_once_and_read_strictly() {
    let cases = [
        ("ns=docker.io", "base ns=docker.io"),
        ("ns=DOCKER.io", "base ns=docker.io"),
        ("ns=localhost%3A5711", "base ns=localhost:5711"),
        ("ns=localhost%3a5711&x=y", "base ns=localhost:5711"),
        ("x&&ns=ghcr.io:443", "base ns=ghcr.io"),
        ("%6e%73=ghcr.io", "base ns=ghcr.io"),
        ("ns=%64ocker.io", "base ns=docker.io"),
        ("ns=169.254.169.254", "base ns=169.254.169.254"),
        ("ns=%5B%3A%3A1%5D:5000", "base ns=[::1]:5000"),
        ("NS=docker.io", "base"),
        ("nsx=docker.io", "base"),
        ("%zz=1", "base"),
        ("x=%zz", "base"),
        ("", "base"),
        ("ns", "400 NAME_INVALID"),
        ("ns=", "400 NAME_INVALID"),
        ("ns=%20", "400 NAME_INVALID"),
        ("ns=docker.io&ns=docker.io", "400 UNSUPPORTED"),
        ("ns=docker.io&%6es=ghcr.io", "400 UNSUPPORTED"),
        ("ns=&ns=", "400 UNSUPPORTED"),
        ("ns=docker%252eio", "400 NAME_INVALID"),
        ("ns=%252e%252e", "400 NAME_INVALID"),
        ("ns=%2e%2e", "400 NAME_INVALID"),
        ("ns=%zz", "400 NAME_INVALID"),
        ("ns=%ff", "400 NAME_INVALID"),
        ("ns=docker.io%00", "400 NAME_INVALID"),
        ("ns=docker.io%0d%0aX:1", "400 NAME_INVALID"),
        ("ns=a@b", "400 NAME_INVALID"),
        ("ns=a%40b", "400 NAME_INVALID"),
        ("ns=https://169.254.169.254", "400 NAME_INVALID"),
        ("ns=docker.io/x", "400 NAME_INVALID"),
        ("ns=docker.io%2Fx", "400 NAME_INVALID"),
        ("ns=docker.io.", "400 NAME_INVALID"),
        ("ns=::1", "400 NAME_INVALID"),
        ("ns=a+b", "400 NAME_INVALID"),
        ("ns=a,b", "400 NAME_INVALID"),
        ("ns=a;ns=b", "400 NAME_INVALID"),
        ("ns==docker.io", "400 NAME_INVALID"),
    ];
    for (query, expected) in cases {
        assert_eq!(shown(&format!("/v2/?{query}")), expected, "{query}");
    }
    assert_eq!(shown(&format!("/v2/?ns={}", "a".repeat(300))), "400 NAME_INVALID");
    // The namespace is reported first: it decides where the path would be looked for.
    assert!(matches!(parse("/v2/X/manifests/x?ns="), Err(EndpointError::Ns(_))));
}

#[test]
fn ns_is_echoed_as_received() {
    let cases = [
        ("/v2/?ns=Docker.IO:443", Some("Docker.IO:443")),
        ("/v2/?ns=localhost%3A5711", Some("localhost:5711")),
        ("/v2/?ns=docker.io", Some("docker.io")),
        ("/v2/", None),
    ];
    for (target, expected) in cases {
        assert_eq!(parse(target).unwrap().ns_received().as_deref(), expected, "{target}");
    }
}

#[test]
fn list_parameters_are_bounded_and_relayed_without_ns() {
    let tags = |query: &str| shown(&format!("/v2/x/tags/list?{query}"));
    assert_eq!(tags("n=0"), "tags x Some(0) None");
    assert_eq!(tags("n=1000"), "tags x Some(1000) None");
    assert_eq!(tags("n=1001"), "tags x Some(1000) None");
    assert_eq!(tags("n=9223372036854775808"), "tags x Some(1000) None");
    assert_eq!(tags(&format!("n={}", "9".repeat(200))), "tags x Some(1000) None");
    for bad in ["n=", "n=-1", "n=+1", "n=1x", "n=%20", "n=1&n=2", "last=a&last=b", "last=%0a"] {
        assert_eq!(tags(bad), "400 UNSUPPORTED", "{bad}");
    }
    assert_eq!(tags(&format!("last={}", "a".repeat(256))), "400 UNSUPPORTED");
    let relayed = [
        ("/v2/x/tags/list?ns=docker.io&n=5000&last=v1%2B+", Some("n=1000&last=v1%2B%2B")),
        ("/v2/x/tags/list?next_page=a%2Fb&n=2&%6Es=a.b&b=", Some("n=2&b=&next_page=a%2Fb")),
        ("/v2/x/tags/list?last=", Some("last=")),
        ("/v2/x/tags/list?ns=docker.io", None),
        ("/v2/x/referrers/<d>?artifactType=a/b+json&ns=a.b", Some("artifactType=a%2Fb%2Bjson")),
        ("/v2/x/referrers/<d>?artifactType=a%2Fb%2Bjson", Some("artifactType=a%2Fb%2Bjson")),
        ("/v2/x/referrers/<d>?artifactType=&n=1&x=y", Some("n=1&x=y")),
        ("/v2/x/referrers/<d>?last=b&artifactType=a", Some("artifactType=a&last=b")),
        ("/v2/x/manifests/y?n=1&ns=a.b", None),
    ];
    for (target, expected) in relayed {
        let endpoint = parse(&target.replace("<d>", &format!("sha256:{HEX}"))).unwrap();
        assert_eq!(endpoint.query_without_ns.as_deref(), expected, "{target}");
    }
    let many: String = (0..9).map(|n| format!("&p{n}=1")).collect();
    let long = "a".repeat(1025);
    for bad in [many.as_str(), &format!("x={long}"), "x=%00", "%20=1", "a%26b=1"] {
        assert_eq!(tags(bad), "400 UNSUPPORTED", "{bad}");
        assert!(parse(&format!("/v2/x/manifests/y?{bad}")).is_ok(), "it means nothing there");
    }
}

#[test]
fn the_next_page_keeps_the_filter_and_the_namespace() {
    for (target, next, expected) in [
        ("/v2/x/tags/list?n=2&ns=a.b:5000", "n=2&last=c", "n=2&last=c&ns=a.b%3A5000"),
        ("/v2/x/tags/list", "next_page=c%2F", "next_page=c%2F"),
        (
            "/v2/x/referrers/<d>?artifactType=a%2Fb&ns=a.b",
            "last=c",
            "last=c&artifactType=a%2Fb&ns=a.b",
        ),
        ("/v2/x/referrers/<d>?artifactType=a", "artifactType=a&last=c", "artifactType=a&last=c"),
    ] {
        let endpoint = parse(&target.replace("<d>", &format!("sha256:{HEX}"))).unwrap();
        assert_eq!(endpoint.next_page(next), expected, "{target}");
    }
}
