//! The lists of rules, ready to be asked; within each the first that matches decides.

use std::net::IpAddr;

use ringport_plugin_sdk::names::looks_like_host;
use ringport_plugin_sdk::{By, Kind, Refusal, Request};

use crate::config::{self, Action, Config, Pattern, Range};
use crate::upstreams::Upstreams;

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// `docker.io/library/alpine`, or `team/app` of a hosted one.
    pub(crate) image: &'a str,
    client: Option<IpAddr>,
    principal: Option<&'a str>,
    /// Of a manifest that is asked for by tag.
    tag: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(image: &'a str, request: &Request<'a>) -> Asked<'a> {
        let is_tag = request.kind == Kind::Manifest && !request.reference.contains(':');
        Asked {
            image,
            client: request.client,
            principal: request.principal,
            tag: is_tag.then_some(request.reference),
        }
    }
}

/// Which requests a rule is about. A list that is empty asks for nothing; of another one entry
/// must match. All lists must.
#[derive(Debug)]
struct Condition {
    images: Vec<Pattern>,
    clients: Vec<Range>,
    principals: Vec<Pattern>,
}

impl Condition {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        let client = |range: &Range| asked.client.is_some_and(|client| range.contains(client));
        let principal = |p: &Pattern| asked.principal.is_some_and(|name| p.matches(name));
        (self.images.is_empty() || self.images.iter().any(|p| p.matches(asked.image)))
            && (self.clients.is_empty() || self.clients.iter().any(client))
            && (self.principals.is_empty() || self.principals.iter().any(principal))
    }

    /// What an answer depends on that this condition had a part in.
    fn depends_on(&self) -> By {
        let part = |is_empty: bool, by: By| if is_empty { By::NAME } else { by };
        part(self.clients.is_empty(), By::CLIENT) | part(self.principals.is_empty(), By::PRINCIPAL)
    }
}

/// Who may have what.
#[derive(Debug)]
pub(crate) struct Access {
    condition: Condition,
    action: Action,
    /// What the client is told after the image's name.
    refusal: String,
}

/// One name for another: `*` takes along what it stood for.
#[derive(Debug)]
pub(crate) struct Rewrite {
    condition: Condition,
    from: Star,
    /// Canonical.
    pub(crate) upstream: String,
    pub(crate) to: Star,
    pub(crate) rule: String,
}

/// A text with one `*` in it or none.
#[derive(Debug)]
pub(crate) struct Star {
    pub(crate) before: String,
    pub(crate) after: Option<String>,
}

/// The login for some requests to one upstream.
#[derive(Debug)]
pub(crate) struct Credential {
    condition: Condition,
    /// Canonical.
    upstream: String,
    pub(crate) name: String,
    pub(crate) rule: String,
}

/// How tags change.
#[derive(Debug)]
pub(crate) struct Tags {
    condition: Condition,
    tags: Vec<Pattern>,
    pub(crate) is_immutable: bool,
    pub(crate) tag_ttl_ms: Option<u64>,
    pub(crate) stale_max_ms: Option<u64>,
    pub(crate) rule: String,
}

/// All lists.
#[derive(Debug)]
pub(crate) struct Rules {
    access: Vec<Access>,
    rewrites: Vec<Rewrite>,
    credentials: Vec<Credential>,
    tags: Vec<Tags>,
    depends_on: By,
}

impl Rules {
    /// Checks what the single values could not show. Errors name the key.
    pub(crate) fn new(config: Config, upstreams: &Upstreams) -> Result<Rules, Refusal> {
        let numbered = |list: &str, index: usize| format!("{list}[{index}]");
        let mut rules = Rules {
            access: Vec::new(),
            rewrites: Vec::new(),
            credentials: Vec::new(),
            tags: Vec::new(),
            depends_on: By::NAME,
        };
        for (index, entry) in config.access.into_iter().enumerate() {
            let key = numbered("access", index);
            rules.access.push(Access::new(entry, &key, upstreams)?);
        }
        for (index, entry) in config.rewrite.into_iter().enumerate() {
            let key = numbered("rewrite", index);
            rules.rewrites.push(Rewrite::new(entry, &key, upstreams)?);
        }
        for (index, entry) in config.credential.into_iter().enumerate() {
            let key = numbered("credential", index);
            rules.credentials.push(Credential::new(entry, &key, upstreams)?);
        }
        for (index, entry) in config.tags.into_iter().enumerate() {
            rules.tags.push(Tags::new(entry, &numbered("tags", index), upstreams)?);
        }
        let access = rules.access.iter().map(|rule| &rule.condition);
        let rewrites = rules.rewrites.iter().map(|rule| &rule.condition);
        let credentials = rules.credentials.iter().map(|rule| &rule.condition);
        rules.depends_on = access
            .chain(rewrites)
            .chain(credentials)
            .fold(By::NAME, |by, condition| by | condition.depends_on());
        Ok(rules)
    }

    /// What the answer to this request depends on.
    pub(crate) fn depends_on(&self, kind: Kind) -> By {
        match (self.tags.is_empty(), kind) {
            (true, _) => self.depends_on,
            (false, Kind::Manifest) => self.depends_on | By::KIND | By::REFERENCE,
            // Blobs, of which there are most, have no tags to look at.
            (false, _) => self.depends_on | By::KIND,
        }
    }

    /// # Errors
    /// The refusal of the rule that denies it.
    pub(crate) fn check_access(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        match self.access.iter().find(|rule| rule.condition.matches(asked)) {
            Some(Access { action: Action::Deny, refusal, .. }) => {
                Err(Refusal::denied(format!("{} {refusal}", asked.image)))
            }
            _ => Ok(()),
        }
    }

    /// The rewrite, and what its `*` stands for.
    pub(crate) fn rewrite<'a>(&self, asked: &Asked<'a>) -> Option<(&Rewrite, &'a str)> {
        self.rewrites.iter().find_map(|rule| {
            let taken = rule.from.matches(asked.image)?;
            rule.condition.matches(asked).then_some((rule, taken))
        })
    }

    pub(crate) fn credential(&self, asked: &Asked<'_>, upstream: &str) -> Option<&Credential> {
        let applies =
            |rule: &&Credential| rule.upstream == upstream && rule.condition.matches(asked);
        self.credentials.iter().find(applies)
    }

    pub(crate) fn tags(&self, asked: &Asked<'_>) -> Option<&Tags> {
        let tag = asked.tag?;
        let is_listed =
            |rule: &Tags| rule.tags.is_empty() || rule.tags.iter().any(|p| p.matches(tag));
        self.tags.iter().find(|rule| is_listed(rule) && rule.condition.matches(asked))
    }
}

impl Access {
    fn new(entry: config::Access, key: &str, upstreams: &Upstreams) -> Result<Access, Refusal> {
        let config::Access { action, images, clients, principals, reason } = entry;
        if action == Action::Allow && reason.is_some() {
            let message = format!("key `{key}.reason`: only who is denied is told a reason");
            return Err(Refusal::invalid(message));
        }
        check_images(&images, key, upstreams)?;
        let refusal = match reason {
            Some(reason) => format!("is not allowed here: {reason}"),
            None => format!("is not allowed here ({key} of the mirror's policy)"),
        };
        Ok(Access { condition: Condition { images, clients, principals }, action, refusal })
    }
}

impl Rewrite {
    fn new(entry: config::Rewrite, key: &str, upstreams: &Upstreams) -> Result<Rewrite, Refusal> {
        let config::Rewrite { from, to, clients, principals } = entry;
        let invalid =
            |part: &str, what: &str| Err(Refusal::invalid(format!("key `{key}.{part}`: {what}")));
        let Some(from_star) = Star::new(&from) else {
            return invalid("from", "one `*` at most, as in \"docker.io/*\"");
        };
        check_name(&from_star.before, &from, &format!("{key}.from"), upstreams)?;
        let Some((namespace, repository)) = to.split_once('/') else {
            return invalid("to", "expected UPSTREAM/REPOSITORY, as in \"registry.corp/hub/*\"");
        };
        let Some(upstream) = upstreams.find(namespace) else {
            return invalid(
                "to",
                &format!("declare [[upstream]] namespace = \"{namespace}\" first"),
            );
        };
        let Some(to_star) = Star::new(repository).filter(|_| !repository.is_empty()) else {
            return invalid("to", "one `*` at most, as in \"registry.corp/hub/*\"");
        };
        if from_star.after.is_some() != to_star.after.is_some() {
            return invalid("to", "a `*` in `from` and in `to`, or in neither of them");
        }
        let condition = Condition { images: Vec::new(), clients, principals };
        let rule = format!("rewrite {from} -> {to}");
        Ok(Rewrite { condition, from: from_star, upstream: upstream.to_owned(), to: to_star, rule })
    }
}

impl Star {
    fn new(text: &str) -> Option<Star> {
        let mut parts = text.split('*').map(str::to_owned);
        let star = Star { before: parts.next().unwrap_or_default(), after: parts.next() };
        parts.next().is_none().then_some(star)
    }

    /// What the `*` stands for in `text`; nothing at all when there is none.
    fn matches<'a>(&self, text: &'a str) -> Option<&'a str> {
        let rest = text.strip_prefix(self.before.as_str())?;
        match &self.after {
            Some(after) => rest.strip_suffix(after.as_str()),
            None => rest.is_empty().then_some(rest),
        }
    }
}

impl Credential {
    fn new(
        entry: config::Credential,
        key: &str,
        upstreams: &Upstreams,
    ) -> Result<Credential, Refusal> {
        let config::Credential { upstream, name, images, clients, principals } = entry;
        let Some(canonical) = upstreams.find(&upstream) else {
            return Err(Refusal::invalid(format!(
                "key `{key}.upstream`: declare [[upstream]] namespace = \"{upstream}\" first"
            )));
        };
        let known = upstreams.credentials(canonical);
        if !known.contains(&name) {
            return Err(Refusal::invalid(format!(
                "key `{key}.name`: the upstream {canonical} has no [[upstream.credential]] called \
                 {name} (it has: {})",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )));
        }
        check_images(&images, key, upstreams)?;
        let condition = Condition { images, clients, principals };
        let rule = format!("login {name}");
        Ok(Credential { condition, upstream: canonical.to_owned(), name, rule })
    }
}

impl Tags {
    fn new(entry: config::Tags, key: &str, upstreams: &Upstreams) -> Result<Tags, Refusal> {
        let config::Tags { images, tags, immutable, tag_ttl, stale_max } = entry;
        if !immutable && tag_ttl.is_none() && stale_max.is_none() {
            return Err(Refusal::invalid(format!(
                "key `{key}`: it says nothing; expected `immutable = true`, `tag_ttl` or \
                 `stale_max`"
            )));
        }
        if immutable && (tag_ttl.is_some() || stale_max.is_some()) {
            return Err(Refusal::invalid(format!(
                "key `{key}`: what is immutable is never asked for again, so `tag_ttl` and \
                 `stale_max` mean nothing"
            )));
        }
        check_images(&images, key, upstreams)?;
        Ok(Tags {
            condition: Condition { images, clients: Vec::new(), principals: Vec::new() },
            tags,
            is_immutable: immutable,
            tag_ttl_ms: tag_ttl.map(config::Time::as_millis),
            stale_max_ms: stale_max.map(config::Time::as_millis),
            rule: format!("{key}{}", if immutable { ": immutable" } else { "" }),
        })
    }
}

fn check_images(images: &[Pattern], key: &str, upstreams: &Upstreams) -> Result<(), Refusal> {
    for (index, pattern) in images.iter().enumerate() {
        let key = format!("{key}.images[{index}]");
        check_name(pattern.literal(), pattern.as_str(), &key, upstreams)?;
    }
    Ok(())
}

/// Refuses what can match no image: an alias where the canonical name stands in images, and a
/// registry without a repository.
fn check_name(literal: &str, whole: &str, key: &str, upstreams: &Upstreams) -> Result<(), Refusal> {
    let refused = |what: String| Err(Refusal::invalid(format!("key `{key}`: {what}")));
    match literal.split_once('/') {
        Some((namespace, rest)) => {
            let called = upstreams.called(namespace);
            if called != namespace {
                return refused(format!("in images {namespace} is called {called}; write that"));
            }
            let official = called == crate::upstreams::DOCKER_HUB
                && !whole.contains(['*', '?', '['])
                && !rest.contains('/');
            if official {
                return refused(format!("write docker.io/library/{rest}, as Docker Hub calls it"));
            }
            Ok(())
        }
        None if literal == whole && looks_like_host(whole) => {
            refused(format!("{whole} is a registry and no image; write \"{whole}/*\""))
        }
        None => Ok(()),
    }
}
