use bytes::Bytes;

use super::answer::{Answer, Body, Facts};
use super::content;
use super::refusal::{Refusal, warning};
use super::router::registry_header;
use crate::http::{Parsed, RequestHead};
use crate::oci::{Algorithm, Digest};
use crate::registry::{Content, Pull, PullError};
use crate::telemetry::{CacheResult, RouteKind};

fn head(method: &str, headers: &str) -> RequestHead {
    let text = format!("{method} /v2/ HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    match RequestHead::parse(text.as_bytes()).unwrap() {
        Parsed::Complete { head, .. } => head,
        Parsed::Partial => panic!("partial: {text}"),
    }
}

fn pull(cache: CacheResult) -> Pull {
    let bytes = Bytes::from((0..=255).cycle().take(2048).collect::<Vec<u8>>());
    Pull {
        digest: Digest::of(Algorithm::Sha256, &bytes),
        media_type: Some("application/vnd.oci.image.manifest.v1+json".into()),
        size: 2048,
        content: Content::Memory(bytes),
        cache,
        age: 7,
        overdue: 3,
        warning: None,
    }
}

fn answer(method: &str, headers: &str) -> Answer {
    content::answer(&head(method, headers), pull(CacheResult::Hit), Facts::of(RouteKind::Blob))
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    let mut values = answer.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    let value = values.next().map(|(_, value)| value.to_string());
    assert!(values.next().is_none(), "{name} twice");
    value
}

#[test]
fn ranges_give_exactly_what_was_asked_for() {
    for (headers, status, range, first, length) in [
        ("", 200, None, 0, 2048),
        ("Range: bytes=0-\r\n", 206, Some("bytes 0-2047/2048"), 0, 2048),
        ("Range: bytes=500-1499\r\n", 206, Some("bytes 500-1499/2048"), 500, 1000),
        ("Range: bytes=500-\r\n", 206, Some("bytes 500-2047/2048"), 500, 1548),
        ("Range: bytes=-500\r\n", 206, Some("bytes 1548-2047/2048"), 1548, 500),
        ("Range: bytes=2000-5000\r\n", 206, Some("bytes 2000-2047/2048"), 2000, 48),
        ("Range: bytes=0-1,5-6\r\n", 200, None, 0, 2048),
        ("Range: lines=1-2\r\n", 200, None, 0, 2048),
        ("Range: bytes=1-2\r\nIf-Range: \"sha256:other\"\r\n", 200, None, 0, 2048),
    ] {
        let answer = answer("GET", headers);
        assert_eq!(answer.status, status, "{headers}");
        assert_eq!(header(&answer, "Content-Range").as_deref(), range, "{headers}");
        assert_eq!(answer.length, Some(length as u64), "{headers}");
        let Body::Memory(bytes) = &answer.body else { panic!("{headers}: no body") };
        let Content::Memory(whole) = pull(CacheResult::Hit).content else { unreachable!() };
        assert_eq!(bytes[..], whole[first..first + length], "{headers}");
    }
    for headers in ["Range: bytes=2048-\r\n", "Range: bytes=5000-10000\r\n"] {
        let answer = answer("GET", headers);
        assert_eq!(answer.status, 416, "{headers}");
        assert_eq!(header(&answer, "Content-Range").as_deref(), Some("bytes */2048"));
        let Body::Memory(body) = &answer.body else { panic!("no body") };
        assert_eq!(answer.length, Some(body.len() as u64), "the body's length, not the blob's");
    }
    assert_eq!(answer("HEAD", "Range: bytes=1-2\r\n").status, 200, "a range is for GET only");
}

#[test]
fn validators_are_on_every_answer_and_a_match_needs_no_body() {
    let known = pull(CacheResult::Hit).digest;
    let digest = known.to_string();
    let whole = answer("GET", "");
    assert_eq!(whole.content, Some(known));
    assert_eq!(header(&whole, "Accept-Ranges").as_deref(), Some("bytes"));
    assert_eq!(header(&whole, "Age").as_deref(), Some("7"));
    assert_eq!(
        header(&whole, "Content-Type").as_deref(),
        Some("application/vnd.oci.image.manifest.v1+json")
    );
    for condition in [format!("\"{digest}\""), digest.clone(), format!("W/\"x\", \"{digest}\"")] {
        let answer = answer("GET", &format!("If-None-Match: {condition}\r\n"));
        assert_eq!(answer.status, 304, "{condition}");
        assert_eq!(answer.length, None);
        assert!(matches!(answer.body, Body::Empty));
        assert_eq!(answer.content, Some(known));
    }
    assert_eq!(answer("GET", "If-None-Match: \"sha256:other\"\r\n").status, 200);
}

#[test]
fn the_cache_tells_its_part() {
    for (cache, expected) in [
        (CacheResult::Hit, "ringport; hit"),
        (CacheResult::Miss, "ringport; fwd=miss; stored"),
        (CacheResult::Stale, "ringport; fwd=stale"),
        (CacheResult::Updating, "ringport; hit; ttl=-3; detail=updating"),
        (CacheResult::Revalidated, "ringport; fwd=stale; detail=revalidated"),
    ] {
        let answer = content::answer(&head("GET", ""), pull(cache), Facts::of(RouteKind::Blob));
        assert_eq!(header(&answer, "Cache-Status").as_deref(), Some(expected));
    }
    let stale = Pull { warning: Some("old \"tag\"\r\nX: y".into()), ..pull(CacheResult::Stale) };
    let answer = content::answer(&head("GET", ""), stale, Facts::of(RouteKind::Manifest));
    let text = header(&answer, "Warning").unwrap();
    assert!(text.starts_with("299 - \"old 'tag'''X: y\" \""), "{text}");
    assert!(warning(&"x".repeat(9000)).len() < 1024);
}

fn remembered(error: PullError) -> PullError {
    PullError::Remembered { error: error.into(), age: 4 }
}

#[test]
fn a_remembered_404_is_the_first_one_and_says_that_it_is_remembered() {
    let error = PullError::ManifestUnknown("docker.io/x does not know manifest v1".into());
    let facts = || Facts::of(RouteKind::Manifest);
    let first = Refusal::from(error.clone()).answer(facts());
    let again = Refusal::from(remembered(error)).answer(facts());
    let text = |answer: &Answer| match &answer.body {
        Body::Memory(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!((first.status, text(&first)), (again.status, text(&again)));
    assert_eq!(header(&first, "Cache-Status").as_deref(), None);
    assert_eq!(header(&again, "Cache-Status").as_deref(), Some("ringport; hit; detail=negative"));
    assert_eq!(header(&again, "Age").as_deref(), Some("4"));
    assert_eq!(again.facts.cache, CacheResult::Hit);
}

#[test]
fn an_upstreams_failure_is_never_not_found() {
    for (error, status, retry_after) in [
        (PullError::BlobUnknown(String::new()), 404, None),
        (PullError::ManifestUnknown(String::new()), 404, None),
        (PullError::NameUnknown(String::new()), 404, None),
        (remembered(PullError::BlobUnknown(String::new())), 404, None),
        (PullError::Denied(String::new()), 403, None),
        (PullError::RateLimited { message: String::new(), retry_after: 17 }, 429, Some("17")),
        (PullError::UpstreamTimeout(String::new()), 504, Some("5")),
        (PullError::UpstreamFailed(String::new()), 502, Some("5")),
        (PullError::Busy(String::new()), 503, Some("5")),
        (PullError::Internal(String::new()), 500, None),
    ] {
        let answer = Refusal::from(error).answer(Facts::of(RouteKind::Blob));
        assert_eq!(answer.status, status);
        assert_eq!(header(&answer, "Retry-After").as_deref(), retry_after, "{status}");
        let Body::Memory(body) = &answer.body else { panic!("no body") };
        let document: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert!(document["errors"][0]["code"].is_string());
    }
}

#[test]
fn the_registry_header_may_have_a_scheme_and_nothing_else() {
    for (headers, expected) in [
        ("", Ok(None)),
        ("X-Dragonfly-Registry: ghcr.io\r\n", Ok(Some("ghcr.io"))),
        ("X-Dragonfly-Registry: https://GHCR.io\r\n", Ok(Some("ghcr.io"))),
        ("X-Dragonfly-Registry: HTTPS://ghcr.io:443/\r\n", Ok(Some("ghcr.io"))),
        ("X-Dragonfly-Registry: http://localhost:5000\r\n", Ok(Some("localhost:5000"))),
        ("X-Dragonfly-Registry: https://ghcr.io/path\r\n", Err(400)),
        ("X-Dragonfly-Registry: https://a@ghcr.io\r\n", Err(400)),
        ("X-Dragonfly-Registry: ftp://ghcr.io\r\n", Err(400)),
        ("X-Dragonfly-Registry: \r\n", Err(400)),
        ("X-Dragonfly-Registry: a.io\r\nX-Dragonfly-Registry: b.io\r\n", Err(400)),
    ] {
        let found = registry_header(&head("GET", headers));
        let found = found.map(|n| n.map(|n| n.to_string())).map_err(|refusal| refusal.status);
        let expected = expected.map(|n: Option<&str>| n.map(str::to_owned));
        assert_eq!(found, expected, "{headers}");
    }
}
