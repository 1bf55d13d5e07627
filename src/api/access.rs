//! Who may do what: the one check of every request, before any handler.
//!
//! ```text
//! identify   Authorization, certificate → Principal, or 401
//! check      verb × rule of the name × Principal → go on, 401 or 403
//! ```
//!
//! What a rule says depends on the name alone, and is said before anything is looked up: who may not
//! pull a name gets the same answer whether there is such a thing or not.

use std::sync::Arc;

use super::peer::Peer;
use super::refusal::Refusal;
use crate::auth::{AuthError, Authenticator, Principal, Verb};
use crate::config::{Config, Subject};
use crate::http::RequestHead;
use crate::oci::{Endpoint, ErrorCode, Namespace, RepositoryName};
use crate::plugin::Route;

/// Who may do what, as configured; made anew at a reload.
pub struct Rules {
    config: Arc<Config>,
    /// Everyone may pull everything: nothing has to be looked up.
    all_may_pull: bool,
    /// Everyone may pull something.
    some_may_pull: bool,
}

/// The check, as one worker makes it.
pub(super) struct Access {
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) rules: Arc<Rules>,
}

/// What is to be done with which name.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) verb: Verb,
    /// As the client writes it.
    pub(super) name: &'a str,
    pub(super) target: Place<'a>,
}

/// Where the rule for a wish stands.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Routed(&'a Route),
    Hosted(&'a RepositoryName),
    Catalog,
}

impl Rules {
    /// Those of this configuration.
    pub fn new(config: Arc<Config>) -> Arc<Self> {
        let open = |who: &[Subject]| who.contains(&Subject::Anonymous);
        let upstreams = || config.upstreams.iter().map(|upstream| open(&upstream.pull));
        // The built-in rule lets everyone pull, so that it takes nothing from the first, and counts
        // for the second where anything can be hosted beside the rules of the file.
        let hosted = || config.hosted.iter().map(|rule| open(&rule.pull));
        let all = |rule: &&crate::config::HostedRule| rule.repositories.iter().any(|p| p == "*");
        let has_others = config.hosted.iter().find(all).is_none();
        let is_hosting = !config.routing.hosted.is_empty();
        let all_may_pull = upstreams().chain(hosted()).all(|is_open| is_open);
        let some_hosted = is_hosting && (has_others || hosted().any(|is_open| is_open));
        let some_may_pull = some_hosted || upstreams().any(|is_open| is_open);
        Arc::new(Self { all_may_pull, some_may_pull, config })
    }

    /// Who may do this with a hosted repository.
    fn of_hosted(&self, verb: Verb, repository: &RepositoryName) -> &[Subject] {
        let rule = self.config.hosted_rule(repository);
        match verb {
            Verb::Pull => &rule.pull,
            Verb::Push => &rule.push,
            Verb::Delete => &rule.delete,
            Verb::Catalog => &[],
        }
    }

    /// Who may pull from an upstream. One that a reload has taken out is nobody's.
    fn of_upstream(&self, upstream: &Namespace) -> &[Subject] {
        self.config.upstream(upstream).map_or(&[], |upstream| &upstream.pull)
    }

    /// Whether this one may do that by the rules alone. A route with several upstreams is for those
    /// who may pull from each: content of one is served in another's place.
    fn allow(&self, principal: &Principal, wish: &Wish<'_>) -> Ruled {
        let mut ruled = Ruled { allowed: true, for_nobody: false };
        let mut hear = |who: &[Subject]| {
            ruled.allowed &= principal.is_among(who);
            ruled.for_nobody |= who.is_empty();
        };
        match (wish.target, wish.verb) {
            (Place::Catalog, _) => hear(&self.config.auth.catalog),
            (Place::Hosted(repository) | Place::Routed(Route::Hosted { repository }), verb) => {
                hear(self.of_hosted(verb, repository));
            }
            (Place::Routed(Route::Upstream { candidates }), Verb::Pull) => {
                candidates.iter().for_each(|one| hear(self.of_upstream(&one.upstream)));
            }
            (Place::Routed(Route::Upstream { .. }), _) => hear(&[]),
        }
        ruled
    }
}

/// What the rules say.
struct Ruled {
    allowed: bool,
    /// No login would help.
    for_nobody: bool,
}

impl Access {
    /// Whether the client says nothing of who it is: then it is [`Principal::ANONYMOUS`].
    pub(super) fn is_silent(&self, head: &RequestHead, peer: &Peer) -> bool {
        peer.certificate.is_none() && !head.has_authorization()
    }

    /// Who is asking. Costs two look-ups for whoever says nothing.
    ///
    /// # Errors
    /// 401 for credentials that are wrong, whatever is asked for; 503 when there are too many to
    /// verify.
    pub(super) async fn identify(
        &self,
        head: &RequestHead,
        endpoint: &Endpoint,
        peer: &Peer,
    ) -> Result<Principal, Refusal> {
        if self.is_silent(head, peer) {
            return Ok(Principal::ANONYMOUS);
        }
        // Boxed: so that the future of every connection is not larger for those who log in.
        let identified = self.authenticator.identify(head, peer.certificate.as_deref());
        Box::pin(identified).await.map_err(|error| {
            tracing::info!(client = %peer.address, %error, "a login was refused");
            if error == AuthError::Busy {
                let refusal = Refusal::new(503, ErrorCode::Unavailable, error.to_string());
                return Refusal { retry_after: Some(1), ..refusal };
            }
            let verb = if head.method.reads() { Verb::Pull } else { Verb::Push };
            let scope = endpoint.target.name().map(|name| verb.scope(name.as_str()));
            let challenges = self.challenges(scope, Some("invalid_token"));
            let refusal = Refusal::new(401, ErrorCode::Unauthorized, error.to_string());
            Refusal { challenges, ..refusal }
        })
    }

    /// Whether this one may do that.
    ///
    /// # Errors
    /// 401 with a challenge for somebody unknown, and for a token that is not for this; 403 for
    /// somebody known, and where a login would not help.
    pub(super) fn check(&self, principal: &Principal, wish: &Wish<'_>) -> Result<(), Refusal> {
        let is_open = wish.verb == Verb::Pull && self.rules.all_may_pull;
        if is_open && principal.said_nothing() && !matches!(wish.target, Place::Catalog) {
            return Ok(());
        }
        let Wish { verb, name, .. } = wish;
        let ruled = self.rules.allow(principal, wish);
        if ruled.allowed && principal.is_granted(*verb, name) {
            return Ok(());
        }
        let what = in_words(wish);
        if ruled.allowed {
            let challenges = self.challenges(Some(verb.scope(name)), Some("insufficient_scope"));
            let message = format!("the token is not for it: {what}");
            let refusal = Refusal::new(401, ErrorCode::Unauthorized, message);
            return Err(Refusal { challenges, ..refusal });
        }
        let denied = |message: String| Err(Refusal::new(403, ErrorCode::Denied, message));
        if ruled.for_nobody {
            return denied(format!("nobody may do that here: {what}"));
        }
        if let Some(name) = principal.name() {
            return denied(format!("the rules do not let {name} do that: {what}"));
        }
        let challenges = self.challenges(Some(verb.scope(name)), None);
        if challenges.is_empty() {
            return denied(format!("only somebody known may do that: {what}"));
        }
        let message = format!("a login is needed: {what}");
        Err(Refusal { challenges, ..Refusal::new(401, ErrorCode::Unauthorized, message) })
    }

    /// Whether this one may see a repository in the catalog. The token has been asked for the
    /// catalog as a whole.
    pub(super) fn may_see(&self, principal: &Principal, repository: &RepositoryName) -> bool {
        principal.is_among(self.rules.of_hosted(Verb::Pull, repository))
    }

    /// What `GET /v2/` tells about logging in: the challenges, and whether they stand in a 401.
    ///
    /// Docker and crane learn there, and only from a 401, whether a registry has logins; Docker then
    /// goes nowhere without one, except to a token server. skopeo, podman and buildah take the
    /// challenge from a 200 as well; containerd, BuildKit and oras never ask. So tokens are always
    /// asked for, as the public registries do, and passwords only where nobody may pull without,
    /// or where `login_first` says so: everyone's pulls go on.
    pub(super) fn at_base(&self, principal: &Principal) -> (Vec<String>, bool) {
        if !principal.said_nothing() {
            return (Vec::new(), false);
        }
        let files = self.authenticator.files();
        let auth = files.config();
        let is_needed = auth.token.is_some() || auth.login_first || !self.rules.some_may_pull;
        (self.challenges(None, None), is_needed)
    }

    /// The values of `WWW-Authenticate`; none where nobody can log in.
    fn challenges(&self, scope: Option<String>, error: Option<&str>) -> Vec<String> {
        let files = self.authenticator.files();
        let auth = files.config();
        let mut challenges = Vec::new();
        if let Some(token) = &auth.token {
            let mut challenge =
                format!("Bearer realm=\"{}\",service=\"{}\"", token.realm, token.service);
            for (key, value) in [("scope", scope.as_deref()), ("error", error)] {
                if let Some(value) = value {
                    challenge.push_str(&format!(",{key}=\"{value}\""));
                }
            }
            challenges.push(challenge);
        }
        if auth.htpasswd_file.is_some() {
            challenges.push(format!("Basic realm=\"{}\"", auth.realm));
        }
        challenges
    }
}

fn in_words(wish: &Wish<'_>) -> String {
    match wish.target {
        Place::Catalog => "list the repositories".to_owned(),
        _ => format!("{} {}", wish.verb.as_str(), wish.name),
    }
}
