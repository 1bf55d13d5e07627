//! One lying upstream with one blob, and a Ringport that mirrors it: what most tests start from.

use super::http::{Answer, Ending};
use super::images::{OCI_MANIFEST, random_bytes};
use super::lying::LyingUpstream;
use super::secs;
use super::server::{Server, Setup, Upstream};
use serde_json::json;

/// The namespace of the lying upstream.
pub const NS: &str = "lying.example";
/// The repository of its content.
pub const REPOSITORY: &str = "org/app";

/// The upstream, the mirror, and the blob that the one holds.
pub struct Rig {
    pub upstream: LyingUpstream,
    pub server: Server,
    /// The right bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: String,
    /// Where the upstream has them.
    pub path: String,
    /// What to ask Ringport for.
    pub target: String,
}

impl Rig {
    /// A blob of `size` bytes; `what` names the scratch folder. Upstream time limits are short.
    pub fn new(what: &str, size: usize) -> Rig {
        Rig::with(what, size, |upstream| upstream)
    }

    /// The same, with the declaration of the upstream changed.
    pub fn with(what: &str, size: usize, change: impl FnOnce(Upstream) -> Upstream) -> Rig {
        let upstream = LyingUpstream::start();
        let declared = change(declared(&upstream));
        let server = Setup::new(what).upstream(declared).start();
        Rig::of(upstream, server, size)
    }

    /// The same over a server that the test set up itself.
    pub fn of(upstream: LyingUpstream, server: Server, size: usize) -> Rig {
        let bytes = random_bytes("rig", size);
        let digest = upstream.add_blob(REPOSITORY, &bytes);
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        let target = format!("{path}?ns={NS}");
        Rig { upstream, server, bytes, digest, path, target }
    }

    /// What Ringport is asked for to get a manifest.
    pub fn manifest_target(&self, reference: &str) -> String {
        format!("{}?ns={NS}", self.manifest_path(reference))
    }

    /// Where the upstream has it.
    pub fn manifest_path(&self, reference: &str) -> String {
        format!("/v2/{REPOSITORY}/manifests/{reference}")
    }

    /// Asks for the blob; panics unless all of it comes and is right.
    #[track_caller]
    pub fn expect_right(&self) -> Answer {
        let answer = self.server.get(&self.target);
        assert_eq!((answer.status(), answer.ending), (200, Ending::Complete), "{:?}", answer.head);
        assert!(answer.body == self.bytes, "{} wrong bytes", answer.body.len());
        answer
    }

    /// Asks for the blob and expects it not to be completed: cut short by FIN after a 200, or a
    /// gateway error. What did come must be a right beginning without the held back end,
    /// unless `wrong` bytes were sent by the upstream on purpose.
    #[track_caller]
    pub fn expect_failure(&self, wrong: bool) -> Answer {
        let answer = self.server.get(&self.target);
        match answer.status() {
            200 => {
                assert_eq!(answer.ending, Ending::Fin, "cut short in order: {:?}", answer.head);
                assert!(wrong || self.bytes.starts_with(&answer.body), "a wrong beginning");
                let given = answer.body.len();
                assert!(given + HELD_BACK <= self.bytes.len(), "{given} bytes given out");
            }
            status => expect_gateway_error(&answer, status),
        }
        answer
    }

    /// Nothing of the blob is in the store, nothing is left in staging, the server lives, and
    /// with an honest upstream the same request then gets the right bytes.
    #[track_caller]
    pub fn expect_nothing_kept_and_recovery(&mut self) {
        self.server.await_empty_staging(secs(20));
        assert!(!self.server.has_blob(&self.digest), "a bad fill was committed");
        assert_eq!(self.server.blobs(), Vec::<std::path::PathBuf>::new(), "nothing is stored");
        self.server.assert_alive();
        self.upstream.script("GET", &self.path, [super::lying::Answer::right()]);
        self.expect_right();
        self.server.await_blob(&self.digest);
        self.server.assert_store_is_right();
    }
}

/// What must be kept from the client until the digest is known to be right.
pub const HELD_BACK: usize = 64 << 10;

/// The declaration of a lying upstream, with short time limits.
pub fn declared(upstream: &LyingUpstream) -> Upstream {
    Upstream::new(NS, &upstream.url())
        .set("connect_timeout = \"2s\"")
        .set("first_byte_timeout = \"3s\"")
        .set("stall_timeout = \"2s\"")
}

/// 502 or 504 with an OCI error body.
#[track_caller]
pub fn expect_gateway_error(answer: &Answer, status: u16) {
    assert!(matches!(status, 502 | 504), "{status}: {:?} {}", answer.head, answer.text());
    assert_ne!(answer.error_code(), "", "an OCI error body: {}", answer.text());
}

/// A small OCI manifest, told apart by `note`.
pub fn manifest(note: &str) -> Vec<u8> {
    let descriptor = |media_type: &str, seed: &str| {
        let bytes = random_bytes(seed, 16);
        json!({"mediaType": media_type, "digest": super::images::sha256(&bytes), "size": 16})
    };
    json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(super::images::OCI_CONFIG, "config"),
        "layers": [descriptor(super::images::OCI_LAYER, "layer")],
        "annotations": {"org.example.note": note},
    })
    .to_string()
    .into_bytes()
}
