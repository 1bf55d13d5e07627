//! From text to the schema, and from serde's messages to [`Problem`]s with a place and a key.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;
use super::schema;
use super::text::REASON;

/// A configuration's text with its name and what is needed to tell places in it.
pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    /// `None` when the text is not TOML; problems then have no key.
    tree: Option<Spanned<DeTable<'a>>>,
}

/// Reads the text as the schema. The first problem ends it: serde knows no second one.
pub(super) fn parse<'a>(
    text: &'a str,
    file: &'a str,
) -> Result<(schema::File, Source<'a>), Box<Problem>> {
    let (tree, broken) = match DeTable::parse(text) {
        Ok(tree) => (Some(tree), None),
        Err(error) => (None, Some(error)),
    };
    let source = Source { file, text, tree };
    if let Some(error) = broken {
        return Err(Box::new(source.syntax_problem(&error)));
    }
    match toml::from_str(text) {
        Ok(parsed) => Ok((parsed, source)),
        Err(error) => Err(Box::new(source.schema_problem(&error))),
    }
}

impl Source<'_> {
    /// A problem at `span` (bytes of the text), its key worked out from the place.
    pub(super) fn problem(
        &self,
        span: Range<usize>,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: Option<String>,
    ) -> Problem {
        let (line, column) = self.place(span.start);
        Problem {
            file: self.file.to_owned(),
            line,
            column,
            key: self.key_at(span),
            expected: expected.into(),
            found: found.into(),
            remedy,
        }
    }

    fn syntax_problem(&self, error: &toml::de::Error) -> Problem {
        let message = error.message().trim().replace('\n', ", ");
        self.problem(error.span().unwrap_or(0..0), "valid TOML", message, None)
    }

    /// Takes serde's sentences apart. They are stable in practice; where one is not recognised it
    /// is passed on whole, which loses the remedy and nothing else.
    fn schema_problem(&self, error: &toml::de::Error) -> Problem {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().trim();
        if let Some(rest) = message.strip_prefix("unknown field ") {
            return self.unknown_key(span, rest);
        }
        if let Some(key) = message.strip_prefix("missing field ") {
            let mut problem = self.problem(span, format!("the key {key}"), "none", None);
            problem.key = join(&problem.key, key.trim_matches('`'));
            return problem;
        }
        let Some((found, expected)) = message.rsplit_once(", expected ") else {
            return self.problem(span, "another value", message, None);
        };
        let found = found.split_once(": ").map_or(found, |(_, value)| value);
        let (expected, reason) = expected.split_once(REASON).unwrap_or((expected, ""));
        let remedy = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
        self.problem(span, expected, found, remedy)
    }

    /// `rest` is "`key`, expected one of `a`, `b`", "`key`, expected `a` or `b`" and the like.
    fn unknown_key(&self, span: Range<usize>, rest: &str) -> Problem {
        let mut words = rest.split('`').skip(1).step_by(2);
        let unknown = words.next().unwrap_or_default().to_owned();
        let known: Vec<&str> = words.collect();
        let remedy = nearest(&unknown, known.iter().copied())
            .map(|key| format!("did you mean `{key}`?"))
            .or_else(|| Some("keys that are not known are refused, remove it".to_owned()));
        let expected = format!("one of the keys {}", known.join(", "));
        let mut problem = self.problem(span, expected, format!("`{unknown}`"), remedy);
        let last = problem.key.rsplit('.').next().unwrap_or_default();
        if last != unknown {
            problem.key = join(&problem.key, &unknown);
        }
        problem
    }

    /// Line and column (in characters), both from 1.
    fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (before.matches('\n').count() + 1, column)
    }

    /// The path of the innermost key whose name or value covers `span`.
    fn key_at(&self, span: Range<usize>) -> String {
        let mut path = String::new();
        if let Some(tree) = &self.tree {
            find_in_table(tree.get_ref(), &span, &mut path);
        }
        path
    }
}

fn find_in_table(table: &DeTable<'_>, span: &Range<usize>, path: &mut String) -> bool {
    for (key, value) in table.iter() {
        let length = path.len();
        *path = join(path, key.get_ref());
        if find_in_value(value, span, path) || covers(&key.span(), span) {
            return true;
        }
        path.truncate(length);
    }
    false
}

fn find_in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>, path: &mut String) -> bool {
    let inside = match value.get_ref() {
        DeValue::Table(table) => find_in_table(table, span, path),
        DeValue::Array(items) => find_in_items(items.iter(), span, path),
        _ => false,
    };
    inside || covers(&value.span(), span)
}

/// The index is part of the path for tables only: `upstream[1].tag_ttl`, but `server.listen`.
fn find_in_items<'i, 't: 'i>(
    items: impl Iterator<Item = &'i Spanned<DeValue<'t>>>,
    span: &Range<usize>,
    path: &mut String,
) -> bool {
    for (position, item) in items.enumerate() {
        let length = path.len();
        if matches!(item.get_ref(), DeValue::Table(_)) {
            path.push_str(&format!("[{position}]"));
        }
        if find_in_value(item, span, path) {
            return true;
        }
        path.truncate(length);
    }
    false
}

fn covers(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end && !inner.is_empty()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The candidate most like `word`, if one is near enough to have been meant.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(word, candidate);
    let limit = (word.chars().count() / 3).max(2);
    candidates
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(apart, candidate)| *apart <= limit && *apart < candidate.len())
        .min_by_key(|(apart, _)| *apart)
        .map(|(_, candidate)| candidate)
}
