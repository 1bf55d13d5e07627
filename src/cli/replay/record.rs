//! One line of an access log: read within its bound, taken apart, asked again.

use std::io::{self, BufRead, Read};
use std::net::IpAddr;

use serde::Deserialize;

use crate::oci::{Endpoint, Namespace, Target};
use crate::plugin::{RequestKind, ResolveRequest, WorkerChain};
use crate::telemetry::Decision;

/// Longest line that is looked at: a request's head may have 16 KiB, escapes in JSON are up to six
/// times as long as what they stand for, and a decision names 16 candidates at most.
const LINE_BYTES_MAX: u64 = 256 * 1024;

/// The lines of a log, one at a time.
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    bytes_read: u64,
}

pub(super) enum Line<'a> {
    Text(&'a [u8]),
    /// It was read away.
    TooLong,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), bytes_read: 0 }
    }

    /// The next line, without its end; `None` at the end of the log.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let limit = LINE_BYTES_MAX + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line)?;
        self.bytes_read += read as u64;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read as u64 == limit {
            self.bytes_read += skip_line(&mut self.reader)?;
            return Ok(Some(Line::TooLong));
        }
        Ok((read > 0).then_some(Line::Text(&self.line)))
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}

/// Reads up to the line's end and keeps nothing of it.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        let is_over = end.is_some() || buffer.is_empty();
        reader.consume(used);
        skipped += used as u64;
        if is_over {
            return Ok(skipped);
        }
    }
}

/// What a line says about a request; other fields of it do not matter here.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(super) method: String,
    /// With its query.
    pub(super) path: String,
    pub(super) client: Option<IpAddr>,
    header_ns: Option<String>,
    user: Option<String>,
    pub(super) decision: Option<String>,
}

/// What is decided now.
#[derive(Debug)]
pub(super) struct Now {
    /// To be compared with [`Record::decision`].
    pub(super) words: String,
    pub(super) resolver: String,
    pub(super) rule: String,
    /// Of a refusal.
    pub(super) reason: Option<String>,
}

impl Record {
    /// # Errors
    /// Why it is no line of an access log.
    pub(super) fn parse(line: &[u8]) -> Result<Record, String> {
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }

    /// Puts the request to the resolvers again.
    ///
    /// # Errors
    /// It is none that they were ever asked about.
    pub(super) fn ask(&self, chain: &WorkerChain) -> Result<Now, String> {
        let (path, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.path.as_str(), None),
        };
        let reads = matches!(self.method.as_str(), "GET" | "HEAD");
        let endpoint = Endpoint::parse(reads, path, query).map_err(|error| error.to_string())?;
        let (name, kind, reference) = match &endpoint.target {
            Target::Manifest { name, reference } => {
                (name, RequestKind::Manifest, reference.to_string())
            }
            Target::Blob { name, digest } => (name, RequestKind::Blob, digest.to_string()),
            Target::TagsList { name, .. } => (name, RequestKind::Tags, String::new()),
            Target::Referrers { name, digest, .. } => {
                (name, RequestKind::Referrers, digest.to_string())
            }
            Target::Base | Target::Catalog { .. } | Target::Upload { .. } => {
                return Err(format!("{path} is never routed, but it has a decision"));
            }
        };
        let header = self.header_ns.as_deref().map(Namespace::parse).transpose();
        let header = header.map_err(|error| format!("header_ns: {error}"))?;
        let resolved = chain.resolve(&ResolveRequest {
            method: &self.method,
            kind,
            ns: endpoint.ns.as_ref(),
            header: header.as_ref(),
            name: name.as_str(),
            reference: &reference,
            client: self.client,
            principal: self.user.as_deref(),
            head: None,
        });
        let now = |decision: &dyn Decision, reason: Option<&str>| Now {
            words: decision.in_words(),
            resolver: decision.resolver().to_owned(),
            rule: decision.rule().to_owned(),
            reason: reason.map(str::to_owned),
        };
        Ok(match resolved {
            Ok(resolution) => now(&*resolution, None),
            Err(error) => now(&*error, Some(&error.message)),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_within_their_bound() {
        let max = usize::try_from(LINE_BYTES_MAX).unwrap();
        let (whole, long) = ("w".repeat(max), "l".repeat(3 * max));
        let log = format!("a\n\n{whole}\n{long}\nb\n{long}");
        let mut lines = Lines::new(io::BufReader::with_capacity(100, log.as_bytes()));
        let mut read = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            read.push(match line {
                Line::Text(text) => text.len().to_string(),
                Line::TooLong => "too long".to_owned(),
            });
        }
        assert_eq!(read, ["1", "0", &max.to_string(), "too long", "1", "too long"]);
        assert_eq!(lines.bytes_read(), log.len() as u64);
    }

    #[test]
    fn a_last_line_without_an_end_counts() {
        let mut lines = Lines::new(&b"a\nb"[..]);
        assert!(matches!(lines.next(), Ok(Some(Line::Text(b"a")))));
        assert!(matches!(lines.next(), Ok(Some(Line::Text(b"b")))));
        assert!(matches!(lines.next(), Ok(None)));
    }
}
