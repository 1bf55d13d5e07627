//! What is hosted, page by page, as clients list it. Each page is read by its keys: what it costs
//! depends on the page, not on what else there is.

use std::ops::Bound;

use redb::ReadOnlyTable;

use super::record::{BLOBS, LINKS, ScopedKey, TAGS};
use super::{Catalog, CatalogError, LinkRecord, failed};
use crate::oci::{Digest, RepositoryName, Scope, Tag};
use crate::runtime::blocking;

/// Sorts behind every digest and every tag.
const BEHIND_ALL: &str = "\u{7f}";

/// A page of names, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The names.
    pub names: Vec<T>,
    /// Whether there are more behind them.
    pub has_more: bool,
}

/// What a repository has of some content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Which content.
    pub digest: Digest,
    /// Its link, if it is here and in the store.
    pub link: Option<LinkRecord>,
}

impl Catalog {
    /// The next `max` hosted repositories behind `after`, which need not exist. A repository
    /// exists as long as it links something.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn hosted_repositories(
        &self,
        after: Option<String>,
        max: usize,
    ) -> Result<Page<RepositoryName>, CatalogError> {
        let catalog = self.clone();
        let page = blocking(move || catalog.hosted_repositories_now(after, max)).await;
        page.unwrap_or_else(|error| Err(failed(error)))
    }

    /// The same from a thread that may wait.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn hosted_repositories_now(
        &self,
        after: Option<String>,
        max: usize,
    ) -> Result<Page<RepositoryName>, CatalogError> {
        let table = self.snapshot()?.open_table(LINKS).map_err(failed)?;
        let mut page = Page { names: Vec::new(), has_more: false };
        let mut behind = after.unwrap_or_default();
        if max == 0 {
            return Ok(page);
        }
        loop {
            let from = Bound::Excluded(("", behind.as_str(), BEHIND_ALL));
            let Some(next) = first_repository(&table, from)? else { break };
            if page.names.len() == max {
                page.has_more = true;
                break;
            }
            match RepositoryName::parse(&next) {
                Ok(name) => page.names.push(name),
                // It hides no other.
                Err(error) => tracing::warn!(name = next, %error, "a link's record is damaged"),
            }
            behind = next;
        }
        Ok(page)
    }

    /// The next `max` tags of a hosted repository behind `after`, which need not exist. `None`
    /// when there is no such repository.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn hosted_tags(
        &self,
        repository: &RepositoryName,
        after: Option<String>,
        max: usize,
    ) -> Result<Option<Page<Tag>>, CatalogError> {
        let (catalog, repository) = (self.clone(), repository.clone());
        let page = blocking(move || catalog.hosted_tags_now(&repository, after, max)).await;
        page.unwrap_or_else(|error| Err(failed(error)))
    }

    fn hosted_tags_now(
        &self,
        repository: &RepositoryName,
        after: Option<String>,
        max: usize,
    ) -> Result<Option<Page<Tag>>, CatalogError> {
        let snapshot = self.snapshot()?;
        let links = snapshot.open_table(LINKS).map_err(failed)?;
        let name = repository.as_str();
        let first = first_repository(&links, Bound::Excluded(("", name, "")))?;
        if first.as_deref() != Some(name) {
            return Ok(None);
        }
        let mut page = Page { names: Vec::new(), has_more: false };
        let tags = snapshot.open_table(TAGS).map_err(failed)?;
        let after = after.unwrap_or_default();
        let from = Bound::Excluded(("", name, after.as_str()));
        let to = Bound::Excluded(("", name, BEHIND_ALL));
        // Behind all tags a range would begin behind its end.
        if max == 0 || after.as_str() >= BEHIND_ALL {
            return Ok(Some(page));
        }
        for entry in tags.range::<(&str, &str, &str)>((from, to)).map_err(failed)? {
            let (key, _) = entry.map_err(failed)?;
            if page.names.len() == max {
                page.has_more = true;
                break;
            }
            let (_, _, tag) = key.value();
            match Tag::parse(tag) {
                Ok(tag) => page.names.push(tag),
                Err(error) => tracing::warn!(name, tag, %error, "a tag's record is damaged"),
            }
        }
        Ok(Some(page))
    }

    /// What a repository has of each of `digests`, in their order, all at one moment. What is
    /// linked but has no content counts as not there.
    ///
    /// # Errors
    /// The database or a record cannot be read.
    pub async fn find_holdings(
        &self,
        scope: &Scope,
        digests: Vec<Digest>,
    ) -> Result<Vec<Holding>, CatalogError> {
        if digests.is_empty() {
            return Ok(Vec::new());
        }
        let (catalog, scope) = (self.clone(), scope.clone());
        let found = blocking(move || catalog.holdings_now(&scope, digests)).await;
        found.unwrap_or_else(|error| Err(failed(error)))
    }

    fn holdings_now(
        &self,
        scope: &Scope,
        digests: Vec<Digest>,
    ) -> Result<Vec<Holding>, CatalogError> {
        let snapshot = self.snapshot()?;
        let links = snapshot.open_table(LINKS).map_err(failed)?;
        let blobs = snapshot.open_table(BLOBS).map_err(failed)?;
        let (upstream, repository) = (scope.upstream_str(), scope.repository.as_str());
        let mut holdings = Vec::with_capacity(digests.len());
        for digest in digests {
            let text = digest.to_string();
            let key = (upstream, repository, text.as_str());
            let found = links.get(key).map_err(failed)?;
            let is_stored = found.is_some() && blobs.get(text.as_str()).map_err(failed)?.is_some();
            let link = found.filter(|_| is_stored);
            let link = link.map(|value| LinkRecord::read(key, value.value())).transpose()?;
            holdings.push(Holding { digest, link });
        }
        Ok(holdings)
    }
}

/// The first hosted repository from a place on that links something.
fn first_repository(
    links: &ReadOnlyTable<ScopedKey, (&'static str, u64)>,
    from: Bound<(&str, &str, &str)>,
) -> Result<Option<String>, CatalogError> {
    let range = links.range::<(&str, &str, &str)>((from, Bound::Unbounded)).map_err(failed)?;
    let Some(first) = range.into_iter().next().transpose().map_err(failed)? else {
        return Ok(None);
    };
    let (upstream, repository, _) = first.0.value();
    // Hosted links come before all others.
    Ok(upstream.is_empty().then(|| repository.to_owned()))
}
