//! All that a server shows of some repositories, and how that differs from a model.

use super::contents::Contents;
use super::judge;
use super::model::{Model, There};
use super::operation::TAGS;
use super::wire::{Body, Told, Wire, expect, wrong};
use crate::support::images::ACCEPT;
use std::collections::{BTreeMap, BTreeSet};

/// What there is of one repository.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    blobs: BTreeSet<usize>,
    manifests: BTreeSet<usize>,
    /// Digest and listed: a tag that is listed answers, and the other way round.
    tags: BTreeMap<String, String>,
    referrers: BTreeMap<usize, BTreeSet<String>>,
}

/// Looks at everything in one repository; what is there must be right byte for byte.
pub fn look(wire: &mut Wire, contents: &Contents, name: &str, is_full: bool) -> Told<Seen> {
    let mut seen = Seen::default();
    for (n, blob) in contents.blobs.iter().enumerate() {
        let target = format!("/v2/{name}/blobs/{}", blob.digest);
        let answer = wire.ask("GET", &target, &[], Body::None)?;
        expect(&answer, &[200, 404], &target)?;
        if answer.status() == 200 {
            if answer.body != blob.bytes {
                return wrong(format!("{target}: {} wrong bytes", answer.body.len()));
            }
            seen.blobs.insert(n);
        }
    }
    for (n, manifest) in contents.manifests.iter().enumerate() {
        let target = format!("/v2/{name}/manifests/{}", manifest.digest);
        let answer = wire.ask("GET", &target, &[("Accept", ACCEPT)], Body::None)?;
        expect(&answer, &[200, 404], &target)?;
        if answer.status() == 200 {
            judge::manifest(&answer, manifest, false, &target)?;
            seen.manifests.insert(n);
        }
        if is_full {
            let listed = judge::referrers(wire, name, &manifest.digest, None)?;
            let digests = listed.iter().map(|one| one["digest"].as_str().unwrap_or_default());
            seen.referrers.insert(n, digests.map(str::to_owned).collect());
        }
    }
    for tag in TAGS {
        let target = format!("/v2/{name}/manifests/{tag}");
        let answer = wire.ask("GET", &target, &[("Accept", ACCEPT)], Body::None)?;
        expect(&answer, &[200, 404], &target)?;
        if answer.status() == 200 {
            let digest = answer.header("docker-content-digest");
            let Some(named) = contents.manifests.iter().find(|one| one.digest == digest) else {
                return wrong(format!("{target}: {digest} was never pushed"));
            };
            judge::manifest(&answer, named, false, &target)?;
            seen.tags.insert(tag.to_owned(), digest.to_owned());
        }
    }
    let listed = judge::all_tags(wire, name)?;
    if listed != seen.tags.keys().cloned().collect() {
        return wrong(format!("{name}: listed are {listed:?}, there are {:?}", seen.tags));
    }
    Ok(seen)
}

impl Seen {
    /// How it differs from what the model has of this repository.
    pub fn differences(
        &self,
        contents: &Contents,
        model: &Model,
        repo: usize,
        is_full: bool,
    ) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, there: There, is_seen: bool| {
            if there == There::Yes && !is_seen {
                found.push(format!("{what} is lost"));
            } else if there == There::No && is_seen {
                found.push(format!("{what} is there and must not be"));
            }
        };
        for (n, blob) in contents.blobs.iter().enumerate() {
            let what = format!("blob {n} ({})", blob.digest);
            compare(&what, model.blob(repo, n), self.blobs.contains(&n));
        }
        for (n, manifest) in contents.manifests.iter().enumerate() {
            let what = format!("manifest {n} ({})", manifest.digest);
            compare(&what, model.manifest(repo, n), self.manifests.contains(&n));
            if !is_full {
                continue;
            }
            let referrers: BTreeMap<String, There> = model
                .referrers(contents, repo, n, None)
                .map(|(one, there)| (contents.manifests[one].digest.clone(), there))
                .collect();
            let listed = &self.referrers[&n];
            for (digest, there) in &referrers {
                compare(&format!("{digest} as referrer of {n}"), *there, listed.contains(digest));
            }
            for digest in listed.iter().filter(|digest| !referrers.contains_key(*digest)) {
                compare(&format!("{digest} as referrer of {n}"), There::No, true);
            }
        }
        for tag in TAGS {
            let named = model.repo(repo).tags.get(tag);
            let digest = named.map(|&manifest| &contents.manifests[manifest].digest);
            if self.tags.get(tag) != digest {
                found.push(format!("tag {tag} is {:?}, not {digest:?}", self.tags.get(tag)));
            }
        }
        found
    }

    /// Leaves no doubt in the model.
    pub fn settle(&self, model: &mut Model, repo: usize) {
        let Some(found) = model.repos.get_mut(&repo) else { return };
        found.blobs.retain(|n, _| self.blobs.contains(n));
        found.manifests.retain(|n, _| self.manifests.contains(n));
        let links = found.blobs.values_mut().chain(found.manifests.values_mut());
        links.for_each(|link| link.is_doubtful = false);
    }
}
