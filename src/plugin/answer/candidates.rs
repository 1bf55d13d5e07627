//! The candidates of the call at hand.

use std::mem::swap;

use ringport_plugin_abi as abi;

use super::recycled::SeenNames;
use super::text::shorter_than;
use crate::oci::{Namespace, RepositoryName};
use crate::plugin::Candidate;

/// Candidates in the order in which they were emitted. Behind them stand those of an earlier
/// answer: where one of them says what is emitted now, it stays as it is, and the counts of its
/// two shared texts are neither raised nor lowered.
#[derive(Debug, Default)]
pub(super) struct Drafted {
    list: Vec<Candidate>,
    /// How many of them belong to the call at hand.
    count: usize,
}

/// The repository of the next candidate.
pub(super) enum Named {
    /// That which stands there from an earlier answer.
    AsBefore,
    Other(RepositoryName),
}

impl Drafted {
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The repository for the next [`Drafted::add`], if that is a name.
    pub(super) fn name(&self, text: &[u8], names: &mut SeenNames) -> Option<Named> {
        match self.list.get(self.count) {
            Some(before) if before.repository.as_str().as_bytes() == text => Some(Named::AsBefore),
            _ => names.get(shorter_than(text, abi::REPOSITORY_BYTES_MAX)?).map(Named::Other),
        }
    }

    /// Adds a candidate that is not there yet; `false` when there are as many as there may be.
    pub(super) fn add(&mut self, upstream: &Namespace, repository: Named) -> bool {
        let count = self.count.min(self.list.len());
        let (given, before) = self.list.split_at_mut(count);
        let before = before.first_mut();
        let name = match (&repository, &before) {
            (Named::Other(name), _) => name,
            (Named::AsBefore, Some(before)) => &before.repository,
            (Named::AsBefore, None) => return false,
        };
        if given.iter().any(|one| one.upstream == *upstream && one.repository == *name) {
            return true;
        }
        if given.len() == abi::CANDIDATES_MAX {
            return false;
        }
        match (before, repository) {
            (Some(before), repository) => {
                if before.upstream != *upstream {
                    before.upstream = upstream.clone();
                }
                if let Named::Other(name) = repository {
                    before.repository = name;
                }
            }
            (None, Named::Other(repository)) => {
                self.list.push(Candidate { upstream: upstream.clone(), repository });
            }
            (None, Named::AsBefore) => return false,
        }
        self.count += 1;
        true
    }

    /// Whether they are these.
    pub(super) fn are(&self, list: &[Candidate]) -> bool {
        self.list.get(..self.count) == Some(list)
    }

    /// Exchanges them for `list`, whose candidates are from an earlier answer.
    pub(super) fn give_for(&mut self, list: &mut Vec<Candidate>) {
        self.list.truncate(self.count);
        self.count = 0;
        swap(list, &mut self.list);
    }
}
