use super::*;
use crate::oci::Algorithm;

fn scope(upstream: Option<&str>, repository: &str) -> Scope {
    Scope {
        upstream: upstream.map(|text| Namespace::parse(text).unwrap()),
        repository: RepositoryName::parse(repository).unwrap(),
    }
}

#[test]
fn a_key_that_is_remembered_is_the_one_that_would_be_made() {
    let tags = ["v1", "v2", "v1", "v1"].map(|text| Tag::parse(text).unwrap());
    let contents: [&[u8]; 5] = [b"a", b"b", b"b", b"a", b"a"];
    for scope in [scope(None, "a/b"), scope(Some("a"), "b"), scope(Some("a.example"), "b/c")] {
        let keyed = KeyedScope::new(scope.clone());
        assert_eq!(keyed.scope(), &scope);
        for tag in &tags {
            assert_eq!(keyed.tag_key(tag), scope.tag_key(tag), "{scope}:{tag}");
            // Another one of the same text.
            let again = Tag::parse(tag.as_str()).unwrap();
            assert_eq!(keyed.tag_key(&again), scope.tag_key(tag), "{scope}:{tag}");
        }
        for content in contents {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let digest = Digest::of(algorithm, content);
                assert_eq!(keyed.link_key(&digest), scope.link_key(&digest), "{scope} {digest}");
            }
        }
    }
}

#[test]
fn names_of_other_scopes_and_kinds_have_other_keys() {
    let tag = Tag::parse("v1").unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"x");
    let mut keys: Vec<ScopeKey> = Vec::new();
    // What stands on either side of a border moves over it.
    for (upstream, repository) in
        [(None, "a/b"), (Some("a"), "b"), (Some("a"), "b/b"), (Some("a.b"), "b"), (None, "ab")]
    {
        let scope = scope(upstream, repository);
        keys.extend([scope.tag_key(&tag), scope.document_key("v1")]);
        keys.extend([scope.link_key(&digest), scope.blob_key(&digest)]);
    }
    for (n, key) in keys.iter().enumerate() {
        assert!(!keys[..n].contains(key), "key {n} is there already");
    }
}
