//! `[auth]`, `[[hosted]]`, and the lists of who may do what.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::routing::pattern_fault;
use super::server::MAX_SIZE_MIN;
use super::{Checker, flag, items, text};
use crate::config::access::{Auth, HostedRule, MissingReferences, Subject, TokenAuth};
use crate::config::schema::{AuthTable, HostedTable, TokenTable, Value, Values};
use crate::config::text::As;
use crate::limits::TAG_BYTES_MAX;

const REALM: &str = "ringport";
/// Longest word that goes into a challenge.
const WORD_BYTES_MAX: usize = 1024;
const TAGS_MAX: u64 = 1 << 32;

/// Where the file lets everyone write or list.
type Open = Vec<Range<usize>>;

impl Checker<'_> {
    /// `[auth]` and every `[[hosted]]`, with the check that needs both and the listeners.
    pub(super) fn access(
        &mut self,
        auth: AuthTable,
        hosted: Vec<Spanned<HostedTable>>,
        listen: &[SocketAddr],
    ) -> (Auth, Vec<HostedRule>) {
        let mut open = Open::new();
        note_open(&auth.catalog, &mut open);
        for table in &hosted {
            note_open(&table.get_ref().push, &mut open);
            note_open(&table.get_ref().delete, &mut open);
        }
        let auth = self.auth(auth);
        let public = listen.iter().find(|address| !address.ip().is_loopback());
        if let (Some(address), false) = (public, auth.anonymous_writes_public) {
            for span in open {
                let found = format!("\"anonymous\" while the registry listens on {address}");
                let remedy = "name users, or \"authenticated\"; if everyone who reaches that \
                              address is meant, add `anonymous_writes_public = true` to [auth]";
                self.refuse(span, "nobody unknown off loopback", found, remedy);
            }
        }
        (auth, hosted.into_iter().map(|table| self.hosted_rule(table.into_inner())).collect())
    }

    fn auth(&mut self, table: AuthTable) -> Auth {
        Auth {
            realm: match table.realm {
                Some(realm) => self.word(realm),
                None => REALM.to_owned(),
            },
            htpasswd_file: self.file(table.htpasswd_file, true),
            login_first: flag(table.login_first, false),
            catalog: who(table.catalog, Subject::Authenticated),
            anonymous_writes_public: flag(table.anonymous_writes_public, false),
            token: table.token.map(|token| self.token(token)),
        }
    }

    fn token(&mut self, table: TokenTable) -> TokenAuth {
        let realm = table.realm.get_ref();
        if !realm.starts_with("https://") && !realm.starts_with("http://") {
            let found = format!("{realm:?}");
            let expected = "the URL where clients get tokens, such as \
                            \"https://auth.example/token\"";
            self.refuse(table.realm.span(), expected, found, "");
        }
        TokenAuth {
            realm: self.word(table.realm),
            service: self.word(table.service),
            issuer: self.word(table.issuer),
            key_files: self.key_files(table.key_files),
        }
    }

    /// Text that stands between quotes in a header.
    fn word(&mut self, value: Spanned<String>) -> String {
        let word = value.get_ref();
        let plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\';
        if word.is_empty() || word.len() > WORD_BYTES_MAX || !word.bytes().all(plain) {
            let expected = "printable ASCII without \" and \\";
            self.refuse(value.span(), expected, format!("{word:?}"), "");
        }
        value.into_inner()
    }

    fn key_files(&mut self, list: Spanned<Vec<Spanned<PathBuf>>>) -> Vec<PathBuf> {
        if list.get_ref().is_empty() {
            let remedy = "without a key no token could be accepted; name the issuer's public key, \
                          or remove [auth.token]";
            self.refuse(list.span(), "at least one file", "an empty list", remedy);
        }
        list.into_inner().into_iter().filter_map(|file| self.file(Some(file), false)).collect()
    }

    fn hosted_rule(&mut self, table: HostedTable) -> HostedRule {
        let built_in = HostedRule::built_in();
        if table.repositories.get_ref().is_empty() {
            let span = table.repositories.span();
            self.refuse(span, "at least one pattern", "an empty list", "for all write [\"*\"]");
        }
        HostedRule {
            repositories: self.hosted(table.repositories.into_inner()),
            pull: who(table.pull, Subject::Anonymous),
            push: who(table.push, Subject::Authenticated),
            delete: table.delete.map_or_else(Vec::new, subjects),
            immutable_tags: self.tag_patterns(table.immutable_tags),
            anonymous_mount: flag(table.anonymous_mount, built_in.anonymous_mount),
            missing_references: text(table.missing_references, MissingReferences::Refused),
            max_size: table.max_size.map(|value| self.size(&value, MAX_SIZE_MIN)),
            max_tags: self.some_count(table.max_tags),
            keep_last: self.some_count(table.keep_last),
            keep_newer: table.keep_newer.map(|value| self.keep_newer(&value)),
        }
    }

    fn some_count(&mut self, value: Value<u64>) -> Option<usize> {
        value.map(|value| self.count(Some(value), 1, 1..=TAGS_MAX))
    }

    fn keep_newer(&mut self, value: &Spanned<As<Duration>>) -> Duration {
        let time = value.get_ref().0;
        if time.is_zero() {
            let remedy = "no tag is younger than that; to keep all of them leave the key out";
            self.refuse(value.span(), "a time of at least 1us", "0s", remedy);
        }
        time
    }

    /// Patterns that a tag can match.
    fn tag_patterns(&mut self, list: Values<String>) -> Vec<String> {
        let list = items(list);
        for pattern in &list {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-*".contains(&b);
            let text = pattern.get_ref();
            if text.is_empty() || text.len() > TAG_BYTES_MAX || !text.bytes().all(allowed) {
                let remedy = "it is compared with the tag alone; `*` stands for any run of \
                              characters";
                let expected = "a pattern of tags such as \"v*\"";
                self.refuse(pattern.span(), expected, format!("{text:?}"), remedy);
            }
        }
        list.into_iter().map(Spanned::into_inner).collect()
    }

    /// Patterns that a repository name can match.
    pub(super) fn hosted(&mut self, list: Vec<Spanned<String>>) -> Vec<String> {
        for pattern in &list {
            if let Some(reason) = pattern_fault(pattern.get_ref()) {
                let found = format!("{:?}", pattern.get_ref());
                self.refuse(pattern.span(), "a pattern such as \"team/*\"", found, reason);
            }
        }
        list.into_iter().map(Spanned::into_inner).collect()
    }
}

/// The list as written, or this one word.
pub(super) fn who(list: Values<As<Subject>>, default: Subject) -> Vec<Subject> {
    list.map_or_else(|| vec![default], subjects)
}

fn subjects(list: Spanned<Vec<Spanned<As<Subject>>>>) -> Vec<Subject> {
    list.into_inner().into_iter().map(|subject| subject.into_inner().0).collect()
}

fn note_open(list: &Values<As<Subject>>, open: &mut Open) {
    let words = list.iter().flat_map(|list| list.get_ref());
    open.extend(words.filter(|word| word.get_ref().0 == Subject::Anonymous).map(Spanned::span));
}
