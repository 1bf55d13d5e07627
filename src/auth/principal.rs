//! Who is asking, once that is proved.

use std::sync::Arc;

use crate::config::Subject;

/// What somebody wants to do with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Read manifests, blobs, tags and referrers.
    Pull,
    /// Upload, mount and tag; ask for an upload of one's own, or end it.
    Push,
    /// Delete tags, manifests and blobs.
    Delete,
    /// List the repositories.
    Catalog,
}

/// How a name was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing was said.
    None,
    /// A password of the htpasswd file.
    Password,
    /// A bearer token.
    Token,
    /// The certificate of the connection.
    Certificate,
}

/// Who is asking. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    name: Option<Arc<str>>,
    proof: Proof,
    /// What a token is limited to; `None` for no such limit.
    grants: Option<Arc<[Grant]>>,
}

/// One entry of a token's `access` claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// `repository` or `registry`.
    pub(super) kind: Box<str>,
    pub(super) name: Box<str>,
    pub(super) actions: Vec<Box<str>>,
}

impl Verb {
    /// The word for it in rules and in what operators read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Catalog => "catalog",
        }
    }

    /// The action that a token must have for it.
    fn action(self) -> &'static str {
        match self {
            Self::Catalog => "*",
            other => other.as_str(),
        }
    }

    /// The scope that a client is to ask the token server for. Who pushes pulls as well: clients
    /// look whether a blob is there before they send it.
    pub fn scope(self, name: &str) -> String {
        match self {
            Self::Catalog => "registry:catalog:*".to_owned(),
            Self::Push => format!("repository:{name}:pull,push"),
            Self::Pull | Self::Delete => format!("repository:{name}:{}", self.as_str()),
        }
    }
}

impl Principal {
    /// Nobody has said who it is.
    pub const ANONYMOUS: Principal = Principal { name: None, proof: Proof::None, grants: None };

    /// Somebody whose name was proved like this, without further limits.
    pub(super) fn named(name: &str, proof: Proof) -> Self {
        Self { name: Some(name.into()), proof, grants: None }
    }

    /// Somebody with a token. Token servers give tokens to unknown clients too: those have no
    /// subject, and stay unknown.
    pub(super) fn of_token(subject: &str, grants: Vec<Grant>) -> Self {
        let name = (!subject.is_empty()).then(|| subject.into());
        Self { name, proof: Proof::Token, grants: Some(grants.into()) }
    }

    /// The name; `None` for somebody unknown.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The name, to be kept.
    pub fn shared_name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }

    /// How the name was proved.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// Whether nothing at all was said: neither a name nor a token.
    pub fn said_nothing(&self) -> bool {
        self.proof == Proof::None
    }

    /// Whether one of `who` means this one.
    pub fn is_among(&self, who: &[Subject]) -> bool {
        who.iter().any(|subject| match subject {
            Subject::Anonymous => true,
            Subject::Authenticated => self.name.is_some(),
            Subject::User(name) => self.name.as_deref() == Some(name.as_str()),
        })
    }

    /// Whether the token, if there is one, is good for this; `name` as the client writes it.
    pub fn is_granted(&self, verb: Verb, name: &str) -> bool {
        let Some(grants) = &self.grants else { return true };
        let (kind, name) = match verb {
            Verb::Catalog => ("registry", "catalog"),
            _ => ("repository", name),
        };
        grants.iter().filter(|grant| &*grant.kind == kind && &*grant.name == name).any(|grant| {
            grant.actions.iter().any(|action| &**action == "*" || &**action == verb.action())
        })
    }
}
