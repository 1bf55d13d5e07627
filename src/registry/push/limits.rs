//! What the rule of a repository asks of a push or a delete: its tags, and how much it may hold.
//!
//! The catalog judges it in the transaction that would break it, so that no two pushes together
//! come to more than each of them may.

use super::PushError;
use crate::catalog::{Condition, Unmet};
use crate::config::HostedRule;
use crate::oci::{Digest, Scope, Tag};
use crate::registry::state::Shared;

/// What must hold for content and tags that come into this repository.
pub(super) fn within(rule: &HostedRule, scope: &Scope) -> Option<Condition> {
    let tags_max = rule.max_tags.map(|max| max as u64);
    let bytes_max = rule.max_size;
    let is_limited = tags_max.is_some() || bytes_max.is_some();
    is_limited.then(|| Condition::Within { scope: scope.clone(), tags_max, bytes_max })
}

/// What must hold for tags to be bound: those that stay what they are do.
pub(super) fn bound(
    rule: &HostedRule,
    scope: &Scope,
    tags: &[Tag],
    digest: &Digest,
) -> Vec<Condition> {
    let immutable = tags.iter().filter(|tag| rule.immutable_pattern_for(tag).is_some());
    let stays =
        |tag: &Tag| Condition::TagStays { scope: scope.clone(), tag: tag.clone(), digest: *digest };
    immutable.map(stays).collect()
}

/// Refuses to delete tags that stay what they are.
///
/// # Errors
/// [`PushError::Denied`].
pub(super) fn may_go(rule: &HostedRule, scope: &Scope, tags: &[Tag]) -> Result<(), PushError> {
    let first = tags.iter().find_map(|tag| Some((tag, rule.immutable_pattern_for(tag)?)));
    match first {
        None => Ok(()),
        Some((tag, pattern)) => Err(PushError::Denied(format!(
            "tag {tag} of {scope} cannot be deleted: it matches {pattern:?} of immutable_tags in \
             its [[hosted]] rule"
        ))),
    }
}

/// Refuses an upload to a repository that is full already, before its bytes come.
///
/// # Errors
/// [`PushError::Denied`], or the catalog cannot be read.
pub(super) async fn refuse_if_full(shared: &Shared, scope: &Scope) -> Result<(), PushError> {
    let rule = shared.rules.of(&scope.repository);
    let Some(max) = rule.max_size else { return Ok(()) };
    let usage = shared.catalog.find_usage(scope).await?;
    if usage.bytes < max {
        return Ok(());
    }
    Err(denied(&Unmet::Bytes { scope: scope.clone(), bytes: usage.bytes, max }))
}

/// The sentence for people.
pub(super) fn denied(unmet: &Unmet) -> PushError {
    PushError::Denied(match unmet {
        Unmet::TagStays { .. } => format!(
            "{unmet}, and matches immutable_tags of its [[hosted]] rule; push under another tag"
        ),
        Unmet::Tags { .. } => {
            format!("{unmet} (max_tags of its [[hosted]] rule); delete some, or reuse one")
        }
        Unmet::Bytes { .. } => format!(
            "{unmet} (max_size of its [[hosted]] rule); delete something and have `ringport gc` \
             free it"
        ),
        Unmet::TagsAre { .. } => unmet.to_string(),
    })
}
