//! Uploads of blobs into hosted repositories, request by request: what each is answered, who may go
//! on with a session, and what is found afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use base64::Engine;
use support::blobs::{OPEN, chunked, expect, expect_blob, expect_no_blob, expect_no_uploads};
use support::blobs::{patch, pushed, send, uploads};
use support::http::{Answer, Connection};
use support::images::{random_bytes, sha256, sha512};
use support::lying::LyingUpstream;
use support::rig::{NS, REPOSITORY, declared};
use support::server::{Server, Setup};
use support::upload::{Upload, path_of};
use support::{secs, wait_until};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Content that the index holds itself has at most so many bytes.
const SMALL: usize = 32 * KIB;

fn start(what: &str) -> Server {
    Setup::new(what).more(OPEN).start()
}

#[test]
fn blobs_of_every_size_by_every_way() {
    let server = start("uploads-sizes");
    let sizes =
        [0, 1, 2, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, SMALL - 1, SMALL, SMALL + 1, 5 * MIB];
    let hashes: [fn(&[u8]) -> String; 2] = [sha256, sha512];
    for (n, size) in sizes.into_iter().enumerate() {
        for (m, hash) in hashes.into_iter().enumerate() {
            let repository = format!("team/{n}-{m}");
            let make = |way: &str| {
                let bytes = random_bytes(&format!("{way} {n} {m}"), size);
                let digest = hash(&bytes);
                (bytes, digest)
            };
            let done = |answer: Answer, (bytes, digest): (Vec<u8>, String)| {
                assert_eq!(answer.status(), 201, "{size}: {}", answer.text());
                assert_eq!(answer.header("docker-content-digest"), digest);
                assert_eq!(answer.header("content-length"), "0");
                assert_eq!(
                    path_of(answer.header("location")),
                    format!("/v2/{repository}/blobs/{digest}")
                );
                expect_blob(&server, &repository, &digest, &bytes);
            };

            let one = make("one request");
            let target = uploads(&repository, &format!("?digest={}", one.1.replace(':', "%3A")));
            done(send(&server, "POST", &target, &one.0), one);

            let one = make("put");
            let mut upload = Upload::begin(server.addr, &repository);
            done(upload.put(&one.1, &one.0), one);

            let one = make("stream");
            let mut upload = Upload::begin(server.addr, &repository);
            let (half, rest) = one.0.split_at(size / 2);
            let pieces: Vec<&[u8]> =
                [half, rest].into_iter().filter(|piece| !piece.is_empty()).collect();
            let answer = chunked(&server, "PATCH", &upload.location, &[], &pieces);
            assert_eq!(answer.status(), 202, "{}", answer.text());
            assert_eq!(answer.header("range"), format!("0-{}", size.saturating_sub(1)));
            done(upload.put(&one.1, b""), one);

            let one = make("pieces");
            let mut upload = Upload::begin(server.addr, &repository);
            let (half, rest) = one.0.split_at(size / 2);
            if !half.is_empty() {
                assert_eq!(upload.patch(0, half).status(), 202);
            }
            done(upload.put(&one.1, rest), one);

            // Once more what is there: as if it were new.
            let one = make("pieces");
            let mut upload = Upload::begin(server.addr, &repository);
            done(upload.put(&one.1, &one.0), one);
        }
    }
    expect_no_uploads(&server);
    server.assert_store_is_right();
    assert_eq!(server.metric("ringport_uploads_total", &["result=\"completed\""]), 100.0);
}

#[test]
fn every_status_of_a_session() {
    let server = start("uploads-statuses");
    let begun = send(&server, "POST", &uploads("team/app", ""), b"");
    assert_eq!(begun.status(), 202);
    assert_eq!((begun.header("range"), begun.header("content-length")), ("0-0", "0"));
    let location = begun.header("location").to_owned();
    let id = begun.header("docker-upload-uuid").to_owned();
    assert_eq!(location, uploads("team/app", &id));
    let status = server.get(&location);
    assert_eq!((status.status(), status.header("range")), (204, "0-0"));
    assert_eq!(
        (status.header("location"), status.header("docker-upload-uuid")),
        (&*location, &*id)
    );

    // What a piece says of itself must be so; nothing has changed after each.
    expect(&patch(&server, &location, "0-3", b"abc"), 400, "SIZE_INVALID");
    expect(&patch(&server, &location, "0-1", b"abc"), 400, "SIZE_INVALID");
    expect(&patch(&server, &location, "3-1", b"abc"), 416, "BLOB_UPLOAD_INVALID");
    for odd in ["0", "-", "0-", "-3", "a-b", "+0-2", "0-2-4", "lines 0-2", "0-99999999999999999999"]
    {
        expect(&patch(&server, &location, odd, b"abc"), 400, "BLOB_UPLOAD_INVALID");
    }
    let range = [("Content-Range", "0-3")];
    expect(&chunked(&server, "PATCH", &location, &range, &[b"abc"]), 400, "SIZE_INVALID");
    expect(&chunked(&server, "PATCH", &location, &range, &[b"abc", b"de"]), 400, "SIZE_INVALID");
    assert_eq!(server.get(&location).header("range"), "0-0");

    assert_eq!(patch(&server, &location, "bytes 0-2/*", b"abc").header("range"), "0-2");
    for (range, body) in [("0-2", b"abc"), ("4-6", b"efg"), ("2-4", b"cde")] {
        let refused = patch(&server, &location, range, body);
        expect(&refused, 416, "BLOB_UPLOAD_INVALID");
        assert_eq!((refused.header("range"), refused.header("location")), ("0-2", &*location));
    }
    let digest = sha256(b"abcdef");
    let put = format!("{location}?digest={digest}");
    let wrong = [("Content-Range", "4-6")];
    expect(&chunked(&server, "PUT", &put, &wrong, &[b"def"]), 416, "BLOB_UPLOAD_INVALID");
    expect(&send(&server, "PUT", &location, b"def"), 400, "DIGEST_INVALID");
    for odd in ["sha256:abc", "md5:900150983cd24fb0d6963f7d28e17f72", "abc", ""] {
        let target = format!("{location}?digest={odd}");
        expect(&send(&server, "PUT", &target, b"def"), 400, "DIGEST_INVALID");
    }
    let twice = format!("{put}&digest={digest}");
    expect(&send(&server, "PUT", &twice, b"def"), 400, "UNSUPPORTED");
    // The status of a session is asked with whatever stands in its address.
    assert_eq!(server.get(&format!("{put}&_state=x")).header("range"), "0-2");
    let right = [("Content-Range", "3-5")];
    assert_eq!(chunked(&server, "PUT", &put, &right, &[b"d", b"ef"]).status(), 201);
    expect_blob(&server, "team/app", &digest, b"abcdef");
    expect(&server.get(&location), 404, "BLOB_UPLOAD_UNKNOWN");

    // Wrong content ends the session.
    let mut upload = Upload::begin(server.addr, "team/app");
    expect(&upload.put(&sha256(b"other"), b"content"), 400, "DIGEST_INVALID");
    expect(&upload.status().unwrap_err(), 404, "BLOB_UPLOAD_UNKNOWN");
    let target = uploads("team/app", &format!("?digest={}", sha256(b"other")));
    expect(&send(&server, "POST", &target, b"content"), 400, "DIGEST_INVALID");
    // Whoever names the content and sends nothing yet goes on with PUT.
    assert_eq!(send(&server, "POST", &target, b"").status(), 202);
    for id in ["", "0", "../../x", "%2e%2e", &"f".repeat(32), &"F".repeat(32), &"0".repeat(3000)] {
        let target = uploads("team/app", id);
        for method in ["GET", "PATCH", "PUT", "DELETE"] {
            let target = format!("{target}?digest={digest}");
            let answer = Connection::open(server.addr).exchange(method, &target, &[]);
            assert!(matches!(answer.status(), 400 | 404 | 405), "{method}: {:?}", answer.head);
        }
    }
    let algorithm = |name: &str| uploads("team/app", &format!("?digest-algorithm={name}"));
    assert_eq!(send(&server, "POST", &algorithm("sha512"), b"").status(), 202);
    expect(&send(&server, "POST", &algorithm("md5"), b""), 400, "DIGEST_INVALID");
    expect(&send(&server, "POST", &location, b""), 405, "UNSUPPORTED");

    let upload = Upload::begin(server.addr, "team/app");
    assert_eq!(upload.cancel().status(), 204);
    expect(&upload.cancel(), 404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(server.metric("ringport_uploads_total", &["result=\"cancelled\""]), 1.0);
    assert_eq!(server.metric("ringport_uploads_total", &["result=\"refused\""]), 2.0);
    assert_eq!(server.metric("ringport_task_panics_total", &[]), 0.0);
}

#[test]
fn two_clients_on_one_session() {
    let server = start("uploads-two");
    let bytes = random_bytes("two", MIB);
    let digest = sha256(&bytes);
    let mut upload = Upload::begin(server.addr, "team/app");
    let mut first = upload.patch_part(0, &bytes, 1000);
    wait_until("bytes of the first", secs(10), || upload.status().ok() == Some(1000));
    // The second changes nothing, whatever it sends and says.
    let second = upload.location.clone();
    let busy = [
        patch(&server, &second, "1000-1002", b"abc"),
        chunked(&server, "PATCH", &second, &[], &[b"abc"]),
        send(&server, "PUT", &format!("{second}?digest={digest}"), b""),
        Connection::open(server.addr).exchange("DELETE", &second, &[]),
    ];
    for answer in busy {
        expect(&answer, 409, "BLOB_UPLOAD_INVALID");
        assert_eq!(answer.header("retry-after"), "1");
    }
    first.send(&bytes[1000..]);
    assert_eq!(first.read_answer("PATCH").unwrap().status(), 202);
    assert_eq!(upload.put(&digest, b"").status(), 201);
    expect_blob(&server, "team/app", &digest, &bytes);

    // All at once: one of them stores it, and what is stored is right.
    let upload = Upload::begin(server.addr, "team/app");
    let bytes = random_bytes("at once", 3 * MIB);
    let target = format!("{}?digest={}", upload.location, sha256(&bytes));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let one = || send(&server, "PUT", &target, &bytes).status();
        let all: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 404, 409].contains(status)), "{statuses:?}");
    expect_blob(&server, "team/app", &sha256(&bytes), &bytes);
    server.assert_store_is_right();
}

/// The same content by many at once, in many repositories: kept once, found everywhere.
#[test]
fn one_content_by_many() {
    let server = start("uploads-same");
    let bytes = random_bytes("same", 2 * MIB);
    std::thread::scope(|scope| {
        for n in 0..16 {
            let (server, bytes) = (&server, &bytes);
            scope.spawn(move || pushed(server, &format!("team/{}", n % 8), bytes));
        }
    });
    let digest = sha256(&bytes);
    for n in 0..8 {
        expect_blob(&server, &format!("team/{n}"), &digest, &bytes);
    }
    assert_eq!(server.blobs().len(), 1);
    expect_no_uploads(&server);
}

#[test]
fn a_session_is_seen_by_its_user_in_its_repository() {
    let setup = Setup::new("uploads-users");
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
    let users = format!("alice:{}\nbob:{}\n", hash("a"), hash("b"));
    let users = setup.scratch().secret("htpasswd", users);
    let auth = format!("[auth]\nhtpasswd_file = {users:?}\n");
    let server = setup.more(&auth).start();
    let ask = |who: &str, method: &str, target: &str| {
        let login = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(who));
        let headers = [("Authorization", login.as_str()), ("Content-Length", "0")];
        Connection::open(server.addr).exchange(method, target, &headers)
    };
    let begun = ask("alice:a", "POST", &uploads("team/app", ""));
    assert_eq!(begun.status(), 202);
    let location = begun.header("location").to_owned();
    let unknown = ask("bob:b", "GET", &uploads("team/app", &"0".repeat(32)));
    let target = format!("{location}?digest={}", sha256(b""));
    for method in ["GET", "PATCH", "PUT", "DELETE"] {
        let others = ask("bob:b", method, &target);
        expect(&others, 404, "BLOB_UPLOAD_UNKNOWN");
        assert_eq!(others.text().len(), unknown.text().len(), "it tells nothing more");
        let elsewhere = target.replace("team/app", "team/other");
        expect(&ask("alice:a", method, &elsewhere), 404, "BLOB_UPLOAD_UNKNOWN");
        let nobody = Connection::open(server.addr).exchange(method, &target, &[]);
        assert_eq!(nobody.status(), 401, "{method}");
    }
    assert_eq!(ask("alice:a", "GET", &location).status(), 204);
    assert_eq!(ask("alice:a", "PUT", &target).status(), 201);
}

#[test]
fn blobs_are_mounted_and_deleted() {
    let more = "[[hosted]]\nrepositories = [\"secret/*\"]\npull = []\npush = [\"anonymous\"]\n\
        [[hosted]]\nrepositories = [\"strict/*\"]\npush = [\"anonymous\"]\n";
    let mut server = Setup::new("uploads-mount").more(more).more(OPEN).start();
    let (ours, secret) = (random_bytes("ours", 100 * KIB), random_bytes("secret", 100));
    let (ours_at, secret_at) =
        (pushed(&server, "team/a", &ours), pushed(&server, "secret/a", &secret));
    let mount = |server: &Server, to: &str, digest: &str, from: &str| {
        let answer = send(server, "POST", &uploads(to, &format!("?mount={digest}{from}")), b"");
        assert!(!answer.header("location").is_empty());
        answer.status()
    };
    assert_eq!(mount(&server, "team/b", &ours_at, "&from=team%2Fa"), 201);
    expect_blob(&server, "team/b", &ours_at, &ours);
    // From where it is not, from where nobody may read, by who names no place: sent instead.
    assert_eq!(mount(&server, "team/c", &ours_at, "&from=team/none"), 202);
    assert_eq!(mount(&server, "team/c", &sha256(b"none"), "&from=team/a"), 202);
    assert_eq!(mount(&server, "team/c", &secret_at, "&from=secret/a"), 202);
    assert_eq!(mount(&server, "team/c", &secret_at, ""), 202, "it is nowhere that may be read");
    assert_eq!(mount(&server, "strict/c", &ours_at, ""), 202, "its rule wants a source");
    for digest in [&ours_at, &secret_at] {
        expect_no_blob(&server, "team/c", digest);
    }
    assert_eq!(mount(&server, "team/c", &ours_at, ""), 201, "the rule lets it be looked for");
    expect_blob(&server, "team/c", &ours_at, &ours);
    let odd = uploads("team/c", "?mount=sha256:abc&from=team/a");
    expect(&send(&server, "POST", &odd, b""), 400, "DIGEST_INVALID");

    let delete = |server: &Server, repository: &str, digest: &str| {
        let target = format!("/v2/{repository}/blobs/{digest}");
        Connection::open(server.addr).exchange("DELETE", &target, &[])
    };
    assert_eq!(delete(&server, "team/a", &ours_at).status(), 202);
    expect_no_blob(&server, "team/a", &ours_at);
    expect(&delete(&server, "team/a", &ours_at), 404, "BLOB_UNKNOWN");
    expect_blob(&server, "team/b", &ours_at, &ours);
    assert_eq!(mount(&server, "team/d", &ours_at, "&from=team/a"), 202);
    // All of it is so after a kill: each was durable when it was answered.
    server.kill();
    server.start_again();
    expect_no_blob(&server, "team/a", &ours_at);
    for repository in ["team/b", "team/c"] {
        expect_blob(&server, repository, &ours_at, &ours);
    }
    // Deleted content that is pushed again is there again.
    pushed(&server, "team/a", &ours);
    expect_blob(&server, "team/a", &ours_at, &ours);
}

/// What was cached becomes ours: kept once, and it stays when the cache is emptied.
#[test]
fn cached_content_that_is_pushed_is_ours() {
    let upstream = LyingUpstream::start();
    let setup = Setup::new("uploads-cached").upstream(declared(&upstream)).more(OPEN);
    let server = setup.storage("max_size = \"4MiB\"").start();
    let bytes = random_bytes("cached", MIB);
    let digest = upstream.add_blob(REPOSITORY, &bytes);
    let mirrored = format!("/v2/{REPOSITORY}/blobs/{digest}?ns={NS}");
    assert!(server.get(&mirrored).body == bytes);
    server.await_blob(&digest);
    wait_until("it to be counted", secs(10), || {
        server.metric("ringport_store_bytes", &[]) == MIB as f64
    });
    // Knowing a digest is no permission, and no proof.
    expect_no_blob(&server, "team/app", &digest);
    pushed(&server, "team/app", &bytes);
    expect_blob(&server, "team/app", &digest, &bytes);
    assert_eq!(server.metric("ringport_store_bytes", &[]), 0.0, "ours counts for no limit");
    assert_eq!(server.blobs().len(), 1);
    for n in 0..12 {
        let other = random_bytes(&format!("other {n}"), MIB);
        let digest = upstream.add_blob(REPOSITORY, &other);
        assert_eq!(server.get(&format!("/v2/{REPOSITORY}/blobs/{digest}?ns={NS}")).status(), 200);
    }
    wait_until("an eviction", secs(10), || server.metric("ringport_evictions_total", &[]) > 0.0);
    expect_blob(&server, "team/app", &digest, &bytes);
    assert!(server.get(&mirrored).body == bytes, "and the mirror has it too");
}
