//! Media types of manifests, and the one `Accept` list that we send upstream.

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, version 2, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image manifest, schema 1, unsigned: relayed on pull, refused on push.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Docker image manifest, schema 1, signed: relayed on pull, refused on push.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Content whose type is not known: what blobs are served as.
pub const OCTET_STREAM: &str = "application/octet-stream";
/// Error bodies and tag lists.
pub const JSON: &str = "application/json";

/// The `Accept` value for every manifest request to an upstream.
///
/// It is always the full list, whatever the client accepts: with less, distribution 2.8 answers
/// 404 for OCI manifests, and rewrites schema 2 into schema 1 under another digest. `*/*` is left
/// out because it would permit that rewriting.
pub const MANIFEST_ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.5, \
     application/vnd.docker.distribution.manifest.v1+json;q=0.5";

/// Whether this is a type that a manifest endpoint may serve: an index, a manifest or schema 1.
/// The comparison is exact: `media_type` has no parameters and is in lower case.
pub fn is_manifest_type(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
        || is_index_type(media_type)
        || is_schema1_type(media_type)
}

/// Whether this is a list of manifests: an OCI index or a Docker manifest list.
pub fn is_index_type(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_MANIFEST_LIST)
}

/// Whether this is Docker's legacy schema 1.
pub fn is_schema1_type(media_type: &str) -> bool {
    matches!(media_type, DOCKER_SCHEMA1 | DOCKER_SCHEMA1_SIGNED)
}

/// Whether layers of this type may be pushed nowhere (image-spec, "Non-Distributable Layers"; Docker's
/// foreign layers).
pub fn is_nondistributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
        || media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
}

/// A `Content-Type` value without its parameters and outer white space.
pub fn without_parameters(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_lists_every_manifest_type_and_nothing_else() {
        let listed: Vec<&str> = MANIFEST_ACCEPT.split(", ").map(without_parameters).collect();
        assert!(listed.iter().all(|media_type| is_manifest_type(media_type)));
        let all = [
            OCI_MANIFEST,
            OCI_INDEX,
            DOCKER_MANIFEST,
            DOCKER_MANIFEST_LIST,
            DOCKER_SCHEMA1,
            DOCKER_SCHEMA1_SIGNED,
        ];
        for media_type in all {
            assert_eq!(listed.iter().filter(|one| **one == media_type).count(), 1, "{media_type}");
        }
    }

    #[test]
    fn each_type_is_of_one_kind() {
        let cases = [
            (OCI_INDEX, true, true, false),
            (DOCKER_MANIFEST_LIST, true, true, false),
            (OCI_MANIFEST, true, false, false),
            (DOCKER_MANIFEST, true, false, false),
            (DOCKER_SCHEMA1, true, false, true),
            (DOCKER_SCHEMA1_SIGNED, true, false, true),
            ("text/html", false, false, false),
            (JSON, false, false, false),
            ("", false, false, false),
            ("application/vnd.oci.image.index.v1+json; charset=utf-8", false, false, false),
        ];
        for (media_type, manifest, index, schema1) in cases {
            assert_eq!(is_manifest_type(media_type), manifest, "{media_type}");
            assert_eq!(is_index_type(media_type), index, "{media_type}");
            assert_eq!(is_schema1_type(media_type), schema1, "{media_type}");
        }
    }

    #[test]
    fn parameters_are_dropped() {
        let cases = [("a/b", "a/b"), (" a/b ; charset=utf-8", "a/b"), ("", ""), (";x", "")];
        for (text, expected) in cases {
            assert_eq!(without_parameters(text), expected);
        }
    }
}
