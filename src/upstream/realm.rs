//! Which token service an endpoint may send us to. Pure.
//!
//! A realm is a text the endpoint writes and we take credentials to: without a rule it is a way to
//! make us call anything (CVE-2026-33540 and its kin).

use super::url::{Host, Origin, Url};

/// Domains below which anybody gets a name: a shared parent says nothing about the owner.
const SHARED_DOMAINS: &[&str] = &[
    "amazonaws.com",
    "appspot.com",
    "azurecr.cn",
    "azurecr.io",
    "azurewebsites.net",
    "cloudapp.net",
    "cloudfront.net",
    "core.windows.net",
    "digitaloceanspaces.com",
    "duckdns.org",
    "dyndns.org",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "jfrog.io",
    "linodeobjects.com",
    "netlify.app",
    "ngrok.io",
    "nip.io",
    "ondigitalocean.app",
    "onrender.com",
    "pages.dev",
    "pkg.dev",
    "r2.dev",
    "railway.app",
    "run.app",
    "sslip.io",
    "vercel.app",
    "workers.dev",
];

/// The realm as an address, if `endpoint` may name it: the endpoint's own host, a host that
/// `listed` has (`host` or `host:port`), or one that shares a registrable domain with the endpoint
/// (`registry-1.docker.io` and `auth.docker.io`). https, except on the endpoint's own or a listed
/// host when the endpoint itself is plain http.
///
/// # Errors
/// A sentence that says why not, and which key opens it.
pub(super) fn check(endpoint: &Origin, realm: &str, listed: &[String]) -> Result<Url, String> {
    let url = Url::parse(realm).map_err(|error| format!("the realm is not usable: {error}"))?;
    let origin = &url.origin;
    let own = origin.host == endpoint.host || is_listed(origin, listed);
    let may_be_plain = own && !endpoint.https;
    if !origin.https && !may_be_plain {
        return Err(format!(
            "the realm {url} is plain http, which only an endpoint that is plain http itself may \
             name, on its own host or on one that `token_realms` lists"
        ));
    }
    if own || is_related(&endpoint.host, &origin.host) {
        return Ok(url);
    }
    Err(format!(
        "the realm {url} is on a foreign host; if it is right, add \"{}\" to `token_realms`",
        origin.authority()
    ))
}

fn is_listed(origin: &Origin, listed: &[String]) -> bool {
    let host = origin.host.to_string();
    let with_port = format!("{host}:{}", origin.port);
    listed.iter().any(|entry| entry.eq_ignore_ascii_case(&host) || *entry == with_port)
}

/// Whether both names lie under one domain that has one owner: the parent of one of them, with at
/// least two labels and not known to be open to everybody.
fn is_related(endpoint: &Host, realm: &Host) -> bool {
    let (Host::Name(endpoint), Host::Name(realm)) = (endpoint, realm) else { return false };
    let parent = |name: &'_ str| name.split_once('.').map(|(_, parent)| parent.to_owned());
    let is_under = |domain: &str| {
        let within = |name: &str| {
            name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        };
        is_owned(domain) && within(endpoint) && within(realm)
    };
    is_under(endpoint) || parent(endpoint).is_some_and(|domain| is_under(&domain))
}

fn is_owned(domain: &str) -> bool {
    let mut labels = domain.rsplit('.');
    let (Some(top), Some(second)) = (labels.next(), labels.next()) else { return false };
    // `co.uk`, `com.au`, `gov.in`: short names below country codes are mostly registries' own.
    let looks_public = labels.next().is_none() && top.len() == 2 && second.len() <= 3;
    let is_shared = SHARED_DOMAINS.iter().any(|shared| {
        domain.strip_suffix(shared).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    !looks_public && !is_shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realms_are_taken_or_refused() {
        let cases = [
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true),
            ("https://registry-1.docker.io", "https://registry-1.docker.io/token", true),
            ("https://registry-1.docker.io", "https://registry-1.docker.io:8443/token", true),
            ("https://ghcr.io", "https://ghcr.io/token", true),
            ("https://quay.io", "https://auth.quay.io/token", true),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
            ("https://a.b.example.org", "https://auth.b.example.org/t", true),
            // Listed: by host, by host and port, without regard to case.
            ("https://a.example.org", "https://token.example.net/t", true),
            ("https://a.example.org", "https://other.example.net:8443/t", true),
            ("https://a.example.org", "https://other.example.net/t", false),
            // Foreign.
            ("https://registry-1.docker.io", "https://docker.io.evil.example/token", false),
            ("https://registry-1.docker.io", "https://evildocker.io/token", false),
            ("https://registry-1.docker.io", "https://auth.example.com/token", false),
            ("https://ghcr.io", "https://quay.io/token", false),
            ("https://a.b.example.org", "https://auth.example.org/t", false),
            // Not one owner.
            ("https://mine.co.uk", "https://theirs.co.uk/t", false),
            ("https://mine.azurecr.io", "https://theirs.azurecr.io/t", false),
            ("https://mine.azurecr.io", "https://mine.azurecr.io/t", true),
            ("https://mine.s3.amazonaws.com", "https://theirs.s3.amazonaws.com/t", false),
            ("https://mine.io", "https://theirs.io/t", false),
            ("https://localhost:5000", "https://other:5000/t", false),
            // Addresses: only the endpoint's own.
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/t", true),
            ("http://127.0.0.1:5000", "http://127.0.0.2:5000/t", false),
            ("https://a.example.org", "https://127.0.0.1/t", false),
            ("https://a.example.org", "https://169.254.169.254/t", false),
            ("https://10.0.0.1", "https://10.0.0.2/t", false),
            // Plain http.
            ("https://a.example.org", "http://a.example.org/t", false),
            ("https://a.example.org", "http://token.example.net/t", false),
            ("http://a.example.org", "http://a.example.org:81/t", true),
            ("http://a.example.org", "http://token.example.net/t", true),
            ("http://a.example.org", "http://auth.example.org/t", false),
            ("http://a.example.org", "https://auth.example.org/t", true),
            // Not addresses at all.
            ("https://a.example.org", "/token", false),
            ("https://a.example.org", "https://a.example.org@evil.example/t", false),
            ("https://a.example.org", "https://2130706433/t", false),
            ("https://a.example.org", "file:///etc/passwd", false),
            ("https://a.example.org", "", false),
        ];
        let listed = ["Token.example.net".to_owned(), "other.example.net:8443".to_owned()];
        for (endpoint, realm, taken) in cases {
            let origin = Url::parse(endpoint).expect(endpoint).origin;
            let checked = check(&origin, realm, &listed);
            assert_eq!(checked.is_ok(), taken, "{endpoint} names {realm}: {checked:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_way_out_and_no_query() {
        let origin = Url::parse("https://a.example.org").expect("endpoint").origin;
        let error = check(&origin, "https://c.example.net:8443/t?key=canary", &[]).expect_err("no");
        assert!(error.contains("\"c.example.net:8443\" to `token_realms`"), "{error}");
        assert!(!error.contains("canary"), "{error}");
    }
}
