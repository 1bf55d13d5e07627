//! The rules of hosted repositories, as the configuration of now has them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{Config, HostedRule};
use crate::oci::RepositoryName;

/// Shared by all who go by them. A reload replaces them for all at once.
#[derive(Clone)]
pub struct HostedRules(Arc<ArcSwap<Rules>>);

struct Rules {
    declared: Vec<Arc<HostedRule>>,
    otherwise: Arc<HostedRule>,
}

impl HostedRules {
    /// Those of this configuration.
    pub fn new(config: &Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Rules::of(config))))
    }

    /// Goes on with those of another one.
    pub fn replace(&self, config: &Config) {
        self.0.store(Arc::new(Rules::of(config)));
    }

    /// The rule that decides about a repository: as [`Config::hosted_rule`].
    pub fn of(&self, repository: &RepositoryName) -> Arc<HostedRule> {
        let rules = self.0.load();
        let decides = |rule: &&Arc<HostedRule>| rule.pattern_for(repository).is_some();
        rules.declared.iter().find(decides).unwrap_or(&rules.otherwise).clone()
    }
}

impl Rules {
    fn of(config: &Config) -> Self {
        Self {
            declared: config.hosted.iter().cloned().map(Arc::new).collect(),
            otherwise: Arc::new(config.hosted_otherwise.clone()),
        }
    }
}
