//! The declared upstreams, by every name that means one.

use std::collections::HashMap;

use ringport_plugin_sdk::Setup;

/// Docker Hub: its official images are `library/<name>` behind a one-segment name.
pub(crate) const DOCKER_HUB: &str = "docker.io";
/// Its other names; the host knows them too, but only where it is declared.
const DOCKER_HUB_ALIASES: [&str; 3] =
    ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

#[derive(Debug)]
pub(crate) struct Upstreams {
    canonical: HashMap<String, String>,
    credentials: HashMap<String, Vec<String>>,
}

impl Upstreams {
    pub(crate) fn new(setup: &Setup<'_>) -> Upstreams {
        let (mut canonical, mut credentials) = (HashMap::new(), HashMap::new());
        for upstream in &setup.upstreams {
            let name = upstream.canonical_name;
            for alias in upstream.aliases.iter().chain([&name]) {
                canonical.insert((*alias).to_owned(), name.to_owned());
            }
            let named = upstream.credentials.iter().map(|c| (*c).to_owned()).collect();
            credentials.insert(name.to_owned(), named);
        }
        Upstreams { canonical, credentials }
    }

    /// The canonical name of a declared upstream.
    pub(crate) fn find(&self, namespace: &str) -> Option<&str> {
        self.canonical.get(namespace).map(String::as_str)
    }

    /// How images of this namespace are called in rules: by the canonical name, also where nobody
    /// declared it.
    pub(crate) fn called<'a>(&'a self, namespace: &'a str) -> &'a str {
        match self.find(namespace) {
            Some(canonical) => canonical,
            None if DOCKER_HUB_ALIASES.contains(&namespace) => DOCKER_HUB,
            None => namespace,
        }
    }

    /// The logins of an upstream, by its canonical name.
    pub(crate) fn credentials(&self, canonical_name: &str) -> &[String] {
        self.credentials.get(canonical_name).map_or(&[], Vec::as_slice)
    }
}
