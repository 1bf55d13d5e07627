//! A pull as an answer: whole, a range, not modified, or out of range.

use std::borrow::Cow;
use std::cell::RefCell;

use super::answer::{Answer, Body, Facts, Value, ready};
use super::refusal::{Refusal, warning};
use crate::http::{ByteRange, Method, RangeOutcome, RequestHead, etag, range};
use crate::oci::{Digest, ErrorCode, media_type};
use crate::registry::{Content, Found, Pull};
use crate::telemetry::CacheResult;

/// Answers a GET or HEAD of content that was found.
pub(super) fn answer(head: &RequestHead, pull: Pull, mut facts: Facts) -> Answer {
    facts.cache = pull.cache;
    let digest = pull.digest;
    if is_known(head, &digest) {
        let mut answer = Answer::new(304, facts);
        answer.length = None;
        add_validators(&mut answer, &pull);
        return answer;
    }
    let whole = (200, 0, pull.size);
    let (status, first, length) = match wanted_range(head, pull.size, &digest) {
        RangeOutcome::Whole => whole,
        RangeOutcome::Partial { first, last } => (206, first, last - first + 1),
        RangeOutcome::Unsatisfiable => return out_of_range(pull.size, facts),
    };
    let content_type: Value = match &pull.media_type {
        Some(media_type) => media_type.clone().into(),
        None => media_type::OCTET_STREAM.into(),
    };
    let mut answer = Answer::new(status, facts);
    answer.add(("Content-Type", content_type));
    answer.add(ready!("Accept-Ranges", "bytes"));
    if status == 206 {
        let content_range = range::content_range(first, first + length - 1, pull.size);
        answer.add(("Content-Range", content_range.into()));
    }
    add_validators(&mut answer, &pull);
    answer.length = Some(length);
    answer.body = match pull.content {
        Content::Stored(blob, lease) => Body::File { file: blob.file, first, length, lease },
        Content::Filling(fill, tail) => Body::Filling { fill, tail, first, length },
        Content::Sparse(reader) => Body::Sparse { reader, first, length },
        Content::Memory(bytes) | Content::Unkept(bytes) => {
            // A range was computed from this very size, so it lies within.
            let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
            let part = at(first)..at(first + length);
            // A slice is shared with the whole, and that costs an allocation.
            let is_whole = part == (0..bytes.len());
            Body::Memory(if is_whole { bytes } else { bytes.slice(part) })
        }
        Content::InIndex(content) => Body::InIndex { content, first, length },
        Content::Passing(mut passing) => {
            passing.limit(first, length);
            Body::Passing(RefCell::new(Some(passing)))
        }
        Content::HeadOnly => Body::Empty,
    };
    answer
}

/// Whether the client has this content already.
fn is_known(head: &RequestHead, digest: &Digest) -> bool {
    let is_this = |condition: Cow<'_, str>| etag::matches(&condition, digest.text().as_str());
    head.if_none_match().is_some_and(is_this)
}

fn wanted_range(head: &RequestHead, size: u64, digest: &Digest) -> RangeOutcome {
    asked_range(head, digest).map_or(RangeOutcome::Whole, |range| range.within(size))
}

/// The range that counts, if there is one.
pub(super) fn asked_range(head: &RequestHead, digest: &Digest) -> Option<ByteRange> {
    // Range is defined for GET only; If-Range asks for it only if the content is still this.
    let header = head.range().filter(|_| head.method == Method::Get)?;
    let is_this = |tag| etag::if_range_matches(tag, digest.text().as_str());
    if head.if_range().is_none_or(is_this) { ByteRange::parse(header) } else { None }
}

fn out_of_range(size: u64, facts: Facts) -> Answer {
    let message = format!("the range asked for lies outside the content's {size} bytes");
    Refusal::new(416, ErrorCode::SizeInvalid, message)
        .answer(facts)
        .header("Content-Range", range::unsatisfied(size))
}

fn add_validators(answer: &mut Answer, pull: &Pull) {
    answer.content = Some(pull.digest);
    // What is hosted is ours: no cache had a part in it, and it has no age.
    if pull.cache != CacheResult::None {
        let is_plain =
            pull.cache == CacheResult::Hit && !matches!(pull.content, Content::Sparse(_));
        answer.add(match is_plain {
            true => ready!("Cache-Status", "ringport; hit"),
            false => ("Cache-Status", cache_status(pull).into()),
        });
        answer.add(("Age", pull.age.into()));
    }
    if let Some(text) = &pull.warning {
        answer.add(("Warning", warning(text).into()));
    }
}

/// RFC 9211 §2.
fn cache_status(pull: &Pull) -> Cow<'static, str> {
    if let Content::Sparse(reader) = &pull.content {
        return match reader.found() {
            Found::All => "ringport; hit; detail=unverified",
            Found::Some { is_shared: true } => "ringport; fwd=partial; collapsed",
            Found::Some { is_shared: false } => "ringport; fwd=partial",
            Found::None { is_shared: true } => "ringport; fwd=miss; collapsed",
            Found::None { is_shared: false } => "ringport; fwd=miss",
        }
        .into();
    }
    let is_kept =
        !matches!(pull.content, Content::HeadOnly | Content::Passing(_) | Content::Unkept(_));
    match pull.cache {
        CacheResult::Miss if !is_kept => "ringport; fwd=miss".into(),
        cache => found_status(cache, pull.overdue),
    }
}

/// The same of what has no content of its own. `overdue`: seconds since its time was over.
pub(super) fn found_status(cache: CacheResult, overdue: u64) -> Cow<'static, str> {
    match cache {
        CacheResult::Hit => "ringport; hit".into(),
        CacheResult::Updating => {
            let sign = if overdue == 0 { "" } else { "-" };
            format!("ringport; hit; ttl={sign}{overdue}; detail=updating").into()
        }
        CacheResult::Revalidated => "ringport; fwd=stale; detail=revalidated".into(),
        CacheResult::Stale => "ringport; fwd=stale".into(),
        CacheResult::Miss | CacheResult::None => "ringport; fwd=miss; stored".into(),
    }
}
