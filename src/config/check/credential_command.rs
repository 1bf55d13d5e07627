//! `credential_command` of an upstream or of one of its credentials.

use std::path::Path;

use toml::Spanned;

use super::{Checker, FileChecks};
use crate::config::schema::Values;

const WORDS_MAX: usize = 64;
const WORD_BYTES_MAX: usize = 4096;

impl Checker<'_> {
    /// Program and arguments; `has_other` says whether there is another login beside it.
    pub(super) fn credential_command(
        &mut self,
        list: Values<String>,
        has_other: bool,
    ) -> Option<Vec<String>> {
        let list = list?;
        let span = list.span();
        let words: Vec<String> = list.into_inner().into_iter().map(Spanned::into_inner).collect();
        if has_other {
            let expected = "one login: `credential_command`, `token_file`, or `username` with \
                            `password_file`";
            self.refuse(span.clone(), expected, "more than one", "remove the others");
        }
        let is_word = |word: &String| word.len() <= WORD_BYTES_MAX && !word.contains('\0');
        if words.len() > WORDS_MAX || !words.iter().all(is_word) {
            let expected = format!(
                "a program and at most {} arguments of at most {WORD_BYTES_MAX} bytes",
                WORDS_MAX - 1
            );
            self.refuse(span.clone(), expected, "more, or a NUL byte", "");
        }
        match words.first() {
            Some(program) if Path::new(program).is_absolute() => {
                if self.files == FileChecks::Made
                    && let Err(refusal) = super::super::files::program(Path::new(program))
                {
                    self.refuse(span, refusal.expected, refusal.found, refusal.remedy);
                }
            }
            first => {
                let found = first.map_or_else(|| "an empty list".to_owned(), |f| format!("{f:?}"));
                let remedy = "it is run without a shell and without a search in PATH";
                self.refuse(
                    span,
                    "the absolute path of a program, then its arguments",
                    found,
                    remedy,
                );
            }
        }
        Some(words)
    }
}
