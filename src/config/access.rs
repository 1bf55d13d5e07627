//! `[auth]`, `[[hosted]]` and who may do what: the part of a `Config` that says what is allowed.

use std::path::PathBuf;
use std::time::Duration;

use ringport_plugin_sdk::names::glob_matches;

use super::Config;
use crate::oci::{RepositoryName, Tag};

/// `[auth]`: how clients say who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Of the `Basic` challenge.
    pub realm: String,
    /// Users and the bcrypt hashes of their passwords.
    pub htpasswd_file: Option<PathBuf>,
    /// Whether `GET /v2/` asks for a password although everyone may pull something.
    pub login_first: bool,
    /// Who may list the hosted repositories.
    pub catalog: Vec<Subject>,
    /// The operator's word that everyone who reaches the port may write.
    pub anonymous_writes_public: bool,
    /// `[auth.token]`
    pub token: Option<TokenAuth>,
}

/// `[auth.token]`: bearer tokens that somebody else issues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAuth {
    /// Where clients get them: a URL.
    pub realm: String,
    /// Our name there, which each token must have as its audience.
    pub service: String,
    /// Who must have issued it.
    pub issuer: String,
    /// Its public keys: PEM or JWKS; never empty.
    pub key_files: Vec<PathBuf>,
}

/// One word of a list that says who may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Everyone.
    Anonymous,
    /// Whoever has said who they are.
    Authenticated,
    /// This one: a user of the htpasswd file, the subject of a token, the common name of a client
    /// certificate.
    User(String),
}

/// `[[hosted]]`: the rules of the hosted repositories that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostedRule {
    /// Patterns over the repository; `*` stands for any run of characters. Never empty.
    pub repositories: Vec<String>,
    /// Who may read.
    pub pull: Vec<Subject>,
    /// Who may upload, tag and mount into it.
    pub push: Vec<Subject>,
    /// Who may delete.
    pub delete: Vec<Subject>,
    /// Patterns over the tag: tags that stay what they are.
    pub immutable_tags: Vec<String>,
    /// Whether a blob may be mounted that is somewhere in a repository that nobody names.
    pub anonymous_mount: bool,
    /// Whether a manifest may name what is not here.
    pub missing_references: MissingReferences,
    /// Bytes of one repository; `None` for no limit.
    pub max_size: Option<u64>,
    /// Tags of one repository; `None` for no limit.
    pub max_tags: Option<usize>,
    /// How many of the newest tags stay; `None` with `keep_newer` at `None`: all.
    pub keep_last: Option<usize>,
    /// Tags pushed within this time stay.
    pub keep_newer: Option<Duration>,
}

/// Whether a manifest may name what is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingReferences {
    /// It may not.
    Refused,
    /// It may.
    Allowed,
    /// An index may name manifests that are not here; everything else must be.
    InIndexes,
}

impl Config {
    /// The rule that decides about a hosted repository: the first whose pattern matches, else
    /// [`Config::hosted_otherwise`].
    pub fn hosted_rule(&self, repository: &RepositoryName) -> &HostedRule {
        let decides = |rule: &&HostedRule| rule.pattern_for(repository).is_some();
        self.hosted.iter().find(decides).unwrap_or(&self.hosted_otherwise)
    }

    /// Whether there is any way to say who one is.
    pub fn has_login(&self) -> bool {
        let tls = self.server.tls.as_ref();
        let has_certificates = tls.is_some_and(|tls| tls.client_ca_file.is_some());
        has_certificates || self.auth.htpasswd_file.is_some() || self.auth.token.is_some()
    }

    /// Whether everyone may write, or list what is hosted, and nobody has said that this is meant
    /// off loopback.
    pub(super) fn is_open_by_oversight(&self) -> bool {
        let is_open = self.auth.catalog.contains(&Subject::Anonymous)
            || self.hosted.iter().any(HostedRule::is_open);
        is_open && !self.auth.anonymous_writes_public
    }
}

impl HostedRule {
    /// The built-in rule behind all others: everyone pulls, whoever has logged in pushes, nobody
    /// deletes.
    pub(super) fn built_in() -> Self {
        Self {
            repositories: vec!["*".to_owned()],
            pull: vec![Subject::Anonymous],
            push: vec![Subject::Authenticated],
            delete: Vec::new(),
            immutable_tags: Vec::new(),
            anonymous_mount: false,
            missing_references: MissingReferences::Refused,
            max_size: None,
            max_tags: None,
            keep_last: None,
            keep_newer: None,
        }
    }

    /// Who may do what, in a sentence for operators.
    pub fn in_words(&self) -> String {
        let [pull, push, delete] = [&self.pull, &self.push, &self.delete].map(|who| in_words(who));
        format!("pull {pull}; push {push}; delete {delete}")
    }

    /// The pattern that makes this rule one for `repository`, if there is one.
    pub fn pattern_for(&self, repository: &RepositoryName) -> Option<&str> {
        first_match(&self.repositories, repository.as_str())
    }

    /// The pattern that makes this tag one that stays what it is, if there is one.
    pub fn immutable_pattern_for(&self, tag: &Tag) -> Option<&str> {
        first_match(&self.immutable_tags, tag.as_str())
    }

    /// Whether somebody who has said who they are may do what not everyone may.
    pub(super) fn needs_login(&self) -> bool {
        [&self.pull, &self.push, &self.delete]
            .iter()
            .any(|who| !who.is_empty() && !who.contains(&Subject::Anonymous))
    }

    /// Whether everyone may push or delete.
    fn is_open(&self) -> bool {
        self.push.contains(&Subject::Anonymous) || self.delete.contains(&Subject::Anonymous)
    }
}

impl MissingReferences {
    /// The word for it in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Allowed => "allowed",
            Self::InIndexes => "in_indexes",
        }
    }
}

impl Subject {
    /// The word for it in the file.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Authenticated => "authenticated",
            Self::User(name) => name,
        }
    }
}

/// Who is meant by a list, for operators.
pub fn in_words(who: &[Subject]) -> String {
    let words: Vec<&str> = who.iter().map(Subject::as_str).collect();
    if who.contains(&Subject::Anonymous) {
        return "everyone".to_owned();
    }
    if words.is_empty() { "nobody".to_owned() } else { words.join(", ") }
}

fn first_match<'p>(patterns: &'p [String], text: &str) -> Option<&'p str> {
    patterns.iter().map(String::as_str).find(|pattern| glob_matches(pattern, text))
}
