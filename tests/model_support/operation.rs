//! What can be done to a registry. Everything in an operation is a number or a name, so that a run
//! can be done again without some of them.

use super::contents::Contents;
use crate::support::chance::Chance;

/// One operation of one client. Repositories, blobs and manifests stand for their places.
#[derive(Clone, Debug)]
pub enum Op {
    Push {
        repo: usize,
        blob: usize,
        way: Way,
    },
    PushWrong {
        repo: usize,
        blob: usize,
    },
    Mount {
        repo: usize,
        from: usize,
        blob: usize,
    },
    Open {
        repo: usize,
        blob: usize,
    },
    Append {
        upload: usize,
        percent: usize,
        is_streamed: bool,
    },
    AppendWrong {
        upload: usize,
    },
    Ask {
        upload: usize,
    },
    AskElsewhere {
        upload: usize,
        repo: usize,
    },
    Finish {
        upload: usize,
    },
    Cancel {
        upload: usize,
    },
    Put {
        repo: usize,
        manifest: usize,
        tags: Vec<usize>,
        by_digest: bool,
    },
    /// The same after all that it names and that is not there.
    PutWhole {
        repo: usize,
        manifest: usize,
        tags: Vec<usize>,
        by_digest: bool,
    },
    PutWrong {
        repo: usize,
        manifest: usize,
    },
    Untag {
        repo: usize,
        tag: usize,
    },
    DeleteManifest {
        repo: usize,
        manifest: usize,
    },
    DeleteBlob {
        repo: usize,
        blob: usize,
    },
    Tag {
        repo: usize,
        tag: usize,
        head: bool,
    },
    Manifest {
        repo: usize,
        manifest: usize,
        head: bool,
    },
    Blob {
        repo: usize,
        blob: usize,
        head: bool,
        range: Option<(usize, usize)>,
    },
    Tags {
        repo: usize,
        page: usize,
        last: Option<usize>,
    },
    Catalog {
        page: usize,
    },
    Referrers {
        repo: usize,
        manifest: usize,
        filter: Option<usize>,
    },
    Gc,
    Advance {
        hours: u64,
    },
    Restart,
    Kill,
    /// The server is killed so many microseconds after this has begun.
    KillDuring {
        op: Box<Op>,
        after: u64,
    },
    Check,
}

/// How a blob is pushed.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// POST with digest and body.
    Single,
    /// POST, then PUT with the body.
    Put,
    /// So many PATCHes with a range each; the last piece comes with the PUT, or by a PATCH.
    Chunks { count: usize, last_by_put: bool },
    /// One PATCH without a length.
    Streamed,
    /// The connection ends after so much of a PATCH; the client asks how far it came and goes on.
    Cut { percent: usize, by_reset: bool },
}

/// Names of tags, by their number; the order of lists is not that of the numbers.
pub const TAGS: [&str; 10] =
    ["latest", "v1", "v1.0", "v10", "V2", "_x", "0", "a-b_c.d", "zz", "stable"];
/// Artifact types to filter by; nothing has the last one.
pub const TYPES: [&str; 4] = [
    crate::support::images::ARTIFACT_TYPE,
    crate::support::images::SBOM_TYPE,
    crate::support::images::OCI_CONFIG,
    "application/vnd.example.none",
];

/// Chooses operations.
pub struct Chooser<'a> {
    /// What there is to push.
    pub contents: &'a Contents,
    /// Repositories of this client.
    pub own: std::ops::Range<usize>,
    /// Repositories of all clients.
    pub all: usize,
    /// Whether the server is this client's to stop, and its clock to move.
    pub is_alone: bool,
}

impl Chooser<'_> {
    /// The next one.
    pub fn next(&self, chance: &mut Chance) -> Op {
        if self.is_alone && chance.percent(5) {
            return self.of_the_server(chance);
        }
        self.of_a_client(chance)
    }

    fn of_the_server(&self, chance: &mut Chance) -> Op {
        match chance.below(10) {
            0 | 1 => Op::Gc,
            2..4 => Op::Advance { hours: 13 },
            4 => Op::Restart,
            5 => Op::Kill,
            6 => Op::Check,
            _ => {
                let op = Box::new(self.of_a_client(chance));
                Op::KillDuring { op, after: chance.below(4000) as u64 }
            }
        }
    }

    fn of_a_client(&self, chance: &mut Chance) -> Op {
        let repo = self.own.start + chance.below(self.own.len());
        let blob = chance.below(self.contents.blobs.len());
        let manifest = chance.below(self.contents.manifests.len());
        let tag = chance.below(TAGS.len());
        let upload = chance.below(1 << 16);
        let head = chance.percent(50);
        match chance.below(100) {
            0..16 => Op::Push { repo, blob, way: way(chance) },
            16 => Op::PushWrong { repo, blob },
            17..23 => Op::Mount { repo, from: chance.below(self.all), blob },
            23..26 => Op::Open { repo, blob },
            26..31 => Op::Append {
                upload,
                percent: 1 + chance.below(100),
                is_streamed: chance.percent(30),
            },
            31 => Op::AppendWrong { upload },
            32 => Op::Ask { upload },
            33 => Op::AskElsewhere { upload, repo },
            34..36 => Op::Finish { upload },
            36 => Op::Cancel { upload },
            37..59 => put(chance, repo, manifest),
            59 => Op::PutWrong { repo, manifest },
            60..64 => Op::Untag { repo, tag },
            64..67 => Op::DeleteManifest { repo, manifest },
            67..69 => Op::DeleteBlob { repo, blob },
            69..75 => Op::Tag { repo, tag, head },
            75..80 => Op::Manifest { repo, manifest, head },
            80..86 => Op::Blob { repo, blob, head, range: self.range(chance, blob) },
            86..91 => {
                let last = chance.percent(50).then(|| chance.below(TAGS.len()));
                Op::Tags { repo, page: chance.below(5), last }
            }
            91..94 => Op::Catalog { page: chance.below(4) },
            _ => {
                let filter = chance.percent(50).then(|| chance.below(TYPES.len()));
                Op::Referrers { repo, manifest, filter }
            }
        }
    }

    fn range(&self, chance: &mut Chance, blob: usize) -> Option<(usize, usize)> {
        let size = self.contents.blobs[blob].bytes.len();
        if size == 0 || chance.percent(60) {
            return None;
        }
        let first = chance.below(size);
        Some((first, first + chance.below(size - first)))
    }
}

fn put(chance: &mut Chance, repo: usize, manifest: usize) -> Op {
    let by_digest = chance.percent(40);
    let count = match by_digest {
        true if chance.percent(50) => 0,
        true => 1 + chance.below(3),
        false => 1,
    };
    let mut tags: Vec<usize> = (0..count).map(|_| chance.below(TAGS.len())).collect();
    tags.sort_unstable();
    tags.dedup();
    match chance.percent(50) {
        true => Op::PutWhole { repo, manifest, tags, by_digest },
        false => Op::Put { repo, manifest, tags, by_digest },
    }
}

fn way(chance: &mut Chance) -> Way {
    match chance.below(6) {
        0 => Way::Single,
        1 => Way::Put,
        2 | 3 => Way::Chunks { count: 1 + chance.below(4), last_by_put: chance.percent(50) },
        4 => Way::Streamed,
        _ => Way::Cut { percent: chance.below(101), by_reset: chance.percent(50) },
    }
}
