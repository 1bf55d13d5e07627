//! Remote tiers: what was signed is what is sent, to declared origins and permitted addresses only.

use std::io;

use bytes::Bytes;
use futures_util::FutureExt;

use super::origin::{Answer, Origin, ok};
use super::world::{CANARY, World, only};
use crate::upstream::{Client, TierReply, TierRequest, Upload, UpstreamError};

fn world(tiers: &str) -> std::sync::Arc<World> {
    World::with_names(&format!("[storage]\n{tiers}"), || {
        only(&[("tier.test", &["127.0.0.1"]), ("public.test", &["169.254.169.254"])])
    })
}

async fn read(client: &Client, url: &str) -> Result<TierReply, UpstreamError> {
    let url = format!("{url}?X-Signature={CANARY}%2F&a");
    let headers = [("authorization".to_owned(), format!("AWS4 {CANARY}"))];
    let request = TierRequest { method: "GET", url: &url, headers: &headers };
    client.read_from_tier(&request).await
}

#[track_caller]
fn failure<T>(result: Result<T, UpstreamError>) -> UpstreamError {
    let error = result.err().expect("a failure");
    assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
    error
}

#[test]
fn only_declared_origins_are_asked_and_only_at_permitted_addresses() {
    let origin = Origin::start(|_| ok(b"x"));
    let port = origin.address.port();
    let named = format!("\"https://tier.test:{port}\", \"https://public.test\"");
    let tiers = format!("remote_tiers = [\"http://127.0.0.1:{port}\", {named}]");
    let tried = origin.clone();
    world(&tiers).run(move |client| {
        let origin = tried.clone();
        async move {
            let others =
                [format!("http://127.0.0.2:{port}/k"), format!("https://127.0.0.1:{port}/k")];
            for other in others {
                let error = failure(read(&client, &other).await);
                assert!(matches!(error, UpstreamError::UndeclaredTier), "{error}");
            }
            for name in [format!("https://tier.test:{port}/k"), "https://public.test/k".into()] {
                let error = failure(read(&client, &name).await);
                assert!(matches!(error, UpstreamError::Blocked { .. }), "{error}");
                assert!(error.to_string().contains("storage.remote_allow_private"), "{error}");
                assert!(error.to_string().starts_with("remote tier at https://"), "{error}");
            }
            assert_eq!(origin.connections(), 0);
            // The operator wrote this address.
            let reply = read(&client, &format!("http://127.0.0.1:{port}//k%2e/../")).await;
            let Ok(TierReply::Content(mut content)) = reply else { panic!("no content") };
            assert_eq!(content.body.collect(10).await.expect("a body"), "x");
        }
    });
    let seen = origin.seen().pop().expect("a request");
    assert_eq!(seen.line, format!("GET //k%2e/../?X-Signature={CANARY}%2F&a HTTP/1.1"));
    assert_eq!(seen.header("authorization"), Some(format!("AWS4 {CANARY}").as_str()));
    assert_eq!(seen.header("host"), Some(format!("127.0.0.1:{port}").as_str()));
    let listed = format!("{tiers}\nremote_allow_private = [\"127.0.0.0/8\"]");
    world(&listed).run(move |client| async move {
        // Dialled now; it speaks no TLS.
        let error = failure(read(&client, &format!("https://tier.test:{port}/k")).await);
        assert!(!matches!(error, UpstreamError::Blocked { .. }), "{error}");
        let error = failure(read(&client, "https://public.test/k").await);
        assert!(matches!(error, UpstreamError::Blocked { .. }), "{error}");
    });
}

#[test]
fn what_a_tier_sends_counts_for_no_upstream_and_leads_nowhere() {
    let answer = |text: &str| Answer::Send(text.replace('\n', "\r\n").into_bytes());
    let origin = Origin::start(move |seen| match seen.path() {
        path if path.starts_with("/moved") => {
            answer("HTTP/1.1 307 T\nLocation: /there\nContent-Length: 0\n\n")
        }
        path if path.starts_with("/zipped") => {
            answer("HTTP/1.1 200 O\nContent-Encoding: gzip\nContent-Length: 1\n\nx")
        }
        _ => ok(b"xyz"),
    });
    let base = format!("http://{}", origin.address);
    let world = world(&format!("remote_tiers = [\"{base}\"]"));
    world.run(move |client| {
        let base = base.clone();
        async move {
            let reply = read(&client, &format!("{base}/moved")).await;
            assert!(matches!(reply, Ok(TierReply::Status(307))));
            let error = failure(read(&client, &format!("{base}/zipped")).await);
            assert!(matches!(error, UpstreamError::Protocol { .. }), "{error}");
            let reply = read(&client, &format!("{base}/k")).await;
            let Ok(TierReply::Content(mut content)) = reply else { panic!("no content") };
            assert_eq!(content.body.collect(10).await.expect("a body"), "xyz");
        }
    });
    assert!(origin.seen().iter().all(|seen| !seen.path().contains("there")));
    assert!(world.counts.requests.lock().expect("whole").is_empty());
    assert_eq!(world.counts.bytes.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn an_upload_that_cannot_be_read_is_no_failure_of_the_tier() {
    let origin = Origin::start(|_| ok(b""));
    let url = format!("http://{}/k", origin.address);
    world(&format!("remote_tiers = [\"http://{}\"]", origin.address)).run(move |client| {
        let url = url.clone();
        async move {
            let request = TierRequest { method: "PUT", url: &url, headers: &[] };
            let broken = Upload::new(10, |_, _| {
                async { Err(io::Error::other("the disk is gone")) }.boxed_local()
            });
            let error = failure(client.write_to_tier(&request, &broken).await);
            assert!(matches!(error, UpstreamError::Internal { .. }), "{error}");
            assert!(error.to_string().contains("the disk is gone"), "{error}");
            // Shorter than it was.
            let short = Upload::new(10, |offset, _| {
                let rest = if offset == 0 { &b"12345"[..] } else { &b""[..] };
                async move { Ok(Bytes::from_static(rest)) }.boxed_local()
            });
            let error = failure(client.write_to_tier(&request, &short).await);
            assert!(error.to_string().contains("expected 10 stored bytes, found 5"), "{error}");
        }
    });
}
