//! Names: resolved off the worker, cached, and checked before anything is dialled.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::origin::{Origin, ok};
use super::world::{World, failure, fetch, get, on_workers, only};
use crate::upstream::dns::LookUp;
use crate::upstream::{Phase, UpstreamError};

fn world(origin: &Origin, look_up: fn() -> Box<LookUp>) -> std::sync::Arc<World> {
    world_with(origin, "", look_up)
}

fn world_with(origin: &Origin, keys: &str, look_up: fn() -> Box<LookUp>) -> std::sync::Arc<World> {
    let port = origin.address.port();
    let keys = format!("endpoints = [\"http://name.test:{port}\"]\n{keys}");
    World::with_names(&keys, look_up)
}

#[test]
fn the_address_decides_not_the_name() {
    let origin = Origin::start(|_| ok(b"x"));
    let mixed = || only(&[("name.test", &["10.0.0.1", "127.0.0.2", "::1", "127.0.0.1"])]);
    world(&origin, mixed).run(move |client| async move {
        assert_eq!(fetch(&client, "/v2/team/app/blobs/x").await.expect("a body"), "x");
    });
    let host = origin.seen().pop().and_then(|s| s.header("host").map(str::to_owned));
    assert_eq!(host, Some(format!("name.test:{}", origin.address.port())));

    let forbidden: [fn() -> Box<LookUp>; 4] = [
        || only(&[("name.test", &["127.0.0.2"])]),
        || only(&[("name.test", &["169.254.169.254", "fd00:ec2::254"])]),
        || only(&[("name.test", &["::ffff:127.0.0.1"])]),
        || only(&[("name.test", &["64:ff9b::7f00:1"])]),
    ];
    for look_up in forbidden {
        world(&origin, look_up).run(move |client| async move {
            let error = failure(get(&client, "/v2/team/app/blobs/x").await);
            assert!(matches!(error, UpstreamError::Blocked { .. }), "{error}");
            assert!(error.to_string().contains("allow_private"), "{error}");
        });
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn names_that_do_not_resolve_are_failures() {
    let origin = Origin::start(|_| ok(b"x"));
    let cases: [fn() -> Box<LookUp>; 3] = [
        || only(&[]),
        || only(&[("name.test", &[])]),
        || Box::new(|_| panic!("a broken resolver")),
    ];
    for look_up in cases {
        world(&origin, look_up).run(move |client| async move {
            let error = failure(get(&client, "/v2/team/app/blobs/x").await);
            assert!(matches!(error, UpstreamError::Unreachable { .. }), "{error}");
            assert!(error.to_string().contains("name.test"), "{error}");
        });
    }
    let slow: fn() -> Box<LookUp> = || {
        Box::new(|_| {
            std::thread::sleep(Duration::from_secs(2));
            Ok(Vec::new())
        })
    };
    world_with(&origin, "connect_timeout = \"300ms\"", slow).run(move |client| async move {
        let error = failure(get(&client, "/v2/team/app/blobs/x").await);
        assert!(matches!(error, UpstreamError::Timeout { phase: Phase::Resolve, .. }), "{error}");
    });
}

#[test]
fn a_name_is_looked_up_once_for_all_workers() {
    static LOOK_UPS: AtomicUsize = AtomicUsize::new(0);
    let origin = Origin::start(|_| ok(b"x"));
    let counted: fn() -> Box<LookUp> = || {
        Box::new(|_| {
            LOOK_UPS.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(50));
            Ok(vec!["127.0.0.1".parse().expect("an address"); 10_000])
        })
    };
    let world = world(&origin, counted);
    on_workers(2, move |context| {
        let client = world.client(&context);
        async move {
            let asking = (0..10).map(|_| fetch(&client, "/v2/team/app/blobs/x"));
            for body in futures_util::future::join_all(asking).await {
                assert_eq!(body.expect("a body"), "x");
            }
        }
    });
    assert_eq!(LOOK_UPS.load(Ordering::SeqCst), 1);
    assert!(origin.connections() >= 2);
}
