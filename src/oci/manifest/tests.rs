use super::*;
use crate::oci::Algorithm;
use media_type::{
    DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_SCHEMA1_SIGNED, OCI_INDEX, OCI_MANIFEST,
};

fn descriptor(content: &str, size: u64) -> String {
    let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
    format!(r#"{{"mediaType":"a/{content}","digest":"{digest}","size":{size}}}"#)
}

fn image(extra: &str) -> String {
    let (config, layer) = (descriptor("c", 2), descriptor("l", 3));
    format!(r#"{{"schemaVersion":2,{extra}"config":{config},"layers":[{layer},{layer}]}}"#)
}

fn index(extra: &str) -> String {
    format!(r#"{{"schemaVersion":2,{extra}"manifests":[{}]}}"#, descriptor("m", 4))
}

const SCHEMA1: &str = r#"{"schemaVersion":1,"name":"x","fsLayers":[{"blobSum":"sha256:0"}],
    "history":[{"v1Compatibility":"{}"}],"signatures":[]}"#;

fn check(text: &str, content_type: &str) -> Result<Manifest, ManifestError> {
    Manifest::check(text.as_bytes(), content_type)
}

#[test]
fn each_kind_yields_its_descriptors() {
    let own_type = format!(r#""mediaType":"{OCI_MANIFEST}","#);
    let cases = [
        (image(""), OCI_MANIFEST, vec![2, 3, 3]),
        (image(&own_type), OCI_MANIFEST, vec![2, 3, 3]),
        (image(""), DOCKER_MANIFEST, vec![2, 3, 3]),
        (index(""), OCI_INDEX, vec![4]),
        (index(""), DOCKER_MANIFEST_LIST, vec![4]),
        (SCHEMA1.to_owned(), DOCKER_SCHEMA1_SIGNED, vec![]),
        (r#"{"manifests":[]}"#.to_owned(), OCI_INDEX, vec![]),
        (r#"{"manifests":null}"#.to_owned(), OCI_INDEX, vec![]),
    ];
    for (text, media_type, sizes) in cases {
        let manifest = check(&text, media_type).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(manifest.media_type, media_type);
        let found: Vec<u64> = manifest.descriptors.iter().map(|one| one.size).collect();
        assert_eq!(found, sizes, "{text}");
        assert!(manifest.subject.is_none());
    }
}

#[test]
fn parameters_of_the_content_type_are_dropped() {
    let manifest = check(&index(""), &format!("{OCI_INDEX}; charset=utf-8")).unwrap();
    assert_eq!(manifest.media_type, OCI_INDEX);
}

#[test]
fn artifact_fields_are_kept() {
    let subject = descriptor("s", 9);
    let extra = format!(
        r#""artifactType":"a/sbom","subject":{subject},"annotations":{{"b":"1","a":"\u0041"}},"#
    );
    let manifest = check(&image(&extra), OCI_MANIFEST).unwrap();
    assert_eq!(manifest.artifact_type.as_deref(), Some("a/sbom"));
    assert_eq!(manifest.annotations.as_deref(), Some(r#"{"b":"1","a":"\u0041"}"#));
    let subject = manifest.subject.unwrap();
    assert_eq!(subject.digest, Digest::of(Algorithm::Sha256, b"s"));
    assert_eq!((subject.size, subject.media_type.as_str()), (9, "a/s"));
    // Without artifactType the config's type stands for it; an index has no config.
    let manifest = check(&image(r#""artifactType":"","#), OCI_MANIFEST).unwrap();
    assert_eq!(manifest.artifact_type.as_deref(), Some("a/c"));
    assert_eq!(check(&index(""), OCI_INDEX).unwrap().artifact_type, None);
}

/// The variant's name, to compare errors that hold foreign types.
fn variant(error: &ManifestError) -> String {
    format!("{error:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

#[test]
fn what_is_not_exactly_one_manifest_is_refused() {
    let layer = descriptor("l", 1);
    let cases = [
        ("<html></html>".into(), "text/html", "NotManifestType"),
        (image(""), "application/json", "NotManifestType"),
        (image(""), "", "NotManifestType"),
        (image(""), "text/plain; charset=utf-8", "NotManifestType"),
        (String::new(), OCI_MANIFEST, "Json"),
        ("[]".into(), OCI_MANIFEST, "Json"),
        ("null".into(), OCI_MANIFEST, "Json"),
        ("\"x\"".into(), OCI_MANIFEST, "Json"),
        (image("") + "{}", OCI_MANIFEST, "Json"),
        (image("").replace(":3}", ":-3}"), OCI_MANIFEST, "Json"),
        (image("").replace(":3}", ":3.5}"), OCI_MANIFEST, "Json"),
        (image("").replace(":3}", ":18446744073709551616}"), OCI_MANIFEST, "Json"),
        (image("").replace("\"size\":3", "\"size\":3,\"size\":4"), OCI_MANIFEST, "Json"),
        (image("").replace("\"digest\"", "\"x\""), OCI_MANIFEST, "Json"),
        (image(r#""annotations":{"a":"#), OCI_MANIFEST, "Json"),
        (image(r#""mediaType":7,"#), OCI_MANIFEST, "Json"),
        (image("").replace("sha256:", "sha256:../"), OCI_MANIFEST, "Digest"),
        (image("").replace("sha256:", "md5:"), OCI_MANIFEST, "Digest"),
        (image(&format!(r#""mediaType":"{OCI_INDEX}","#)), OCI_MANIFEST, "MediaTypeDiffers"),
        (image(&format!(r#""mediaType":"{DOCKER_MANIFEST}","#)), OCI_MANIFEST, "MediaTypeDiffers"),
        (index(&format!(r#""mediaType":"{OCI_MANIFEST}","#)), OCI_INDEX, "MediaTypeDiffers"),
        (image(r#""mediaType":"","#), OCI_MANIFEST, "MediaTypeDiffers"),
        (image(r#""manifests":[],"#), OCI_MANIFEST, "ForeignField"),
        (image(r#""manifests":null,"#), OCI_MANIFEST, "ForeignField"),
        (image(r#""fsLayers":[],"#), DOCKER_MANIFEST, "ForeignField"),
        (index(&format!(r#""layers":[{layer}],"#)), OCI_INDEX, "ForeignField"),
        (index(&format!(r#""config":{layer},"#)), OCI_INDEX, "ForeignField"),
        (index(r#""\u006cayers":[],"#), OCI_INDEX, "ForeignField"),
        (image(""), DOCKER_SCHEMA1_SIGNED, "ForeignField"),
        (index(""), OCI_MANIFEST, "ForeignField"),
        ("{}".into(), OCI_MANIFEST, "MissingField"),
        ("{}".into(), OCI_INDEX, "MissingField"),
        (format!(r#"{{"config":{layer}}}"#), OCI_MANIFEST, "MissingField"),
        (image(r#""MediaType":"x","#), OCI_MANIFEST, "AmbiguousField"),
        (index(r#""Manifests":[],"#), OCI_INDEX, "AmbiguousField"),
        (index(r#""layer\u017f":[],"#), OCI_INDEX, "AmbiguousField"),
        (image(r#""layers":[],"#), OCI_MANIFEST, "RepeatedField"),
        (image(r#""x":1,"x":2,"#), OCI_MANIFEST, "RepeatedField"),
        (image(r#""lay\u0065rs":[],"#), OCI_MANIFEST, "RepeatedField"),
        (image("").replace(":2,", ":1,"), OCI_MANIFEST, "SchemaVersion"),
        (SCHEMA1.replace(":1,", ":2,"), DOCKER_SCHEMA1_SIGNED, "SchemaVersion"),
    ];
    for (text, content_type, expected) in cases {
        let error = check(&text, content_type).expect_err(&text);
        assert_eq!(variant(&error), expected, "{text} as {content_type}: {error}");
        assert!(error.to_string().len() < 400);
    }
}

#[test]
fn size_is_bounded_and_the_bound_itself_is_allowed() {
    let pad = |total: usize| {
        let text = index("");
        let padding = " ".repeat(total - text.len());
        text + &padding
    };
    assert!(check(&pad(MANIFEST_BYTES_MAX), OCI_INDEX).is_ok());
    let error = check(&pad(MANIFEST_BYTES_MAX + 1), OCI_INDEX).unwrap_err();
    assert!(matches!(error, ManifestError::TooLarge(4_194_305)), "{error}");
}

#[test]
fn depth_and_bad_utf8_end_in_an_error() {
    let deep = format!(r#""x":{}"#, "[".repeat(1 << 20));
    assert!(check(&image(&deep), OCI_MANIFEST).is_err());
    let deep = format!(r#""annotations":{}1{},"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
    let _no_overflow = check(&image(&deep), OCI_MANIFEST);
    assert!(Manifest::check(b"{\"manifests\":[],\"x\":\"\xff\"}", OCI_INDEX).is_err());
}
