//! A registry in memory: what must come of what was done.

use super::contents::{Contents, Manifest};
use std::collections::{BTreeMap, BTreeSet};

/// What is linked this recently is no business of gc, in hours.
const GRACE_HOURS: u64 = 24;

/// Whether content belongs to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// When it was linked, in hours of the moved clock; at least and at most, for a crash may
    /// have hidden that it was linked anew.
    pub at: (u64, u64),
    /// A gc that goes on may have removed it.
    pub is_doubtful: bool,
}

/// One repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repo {
    /// Blobs by their place in the contents.
    pub blobs: BTreeMap<usize, Link>,
    /// Manifests by theirs.
    pub manifests: BTreeMap<usize, Link>,
    /// Tags, and the manifests that they name.
    pub tags: BTreeMap<&'static str, usize>,
    /// Something was here once.
    pub was_used: bool,
}

/// The repositories of one client, by their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// By number.
    pub repos: BTreeMap<usize, Repo>,
    /// The moved clock, in hours.
    pub now: u64,
    /// As it is if what was under way when the server ended has happened.
    pub pending: Option<Box<Model>>,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    Yes,
    No,
    /// Both are right.
    Maybe,
}

impl There {
    /// As it is when all of them are there.
    pub fn and(self, other: There) -> There {
        match (self, other) {
            (There::No, _) | (_, There::No) => There::No,
            (There::Yes, There::Yes) => There::Yes,
            _ => There::Maybe,
        }
    }
}

/// Blobs and manifests.
type Kept = (BTreeSet<usize>, BTreeSet<usize>);

fn there(link: Option<&Link>) -> There {
    match link {
        None => There::No,
        Some(link) if link.is_doubtful => There::Maybe,
        Some(_) => There::Yes,
    }
}

impl Model {
    /// Empty repositories of these numbers.
    pub fn new(own: std::ops::Range<usize>) -> Model {
        Model { repos: own.map(|n| (n, Repo::default())).collect(), now: 0, pending: None }
    }

    /// A repository of this client.
    pub fn repo(&self, repo: usize) -> &Repo {
        &self.repos[&repo]
    }

    fn change(&mut self, repo: usize) -> &mut Repo {
        let found = self.repos.get_mut(&repo).expect("a repository of this client");
        found.was_used = true;
        found
    }

    /// Whether a blob is in a repository; of others' repositories nothing is known.
    pub fn blob(&self, repo: usize, blob: usize) -> There {
        self.repos.get(&repo).map_or(There::Maybe, |found| there(found.blobs.get(&blob)))
    }

    /// Whether a manifest is in a repository.
    pub fn manifest(&self, repo: usize, manifest: usize) -> There {
        there(self.repo(repo).manifests.get(&manifest))
    }

    /// Whether all that a manifest names is there.
    pub fn named_by(&self, contents: &Contents, repo: usize, manifest: usize) -> There {
        let found = &contents.manifests[manifest];
        let blobs = found.blobs.iter().map(|&blob| self.blob(repo, blob));
        let children = found.children.iter().map(|&child| self.manifest(repo, child));
        blobs.chain(children).fold(There::Yes, There::and)
    }

    /// Whether a repository has anything: then it is listed.
    pub fn exists(&self, repo: usize) -> There {
        let found = self.repo(repo);
        let mut links = found.blobs.values().chain(found.manifests.values());
        let all = links.clone().count();
        match links.any(|link| !link.is_doubtful) {
            true => There::Yes,
            false if all > 0 => There::Maybe,
            false => There::No,
        }
    }

    /// A blob was pushed or mounted.
    pub fn put_blob(&mut self, repo: usize, blob: usize) {
        let link = Link { at: (self.now, self.now), is_doubtful: false };
        self.change(repo).blobs.insert(blob, link);
    }

    /// A manifest was pushed; what it names is there from now on.
    pub fn put_manifest(
        &mut self,
        contents: &Contents,
        repo: usize,
        manifest: usize,
        tags: &[&'static str],
    ) {
        let link = Link { at: (self.now, self.now), is_doubtful: false };
        let found = self.change(repo);
        found.manifests.insert(manifest, link);
        found.tags.extend(tags.iter().map(|&tag| (tag, manifest)));
        let Manifest { blobs, children, .. } = &contents.manifests[manifest];
        // What it names is linked anew with it.
        for blob in blobs {
            found.blobs.insert(*blob, link);
        }
        for child in children {
            found.manifests.insert(*child, link);
        }
        let mut waiting = children.clone();
        while let Some(next) = waiting.pop() {
            let Manifest { blobs, children, .. } = &contents.manifests[next];
            for blob in blobs {
                found.blobs.entry(*blob).and_modify(|link| link.is_doubtful = false);
            }
            for child in children {
                found.manifests.entry(*child).and_modify(|link| link.is_doubtful = false);
            }
            waiting.extend(children);
        }
    }

    /// A tag was deleted.
    pub fn remove_tag(&mut self, repo: usize, tag: &str) {
        self.change(repo).tags.remove(tag);
    }

    /// A manifest was deleted, and with it the tags that named it.
    pub fn remove_manifest(&mut self, repo: usize, manifest: usize) {
        let found = self.change(repo);
        found.manifests.remove(&manifest);
        found.tags.retain(|_, named| *named != manifest);
    }

    /// A blob was deleted.
    pub fn remove_blob(&mut self, repo: usize, blob: usize) {
        self.change(repo).blobs.remove(&blob);
    }

    /// What a gc keeps now: what tags lead to, and what is recent, at least or at most.
    fn kept(&self, contents: &Contents, repo: &Repo, at_most: bool) -> Kept {
        let is_recent = |link: &&Link| {
            let at = if at_most { link.at.1 } else { link.at.0 };
            at + GRACE_HOURS > self.now
        };
        let recent = |(n, link): (&usize, &Link)| is_recent(&link).then_some(*n);
        let mut blobs: BTreeSet<usize> = repo.blobs.iter().filter_map(recent).collect();
        let mut waiting: Vec<usize> = repo.manifests.iter().filter_map(recent).collect();
        waiting.extend(repo.tags.values());
        let mut manifests = BTreeSet::new();
        while let Some(manifest) = waiting.pop() {
            if !manifests.insert(manifest) {
                continue;
            }
            if repo.manifests.contains_key(&manifest) {
                let found = &contents.manifests[manifest];
                blobs.extend(&found.blobs);
                waiting.extend(&found.children);
            }
            // What refers to it is kept with it, and with an index that names what is not there.
            let refers = |n: &&usize| contents.manifests[**n].subject == Some(manifest);
            waiting.extend(repo.manifests.keys().filter(refers));
        }
        (blobs, manifests)
    }

    /// A gc has run while nobody else did anything.
    pub fn collect(&mut self, contents: &Contents) {
        let mut repos = std::mem::take(&mut self.repos);
        for repo in repos.values_mut() {
            let (blobs, manifests) = self.kept(contents, repo, true);
            repo.blobs.retain(|blob, _| blobs.contains(blob));
            repo.manifests.retain(|manifest, _| manifests.contains(manifest));
        }
        self.repos = repos;
        // As far as it is not known how recent something is.
        self.doubt(contents);
    }

    /// A gc goes on: what it would remove now may be gone.
    pub fn doubt(&mut self, contents: &Contents) {
        let mut repos = std::mem::take(&mut self.repos);
        for repo in repos.values_mut() {
            let (blobs, manifests) = self.kept(contents, repo, false);
            let (own_blobs, own_manifests) = (&mut repo.blobs, &mut repo.manifests);
            let blobs = own_blobs.iter_mut().filter(|(n, _)| !blobs.contains(n));
            let manifests = own_manifests.iter_mut().filter(|(n, _)| !manifests.contains(n));
            for (_, link) in blobs.chain(manifests) {
                link.is_doubtful = true;
            }
        }
        self.repos = repos;
    }

    /// It can not be told whether this or `other` is right: both may be.
    pub fn or(&mut self, other: &Model) {
        for (repo, found) in &mut self.repos {
            let other = &other.repos[repo];
            either(&mut found.blobs, &other.blobs);
            either(&mut found.manifests, &other.manifests);
        }
    }

    /// The manifests that refer to one, as far as they are of a type.
    pub fn referrers<'a>(
        &'a self,
        contents: &'a Contents,
        repo: usize,
        subject: usize,
        filter: Option<&'a str>,
    ) -> impl Iterator<Item = (usize, There)> + 'a {
        let all = self.repo(repo).manifests.iter();
        all.map(|(n, link)| (*n, there(Some(link)))).filter(move |(n, _)| {
            let found = &contents.manifests[*n];
            let has_type = |wanted: &str| found.listed["artifactType"] == wanted;
            found.subject == Some(subject) && filter.is_none_or(has_type)
        })
    }
}

fn either(links: &mut BTreeMap<usize, Link>, others: &BTreeMap<usize, Link>) {
    for (n, other) in others {
        let link = links.entry(*n).or_insert(*other);
        link.at = (link.at.0.min(other.at.0), link.at.1.max(other.at.1));
        link.is_doubtful |= other.is_doubtful;
    }
}
