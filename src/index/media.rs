//! Media types as numbers: a link's slot has a byte for one. The numbers are part of the format.

use std::sync::{Arc, LazyLock};

use crate::oci::media_type::{
    DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, OCI_INDEX,
    OCI_MANIFEST,
};

/// Number 1 first; 0 is "none". Append only.
pub(super) const KNOWN: [&str; 6] = [
    OCI_MANIFEST,
    OCI_INDEX,
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    DOCKER_SCHEMA1,
    DOCKER_SCHEMA1_SIGNED,
];

// Shared, so that a look-up does not allocate.
static TEXTS: LazyLock<[Arc<str>; KNOWN.len()]> = LazyLock::new(|| KNOWN.map(Arc::from));

/// The number of a type; `None` for one that has none.
pub(super) fn number(media_type: Option<&str>) -> Option<u8> {
    let Some(media_type) = media_type else { return Some(0) };
    let at = KNOWN.iter().position(|known| *known == media_type)?;
    u8::try_from(at + 1).ok()
}

/// The type of a number; outer `None` for a number that nobody wrote.
pub(super) fn text(number: u8) -> Option<Option<Arc<str>>> {
    match usize::from(number).checked_sub(1) {
        None => Some(None),
        Some(at) => TEXTS.get(at).map(|text| Some(text.clone())),
    }
}
