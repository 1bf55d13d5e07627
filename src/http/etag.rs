//! Entity tags (RFC 9110 §8.8.3). Ours is the content's digest in quotes, a strong validator.

/// Whether `If-None-Match` names the content whose digest is `digest`.
///
/// `if_none_match` is the whole field (several lines joined by commas): `*`, or a list of tags.
/// Compared weakly, as §13.1.2 says. A tag without quotes counts as well: registry clients send
/// the bare digest, and distribution takes it.
pub fn matches(if_none_match: &str, digest: &str) -> bool {
    if if_none_match.trim_matches(WHITE) == "*" {
        return true;
    }
    // No comma can stand in a digest, so a split inside some other quoted tag changes nothing.
    if_none_match.split(',').map(|tag| tag.trim_matches(WHITE)).any(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        unquoted(tag) == digest
    })
}

/// Whether `If-Range` names the content whose digest is `digest`; if not, `Range` is ignored.
///
/// Compared strongly, as §13.1.5 says: a weak tag or a date never matches.
pub fn if_range_matches(if_range: &str, digest: &str) -> bool {
    unquoted(if_range.trim_matches(WHITE)) == digest
}

const WHITE: [char; 2] = [' ', '\t'];

fn unquoted(tag: &str) -> &str {
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aa";

    #[test]
    fn if_none_match_is_a_weak_comparison_with_a_list() {
        let cases = [
            ("\"sha256:aa\"", true),
            ("sha256:aa", true),
            ("W/\"sha256:aa\"", true),
            ("W/sha256:aa", true),
            (" \"x\" , \"sha256:aa\"\t", true),
            ("\"x\",\"sha256:aa\",\"y\"", true),
            ("*", true),
            (" * ", true),
            ("", false),
            ("\"\"", false),
            ("\"sha256:ab\"", false),
            ("\"sha256:aaa\"", false),
            ("\"sha256:a\"", false),
            ("\"SHA256:AA\"", false),
            ("w/\"sha256:aa\"", false),
            ("\"sha256:aa", false),
            ("sha256:aa\"", false),
            ("\"*\"", false),
            ("\"x\", *", false),
        ];
        for (field, expected) in cases {
            assert_eq!(matches(field, DIGEST), expected, "{field:?}");
        }
    }

    #[test]
    fn if_range_is_a_strong_comparison_with_one() {
        let cases = [
            ("\"sha256:aa\"", true),
            ("sha256:aa", true),
            (" \"sha256:aa\" ", true),
            ("W/\"sha256:aa\"", false),
            ("\"sha256:ab\"", false),
            ("\"x\", \"sha256:aa\"", false),
            ("*", false),
            ("", false),
            ("Sun, 06 Nov 1994 08:49:37 GMT", false),
        ];
        for (field, expected) in cases {
            assert_eq!(if_range_matches(field, DIGEST), expected, "{field:?}");
        }
    }
}
