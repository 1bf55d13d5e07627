//! Which redirects are followed, and what goes along. Pure; the address guard comes on top.

use hyper::StatusCode;

use super::url::{Origin, Url};

/// The statuses whose `Location` is followed. 300, 304 and 305 are not redirects for us.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// A chain of hops from one endpoint.
#[derive(Debug)]
pub(super) struct Chain {
    /// Where the next request goes.
    pub(super) url: Url,
    /// Whether every hop so far was on the endpoint's own (scheme, host, port). Once it has left,
    /// what the chain comes back with was written by somebody else: no credentials any more.
    pub(super) is_home: bool,
    hops: usize,
    home: Origin,
}

impl Chain {
    /// Starts at `url`, whose origin is the endpoint's.
    pub(super) fn new(url: Url) -> Self {
        let home = url.origin.clone();
        Self { url, is_home: true, hops: 0, home }
    }

    /// Moves on to `location`.
    ///
    /// # Errors
    /// A sentence, without query strings: over `limit` hops, not an address, or https to http.
    pub(super) fn follow(&mut self, location: Option<&str>, limit: usize) -> Result<(), String> {
        let location = location.ok_or("a redirect without one readable Location")?;
        if self.hops == limit {
            return Err(format!("more than {limit} redirects"));
        }
        let next = self
            .url
            .join(location)
            .map_err(|error| format!("its Location is not usable: {error}"))?;
        if self.url.origin.https && !next.origin.https {
            return Err(format!("from https to plain http ({next})"));
        }
        self.is_home = self.is_home && next.origin == self.home;
        self.hops += 1;
        self.url = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(start: &str, locations: &[&str]) -> Result<Chain, String> {
        let mut chain = Chain::new(Url::parse(start).expect(start));
        for location in locations {
            chain.follow(Some(location), 5)?;
        }
        Ok(chain)
    }

    #[test]
    fn credentials_stay_at_home() {
        let cases: [(&str, &[&str], bool); 9] = [
            ("https://a.b/x", &[], true),
            ("https://a.b/x", &["/y"], true),
            ("https://a.b/x", &["https://a.b:443/y"], true),
            ("https://a.b/x", &["https://a.b:444/y"], false),
            ("https://a.b/x", &["https://c.b/y"], false),
            ("https://a.b/x", &["https://A.B/y"], true),
            ("http://a.b/x", &["https://a.b/y"], false),
            ("https://a.b/x", &["//c.d/y", "https://a.b/x"], false),
            ("https://a.b/x", &["//a.b.c/y"], false),
        ];
        for (start, locations, home) in cases {
            assert_eq!(walk(start, locations).expect(start).is_home, home, "{locations:?}");
        }
    }

    #[test]
    fn bad_redirects_end_the_chain() {
        let cases: [(&str, &[&str], &str); 6] = [
            ("https://a.b/x", &["http://a.b/x"], "plain http"),
            ("https://a.b/x", &["https://c.d/x", "http://c.d/?s=canary"], "plain http"),
            ("http://a.b/x", &["https://c.d/x", "http://a.b/x"], "plain http"),
            ("https://a.b/x", &["ftp://a.b/x"], "Location"),
            ("https://a.b/x", &["https://0x7f.1/?s=canary"], "Location"),
            ("https://a.b/x", &["/1", "/2", "/3", "/4", "/5", "/6"], "more than 5"),
        ];
        for (start, locations, reason) in cases {
            let error = walk(start, locations).expect_err(start);
            assert!(error.contains(reason) && !error.contains("canary"), "{locations:?}: {error}");
        }
        assert!(walk("https://a.b/x", &["/1", "/2", "/3", "/4", "/5"]).is_ok());
        let mut chain = Chain::new(Url::parse("https://a.b/x").expect("url"));
        assert!(chain.follow(None, 5).is_err());
    }
}
