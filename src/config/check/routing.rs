//! `[routing]` and `[[plugin]]`.

use std::time::Duration;

use toml::Spanned;

use super::{Checker, items};
use crate::config::STANDARD_RESOLVER;
use crate::config::model::{PluginConfig, Routing, UpstreamConfig};
use crate::config::parse::nearest;
use crate::config::schema::{PluginTable, RoutingTable, Value, Values};
use crate::config::text::As;
use crate::limits::PLUGIN_BUDGET;
use crate::oci::Namespace;

/// Longest hosted pattern, as long as the longest repository name.
const PATTERN_BYTES_MAX: usize = 255;
const BUDGET_MAX: Duration = Duration::from_secs(1);

impl Checker<'_> {
    pub(super) fn routing(
        &mut self,
        table: RoutingTable,
        upstreams: &[UpstreamConfig],
        plugins: &[PluginConfig],
    ) -> Routing {
        let default_upstream =
            table.default_upstream.and_then(|value| self.default_upstream(&value, upstreams));
        Routing {
            resolvers: self.resolvers(table.resolvers, plugins),
            hosted: match table.hosted {
                Some(list) => self.hosted(list.into_inner()),
                None if default_upstream.is_none() => vec!["*".to_owned()],
                None => Vec::new(),
            },
            default_upstream,
        }
    }

    /// The canonical namespace behind what was written; an alias is as good.
    fn default_upstream(
        &mut self,
        value: &Spanned<As<Namespace>>,
        upstreams: &[UpstreamConfig],
    ) -> Option<Namespace> {
        let wanted = &value.get_ref().0;
        let named = |upstream: &&UpstreamConfig| {
            upstream.namespace == *wanted || upstream.aliases.contains(wanted)
        };
        if let Some(upstream) = upstreams.iter().find(named) {
            return Some(upstream.namespace.clone());
        }
        let known = upstreams.iter().map(|upstream| upstream.namespace.as_str());
        let remedy = match nearest(wanted.as_str(), known) {
            Some(namespace) => format!("did you mean \"{namespace}\"?"),
            None => format!("declare it: [[upstream]] namespace = \"{wanted}\""),
        };
        self.refuse(value.span(), "the namespace of an [[upstream]]", format!("{wanted}"), remedy);
        None
    }

    fn resolvers(&mut self, list: Values<String>, plugins: &[PluginConfig]) -> Vec<String> {
        let Some(list) = list else { return vec![STANDARD_RESOLVER.to_owned()] };
        if list.get_ref().is_empty() {
            let remedy = format!("write [\"{STANDARD_RESOLVER}\"]");
            self.refuse(list.span(), "at least one resolver", "an empty list", remedy);
        }
        let mut resolvers: Vec<String> = Vec::new();
        for resolver in items(Some(list)) {
            let name = resolver.get_ref();
            if resolvers.contains(name) {
                self.refuse(resolver.span(), "each resolver once", format!("{name:?} twice"), "");
            }
            let mut known = plugins.iter().map(|plugin| plugin.name.as_str()).collect::<Vec<_>>();
            known.push(STANDARD_RESOLVER);
            if !known.contains(&name.as_str()) {
                let remedy = match nearest(name, known.into_iter()) {
                    Some(known) => format!("did you mean \"{known}\"?"),
                    None => format!("declare it: [[plugin]] name = \"{name}\""),
                };
                let expected = "\"standard\" or the name of a [[plugin]]";
                self.refuse(resolver.span(), expected, format!("{name:?}"), remedy);
            }
            resolvers.push(resolver.into_inner());
        }
        resolvers
    }

    pub(super) fn plugins(&mut self, tables: Vec<Spanned<PluginTable>>) -> Vec<PluginConfig> {
        let mut plugins: Vec<PluginConfig> = Vec::new();
        for table in tables {
            let table = table.into_inner();
            self.name(&table.name);
            let name = table.name.get_ref();
            if name == STANDARD_RESOLVER || plugins.iter().any(|other| other.name == *name) {
                let remedy = "\"standard\" is the built-in resolver, other names are used once";
                self.refuse(table.name.span(), "a name of its own", format!("{name:?}"), remedy);
            }
            if !table.path.get_ref().is_absolute() {
                let found = table.path.get_ref().display().to_string();
                let remedy = "code is not looked up in the working directory";
                self.refuse(table.path.span(), "an absolute path", found, remedy);
            }
            plugins.push(PluginConfig {
                sha256: table.sha256.map(|pin| self.pin(pin)),
                budget: self.budget(table.budget),
                name: table.name.into_inner(),
                path: table.path.into_inner(),
                config: table.config,
            });
        }
        plugins
    }

    fn budget(&mut self, value: Value<As<Duration>>) -> Duration {
        let Some(value) = value else { return PLUGIN_BUDGET };
        let budget = value.get_ref().0;
        if budget.is_zero() || budget > BUDGET_MAX {
            let found = crate::config::format_duration(budget);
            self.refuse(value.span(), "a time from 1us to 1s", found, "");
        }
        budget
    }

    fn pin(&mut self, pin: Spanned<String>) -> String {
        let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if pin.get_ref().len() != 64 || !pin.get_ref().bytes().all(digits) {
            let found = format!("{:?}", pin.get_ref());
            let remedy = "it is what `sha256sum` prints for the file";
            self.refuse(pin.span(), "64 lower-case hex digits", found, remedy);
        }
        pin.into_inner()
    }
}

/// Why `pattern` can match no repository name, if so.
pub(super) fn pattern_fault(pattern: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/*".contains(&b);
    if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
        return Some("1 to 255 characters are allowed");
    }
    if !pattern.bytes().all(allowed) {
        return Some("repository names hold lower-case letters, digits and . _ - / only");
    }
    let empty_segment = pattern.split('/').any(str::is_empty);
    empty_segment.then_some("repository names have no leading, trailing or double slash")
}
