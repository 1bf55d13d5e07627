//! What the query of a push says.

use super::EndpointError;
use super::query::{SlashRule, decode};
use crate::limits::PUSH_TAGS_MAX;
use crate::oci::Tag;

/// The tags that a manifest pushed by digest is to get as well (distribution-spec, "Pushing
/// Manifests"): each value of `tag`, in order, without repetitions.
///
/// # Errors
/// One of them is no tag, or there are more than [`PUSH_TAGS_MAX`].
pub fn tags_of(query: Option<&str>) -> Result<Vec<Tag>, EndpointError> {
    let mut tags = Vec::new();
    for pair in query.unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // As for all other parameters: what cannot be decoded is none of ours.
        if decode(key, SlashRule::Allow).ok().as_deref() != Some("tag") {
            continue;
        }
        let value = decode(value, SlashRule::Allow)?;
        let tag = Tag::parse(&value).map_err(|error| EndpointError::Tag { error, read: false })?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > PUSH_TAGS_MAX {
            return Err(EndpointError::TooManyTags);
        }
    }
    Ok(tags)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown(query: &str) -> Result<Vec<String>, u16> {
        let tags = tags_of(Some(query)).map_err(|error| error.status())?;
        Ok(tags.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn tags_are_read_in_order_once_each_and_not_without_bound() {
        let some = |tags: &[&str]| Ok(tags.iter().map(|tag| (*tag).to_owned()).collect());
        assert_eq!(tags_of(None), Ok(Vec::new()));
        assert_eq!(shown("ns=a.io&n=1&xtag=y"), some(&[]));
        assert_eq!(shown("tag=b&ns=x&tag=a&tag=b"), some(&["b", "a"]));
        assert_eq!(shown("%74ag=v1%2e0"), some(&["v1.0"]));
        assert_eq!(shown("tag="), Err(400));
        assert_eq!(shown("tag"), Err(400));
        assert_eq!(shown("tag=a%2Fb"), Err(400));
        assert_eq!(shown("tag=%zz"), Err(400));
        let many = |count: usize| {
            let tags: Vec<String> = (0..count).map(|n| format!("tag=t{n}")).collect();
            shown(&tags.join("&")).map(|tags| tags.len())
        };
        assert_eq!(many(PUSH_TAGS_MAX), Ok(PUSH_TAGS_MAX));
        assert_eq!(many(PUSH_TAGS_MAX + 1), Err(414));
    }
}
