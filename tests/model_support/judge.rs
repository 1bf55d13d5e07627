//! What answers must hold beyond their status.

use super::contents::Manifest;
use super::wire::{Body, Told, Wire, expect, expect_header, location, wrong};
use crate::support::http::Answer;
use crate::support::images::OCI_INDEX;
use serde_json::Value;
use std::collections::BTreeSet;

/// Pages of a list, at most.
const PAGES_MAX: usize = 500;

/// The 200 of a manifest.
pub fn manifest(answer: &Answer, manifest: &Manifest, head: bool, what: &str) -> Told<()> {
    expect_header(answer, "docker-content-digest", &manifest.digest, what)?;
    expect_header(answer, "content-type", manifest.media_type, what)?;
    expect_header(answer, "content-length", &manifest.bytes.len().to_string(), what)?;
    if !head && answer.body != manifest.bytes {
        return wrong(format!("{what}: {} wrong bytes", answer.body.len()));
    }
    Ok(())
}

/// A list with all its pages: what `of` finds in each, and how many there were.
pub fn pages(
    wire: &mut Wire,
    first: &str,
    mut each: impl FnMut(&Answer) -> Told<()>,
) -> Told<usize> {
    let mut target = first.to_owned();
    for page in 1..PAGES_MAX {
        let answer = wire.ask("GET", &target, &[], Body::None)?;
        expect(&answer, &[200], &target)?;
        each(&answer)?;
        let Some(next) = next_page(&answer, &target)? else { return Ok(page) };
        target = next;
    }
    wrong(format!("{first}: more than {PAGES_MAX} pages"))
}

/// Where a list goes on.
pub fn next_page(answer: &Answer, what: &str) -> Told<Option<String>> {
    let Some(link) = answer.head.headers.one("link") else { return Ok(None) };
    let target = link.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match target {
        Some((target, rest)) if rest.contains("rel=\"next\"") && target.contains("/v2/") => {
            Ok(target.find("/v2/").map(|at| target[at..].to_owned()))
        }
        _ => wrong(format!("{what}: Link is {link:?}")),
    }
}

/// The strings in an array of a document; `null` is empty.
pub fn strings(answer: &Answer, key: &str, what: &str) -> Told<Vec<String>> {
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let Some(found) = document.get(key) else {
        return wrong(format!("{what}: no `{key}`: {}", answer.text()));
    };
    let all = found.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(all.iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect())
}

/// All tags that are listed; a repository that is not known has none.
pub fn all_tags(wire: &mut Wire, name: &str) -> Told<BTreeSet<String>> {
    let target = format!("/v2/{name}/tags/list");
    let answer = wire.ask("GET", &target, &[], Body::None)?;
    expect(&answer, &[200, 404], &target)?;
    if answer.status() == 404 {
        return Ok(BTreeSet::new());
    }
    Ok(strings(&answer, "tags", &target)?.into_iter().collect())
}

/// The referrers of a digest, all pages.
pub fn referrers(
    wire: &mut Wire,
    name: &str,
    digest: &str,
    filter: Option<&str>,
) -> Told<Vec<Value>> {
    let mut target = format!("/v2/{name}/referrers/{digest}");
    if let Some(filter) = filter {
        target.push_str(&format!("?artifactType={}", filter.replace('+', "%2B")));
    }
    let mut all = Vec::new();
    let what = target.clone();
    pages(wire, &target, |answer| {
        expect_header(answer, "content-type", OCI_INDEX, &what)?;
        if filter.is_some() {
            expect_header(answer, "oci-filters-applied", "artifactType", &what)?;
        }
        let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match document["manifests"].as_array() {
            Some(listed) => all.extend(listed.iter().cloned()),
            None => return wrong(format!("{what}: {}", answer.text())),
        }
        Ok(())
    })?;
    Ok(all)
}

/// What the 201 of a push tells.
pub fn created(answer: &Answer, digest: &str, what: &str) -> Told<()> {
    location(answer, what)?;
    // Told or not; never another.
    match answer.head.headers.one("docker-content-digest") {
        Some(told) if told != digest => wrong(format!("{what}: {:?}", answer.head)),
        _ => Ok(()),
    }
}
