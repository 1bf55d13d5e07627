//! Telling where a request would go, without sending it there.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::refusal::Refusal;
use super::router::registry_header;
use crate::config::{Config, UpstreamConfig, format_duration, in_words};
use crate::http::{Parsed, RequestHead};
use crate::oci::{Endpoint, ErrorCode, Reference, Tag, Target};
use crate::plugin::{RequestKind, ResolveRequest, Route, WorkerChain};
use crate::registry::immutable_by;

/// A request to be explained, as its sender would write it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// Path, with a query or without.
    pub target: &'a str,
    /// The `ns` parameter, not yet encoded, if it is not in the target already.
    pub ns: Option<&'a str>,
    /// Header names and values.
    pub headers: &'a [(String, String)],
    /// The address that it comes from; `None`: unknown, so that no rule for addresses is met.
    pub client: Option<IpAddr>,
}

/// The decision in lines of `what: words`: rule, upstream with its endpoints, repository,
/// placement, freshness.
///
/// # Errors
/// The refusal that the request would get before it is routed.
pub fn explain(
    chain: &WorkerChain,
    config: &Config,
    question: &Question<'_>,
) -> Result<String, Refusal> {
    let head = parse(question)?;
    let endpoint = Endpoint::parse(head.method.reads(), head.path(), head.query())?;
    let (name, kind, reference) = match &endpoint.target {
        Target::Base => return Ok("endpoint: base (answered by the mirror itself)\n".into()),
        Target::Manifest { name, reference } => {
            (name, RequestKind::Manifest, reference.to_string())
        }
        Target::Blob { name, digest } => (name, RequestKind::Blob, digest.to_string()),
        Target::TagsList { name, .. } => (name, RequestKind::Tags, String::new()),
        Target::Referrers { name, digest, .. } => {
            (name, RequestKind::Referrers, digest.to_string())
        }
        Target::Catalog { .. } | Target::Upload { .. } => {
            return Err(Refusal::method(head.method, "GET, HEAD"));
        }
    };
    let header = registry_header(&head)?;
    let explanation = chain.explain(&ResolveRequest {
        method: head.method.as_str(),
        kind,
        ns: endpoint.ns.as_ref(),
        header: header.as_ref(),
        name: name.as_str(),
        reference: &reference,
        client: question.client,
        principal: None,
        head: Some(&head),
    });
    let mut text = explanation.to_string();
    if let Ok(resolution) = &explanation.outcome {
        let tag = match &endpoint.target {
            Target::Manifest { reference: Reference::Tag(tag), .. } => Some(tag),
            _ => None,
        };
        describe(&mut text, config, &resolution.route, tag);
    }
    // Writing to a String cannot fail.
    let _ = match question.client {
        Some(client) => writeln!(text, "client: {client}"),
        None => writeln!(text, "client: unknown (rules for addresses were not met)"),
    };
    Ok(text)
}

/// The bounds of an upstream's names in a sentence.
fn bounds(upstream: &UpstreamConfig) -> String {
    let late = match upstream.stale_while_revalidate {
        late if late.is_zero() => String::new(),
        late => format!(", then asked for behind the answer for {}", format_duration(late)),
    };
    let ttl = format_duration(upstream.tag_ttl);
    let stale = format_duration(upstream.stale_max);
    let negative = format_duration(upstream.negative_ttl);
    format!("tag_ttl {ttl}{late}, then stale for at most {stale}; 404 believed for {negative}")
}

/// What the route means with this configuration.
fn describe(text: &mut String, config: &Config, route: &Route, tag: Option<&Tag>) {
    describe_access(text, config, route);
    // Writing to a String cannot fail.
    if let Route::Upstream { candidates } = route {
        for candidate in candidates {
            let Some(upstream) = config.upstream(&candidate.upstream) else { continue };
            for endpoint in &upstream.endpoints {
                let _ = writeln!(text, "endpoint of {}: {endpoint}", candidate.upstream);
            }
            let _ = writeln!(text, "freshness of {}: {}", candidate.upstream, bounds(upstream));
            let pattern = tag.and_then(|tag| {
                let patterns = &upstream.immutable_tags;
                immutable_by(patterns, &candidate.repository, tag)
            });
            if let Some(pattern) = pattern {
                let by = format!("immutable_tags {pattern:?} of {}", upstream.namespace);
                let _ = writeln!(text, "tag: immutable ({by}): never asked for again once stored");
            }
        }
    }
    let _ = writeln!(text, "placement: {}, class cache", config.storage.root.display());
}

/// Which rule says who may do what, and who that is.
fn describe_access(text: &mut String, config: &Config, route: &Route) {
    // Writing to a String cannot fail.
    match route {
        Route::Hosted { repository } => {
            let rule = config.hosted_rule(repository);
            let number = config.hosted.iter().position(|one| std::ptr::eq(one, rule));
            let which = match (number, rule.pattern_for(repository)) {
                (Some(number), Some(pattern)) => format!("hosted[{number}] {pattern:?}"),
                _ => "built in, for no [[hosted]] matches".to_owned(),
            };
            let _ = writeln!(text, "access: {}; by {which}", rule.in_words());
        }
        Route::Upstream { candidates } => {
            for candidate in candidates {
                let Some(upstream) = config.upstream(&candidate.upstream) else { continue };
                let (who, namespace) = (in_words(&upstream.pull), &upstream.namespace);
                let _ = writeln!(text, "access: pull {who}; by `pull` of {namespace}");
            }
        }
    }
}

fn parse(question: &Question<'_>) -> Result<RequestHead, Refusal> {
    let mut target = question.target.to_owned();
    if let Some(ns) = question.ns {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str("ns=");
        target
            .extend(percent_encoding::utf8_percent_encode(ns, percent_encoding::NON_ALPHANUMERIC));
    }
    let mut bytes = format!("{} {target} HTTP/1.1\r\nHost: explain\r\n", question.method);
    for (name, value) in question.headers {
        let _ = write!(bytes, "{name}: {value}\r\n");
    }
    bytes.push_str("\r\n");
    match RequestHead::parse(bytes.as_bytes()) {
        Ok(Parsed::Complete { head, .. }) => Ok(head),
        Ok(Parsed::Partial) => {
            Err(Refusal::new(400, ErrorCode::Unsupported, "the request has no end"))
        }
        Err(error) => Err(Refusal::new(error.status(), ErrorCode::Unsupported, error.to_string())),
    }
}
