//! The hooks that a plugin may leave out: place and refresh.

use ringport_plugin_abi as abi;

use crate::frame::{EmptyAt, Shape, Text};
use crate::life::{Called, Worker};
use crate::report::{Finding, Problem};
use crate::request::hostile_bytes;
use crate::run::{Run, difference, judge};

const DIGEST: &[u8] = b"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const MEDIA_TYPE: &[u8] = b"application/vnd.oci.image.manifest.v1+json";
const REFRESHES: usize = 3;
/// What place is asked: kind, moment, digest and media type. Before content comes its digest is
/// known where it was asked for by it, as nearly all blobs are.
const ASKED: [(u32, u32, &[u8], &[u8]); 7] = [
    (abi::KIND_MANIFEST, abi::MOMENT_STORE, b"", b""),
    (abi::KIND_MANIFEST, abi::MOMENT_STORE, DIGEST, b""),
    (abi::KIND_MANIFEST, abi::MOMENT_STORE, DIGEST, MEDIA_TYPE),
    (abi::KIND_MANIFEST, abi::MOMENT_STORED, DIGEST, MEDIA_TYPE),
    (abi::KIND_BLOB, abi::MOMENT_STORE, b"", b""),
    (abi::KIND_BLOB, abi::MOMENT_STORE, DIGEST, b""),
    (abi::KIND_BLOB, abi::MOMENT_STORED, DIGEST, b""),
];

pub(super) fn place(run: &mut Run<'_>) -> Result<(), Finding> {
    if run.kit()?.table.place.is_none() {
        return Ok(());
    }
    let (life, mut worker) = run.start()?;
    let upstreams = run.world.upstreams.iter().map(|u| u.canonical_name.clone().into_bytes());
    let upstreams: Vec<Vec<u8>> = upstreams.take(8).chain([Vec::new()]).collect();
    let mut calls = 0;
    for upstream in &upstreams {
        for (kind, moment, digest, media_type) in ASKED {
            let is_stored = moment == abi::MOMENT_STORED;
            for content_bytes in [0, 1 << 20, 1 << 34, abi::BYTES_UNKNOWN] {
                let content = Content { kind, moment, content_bytes };
                let strings = [upstream.as_slice(), b"org/app", digest, media_type];
                let Some(first) = content.place(&mut worker, strings) else { continue };
                judge_placement(&first, upstream.is_empty(), is_stored).map_or(Ok(()), Err)?;
                let again = content.place(&mut worker, strings).map(|called| called.answer);
                if again.as_ref().is_some_and(|again| *again != first.answer) {
                    let found = again.map(|again| again.describe()).unwrap_or_default();
                    let expected =
                        format!("the first placement again ({})", first.answer.describe());
                    let remedy = "decide by the content and the configuration alone";
                    return Err(Problem::new(expected, found, remedy).breaks(12));
                }
                calls += 2;
            }
        }
    }
    for bytes in hostile_bytes() {
        let content = Content { kind: 77, moment: 99, content_bytes: 1 };
        let (bytes, none): (&[u8], &[u8]) = (&bytes, b"");
        for strings in [[bytes, b"a", none, none], [b"docker.io", bytes, bytes, bytes]] {
            let called = content.place(&mut worker, strings);
            if let Some(finding) =
                called.and_then(|c| crate::life::judge_status("place", c.answer.status))
            {
                return Err(finding);
            }
            calls += 1;
        }
    }
    drop((worker, life));
    run.pass(14, format!("{calls} placements"));
    Ok(())
}

#[derive(Clone, Copy)]
struct Content {
    kind: u32,
    moment: u32,
    content_bytes: u64,
}

impl Content {
    fn place(self, worker: &mut Worker, strings: [&[u8]; 4]) -> Option<Called> {
        let texts = strings.map(Text::new);
        let [upstream, repository, digest, media_type] =
            texts.each_ref().map(|text| text.as_abi(EmptyAt::Null));
        worker.place(&abi::PlaceRequest {
            size: size_of::<abi::PlaceRequest>() as u32,
            kind: self.kind,
            moment: self.moment,
            reserved: 0,
            upstream,
            repository,
            digest,
            media_type,
            content_bytes: self.content_bytes,
        })
    }
}

fn judge_placement(called: &Called, is_hosted: bool, is_stored: bool) -> Option<Finding> {
    let class = called.answer.placement.as_ref().map(|(class, ..)| *class);
    let is_passed_through = class == Some(abi::CLASS_PASS_THROUGH);
    if is_passed_through && is_hosted {
        let remedy = "cache or pin what was pushed: nobody else has it";
        let found = "RINGPORT_CLASS_PASS_THROUGH";
        return Some(Problem::new("hosted content kept", found, remedy).breaks(14));
    }
    let wrong = if is_stored { abi::REMOTE_READ } else { abi::REMOTE_WRITE };
    let is_wrong = called.answer.remotes.iter().any(|(purpose, ..)| *purpose == wrong);
    if is_wrong || (is_passed_through && !called.answer.remotes.is_empty()) {
        let expected = "remote reads at MOMENT_STORE, writes at MOMENT_STORED, none passed through";
        let remedy = "look at `moment` before emit_remote";
        return Some(Problem::new(expected, "another request", remedy).breaks(14));
    }
    judge("place", called)
}

/// Successors are made on a helper while a worker of the running instance goes on.
pub(super) fn refresh(run: &mut Run<'_>) -> Result<(), Finding> {
    if run.kit()?.table.refresh.is_none() {
        return Ok(());
    }
    let (mut life, mut worker) = run.start()?;
    let asked = if life.wants_refresh() { "" } else { ", though it never asked (want_refresh)" };
    let mut successors = 0;
    for _ in 0..REFRESHES {
        let frames = run.frames(&life, Shape::Exact, EmptyAt::Null);
        let helper = life.clone();
        let next = std::thread::scope(|scope| {
            let helper = scope.spawn(move || helper.refresh());
            for frame in &frames {
                worker.resolve(frame);
            }
            helper.join()
        });
        let Ok(next) = next else { continue };
        let Some(next) = next? else { continue };
        successors += 1;
        let mut new_worker = next.start_worker(0)?;
        let before: Vec<Called> = frames.iter().map(|frame| new_worker.resolve(frame)).collect();
        if let Some(finding) = before.iter().find_map(|called| judge("resolve", called)) {
            return Err(finding);
        }
        drop((worker, life));
        (worker, life) = (new_worker, next);
        let remedy = "copy what a successor needs: it outlives the instance it was made from";
        for ((frame, request), before) in frames.iter().zip(&run.requests).zip(&before) {
            let after = worker.resolve(frame);
            let differs = difference(request, &before.answer, &after, 10, remedy);
            if let Some(finding) = differs.filter(|_| run.is_stable) {
                return Err(finding);
            }
        }
    }
    drop((worker, life));
    run.pass(13, format!("{REFRESHES} refreshes, {successors} successors{asked}"));
    Ok(())
}
