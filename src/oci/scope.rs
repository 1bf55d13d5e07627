//! Where a name is valid: a repository of one upstream, or one of our own.

use std::cell::RefCell;
use std::fmt;

use sha2::{Digest as _, Sha256};

use super::{Digest, Namespace, RepositoryName, Tag};

/// A repository together with the registry it belongs to. Every tag and every link is stored
/// under a scope, so that content of one registry can never answer for another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The canonical namespace of the upstream; `None` for a hosted repository.
    pub upstream: Option<Namespace>,
    /// The repository as that registry knows it.
    pub repository: RepositoryName,
}

/// A fixed-size look-up key of a tag, a link or the like: SHA-256 over scope, kind and name, each with its
/// length, so that no two different names can produce the same input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopeKey([u8; 32]);

impl ScopeKey {
    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Scope {
    /// The canonical namespace, or the empty text for hosted repositories: how the scope is
    /// written in the catalog.
    pub fn upstream_str(&self) -> &str {
        self.upstream.as_ref().map_or("", Namespace::as_str)
    }

    /// The key of a tag in this scope.
    pub fn tag_key(&self, tag: &Tag) -> ScopeKey {
        self.key(b'T', tag.as_str().as_bytes())
    }

    /// The key of the link from this scope to a digest.
    pub fn link_key(&self, digest: &Digest) -> ScopeKey {
        self.key(b'L', digest.as_bytes())
    }

    /// The key of a blob in this scope, linked or not.
    pub fn blob_key(&self, digest: &Digest) -> ScopeKey {
        self.key(b'B', digest.as_bytes())
    }

    /// The key of a document about this scope, such as a page of its tags.
    pub fn document_key(&self, name: &str) -> ScopeKey {
        self.key(b'D', name.as_bytes())
    }

    fn key(&self, kind: u8, name: &[u8]) -> ScopeKey {
        let mut hasher = Sha256::new();
        hasher.update([kind]);
        for part in [self.upstream_str().as_bytes(), self.repository.as_str().as_bytes(), name] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        ScopeKey(hasher.finalize().into())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.upstream {
            Some(upstream) => write!(f, "{upstream}/{}", self.repository),
            None => write!(f, "hosted {}", self.repository),
        }
    }
}

/// A scope with the keys that it was last asked for. A key depends on nothing but the scope and the name,
/// so none becomes stale; making one costs a block or two of SHA-256.
#[derive(Debug)]
pub struct KeyedScope {
    scope: Scope,
    tag: RefCell<Option<(Tag, ScopeKey)>>,
    link: RefCell<Option<(Digest, ScopeKey)>>,
}

impl KeyedScope {
    /// Nothing is remembered yet.
    pub const fn new(scope: Scope) -> Self {
        Self { scope, tag: RefCell::new(None), link: RefCell::new(None) }
    }

    /// The scope.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// [`Scope::tag_key`].
    pub fn tag_key(&self, tag: &Tag) -> ScopeKey {
        kept(&self.tag, tag, |tag| self.scope.tag_key(tag))
    }

    /// [`Scope::link_key`].
    pub fn link_key(&self, digest: &Digest) -> ScopeKey {
        kept(&self.link, digest, |digest| self.scope.link_key(digest))
    }
}

/// The key of this name, made anew only if the last one was of another.
fn kept<N: Clone + PartialEq>(
    last: &RefCell<Option<(N, ScopeKey)>>,
    name: &N,
    make: impl FnOnce(&N) -> ScopeKey,
) -> ScopeKey {
    let mut last = last.borrow_mut();
    match &*last {
        Some((of, key)) if of == name => *key,
        _ => {
            let key = make(name);
            *last = Some((name.clone(), key));
            key
        }
    }
}

#[cfg(test)]
mod tests;
