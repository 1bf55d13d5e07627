//! What is emitted in `place`.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use ringport_plugin_abi as abi;

use super::text::{shorter_than, shown};
use super::{Answer, Phase, Refused};
use crate::plugin::{Placement, RemotePurpose, RemoteRequest, StorageClass};

/// Headers that are the host's business: where a request goes and where its body ends.
const HOST_HEADERS: [&str; 6] =
    ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade"];

/// A request to a remote tier as a plugin sent it.
#[derive(Debug)]
pub(crate) struct RemoteDraft<'a> {
    pub(crate) purpose: u32,
    pub(crate) method: &'a [u8],
    pub(crate) url: &'a [u8],
    /// Names and values; one more than allowed at most.
    pub(crate) headers: Vec<(&'a [u8], &'a [u8])>,
    pub(crate) expires_unix_ms: u64,
}

impl Answer {
    pub(crate) fn set_placement(
        &mut self,
        placement: &abi::Placement,
        pool: &[u8],
    ) -> Result<(), Refused> {
        let is_hosted = self.expect_place("emit_placement")?.is_hosted;
        let class = match placement.storage_class {
            abi::CLASS_CACHE => StorageClass::Cache,
            abi::CLASS_PINNED => StorageClass::Pinned,
            abi::CLASS_PASS_THROUGH if is_hosted => {
                return self
                    .refuse("it passes hosted content through, which nobody else has".into());
            }
            abi::CLASS_PASS_THROUGH => StorageClass::PassThrough,
            other => return self.refuse(format!("it named the unknown storage class {other}")),
        };
        if placement.priority.unsigned_abs() > abi::PRIORITY_MAX.unsigned_abs() {
            let (found, max) = (placement.priority, abi::PRIORITY_MAX);
            return self.refuse(format!("it set the priority {found}, beyond -{max} to {max}"));
        }
        let declared = self.declared.pools().iter().find(|name| name.as_bytes() == pool);
        let pool = match (pool.is_empty(), declared) {
            (true, _) => None,
            (false, Some(name)) => Some(Arc::clone(name)),
            (false, None) => {
                let names: Vec<&str> =
                    self.declared.pools().iter().take(12).map(|n| &**n).collect();
                let problem = format!(
                    "it named the pool {}, which no [[storage.pool]] declares (declared: {})",
                    shown(pool),
                    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
                );
                return self.refuse(problem);
            }
        };
        let ttl = Some(placement.ttl_ms).filter(|ms| *ms != 0).map(Duration::from_millis);
        let before = &mut self.placement;
        (before.class, before.pool, before.ttl) = (class, pool, ttl);
        before.priority = placement.priority;
        Ok(())
    }

    pub(crate) fn add_remote(&mut self, remote: RemoteDraft<'_>) -> Result<(), Refused> {
        let is_stored = self.expect_place("emit_remote")?.is_stored;
        match self.check_remote(&remote, is_stored) {
            Ok(request) if self.placement.remotes.len() < abi::REMOTES_MAX => {
                self.placement.remotes.push(request);
                Ok(())
            }
            Ok(_) => {
                let max = abi::REMOTES_MAX;
                self.refuse(format!("it emitted more than {max} requests to remote tiers"))
            }
            Err(problem) => self.refuse(problem),
        }
    }

    /// The first broken rule as a sentence. Neither query nor header values are repeated in it:
    /// they may be signatures.
    fn check_remote(
        &self,
        remote: &RemoteDraft<'_>,
        is_stored: bool,
    ) -> Result<RemoteRequest, String> {
        let (purpose, method) = match (remote.purpose, remote.method) {
            (abi::REMOTE_READ, b"GET") => (RemotePurpose::Read, "GET"),
            (abi::REMOTE_WRITE, b"PUT") => (RemotePurpose::Write, "PUT"),
            (abi::REMOTE_WRITE, b"POST") => (RemotePurpose::Write, "POST"),
            (purpose, method) => {
                return Err(format!(
                    "its request to a remote tier has purpose {purpose} and method {}; expected \
                     GET to read (1), PUT or POST to write (2)",
                    shown(method)
                ));
            }
        };
        match (purpose, is_stored) {
            (RemotePurpose::Read, false) | (RemotePurpose::Write, true) => {}
            (RemotePurpose::Read, true) => {
                return Err("it reads from a remote tier what is stored already".to_owned());
            }
            (RemotePurpose::Write, false) => {
                return Err("it writes to a remote tier what is not stored yet".to_owned());
            }
        }
        let url = shorter_than(remote.url, abi::REMOTE_BYTES_MAX)
            .filter(|url| url.bytes().all(|b| b.is_ascii_graphic() && b != b'#'))
            .ok_or("the URL of its request to a remote tier is not printable, or too long")?;
        let tiers = self.declared.remote_tiers();
        let is_below = |tier: &&crate::config::EndpointUrl| {
            url.strip_prefix(tier.to_string().as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        if !tiers.iter().any(|tier| is_below(&tier)) {
            return Err(format!(
                "it named the remote tier {}, which `storage.remote_tiers` does not declare",
                shown(origin_of(url).as_bytes())
            ));
        }
        Ok(RemoteRequest {
            purpose,
            method,
            url: url.to_owned(),
            headers: check_headers(&remote.headers)?,
            expires: match remote.expires_unix_ms {
                0 => None,
                ms => UNIX_EPOCH.checked_add(Duration::from_millis(ms)),
            },
        })
    }

    /// The placement that was emitted.
    pub(crate) fn take_placement(&mut self, plugin: &str) -> Result<Placement, String> {
        let mut placement = std::mem::take(&mut self.placement);
        if placement.class == StorageClass::PassThrough && !placement.remotes.is_empty() {
            return Err("it uses a remote tier for content that it does not store".to_owned());
        }
        placement.plugin = plugin.to_owned();
        Ok(placement)
    }

    fn expect_place(&mut self, function: &str) -> Result<InPlace, Refused> {
        match self.phase {
            Phase::Place { is_stored, is_hosted } => Ok(InPlace { is_stored, is_hosted }),
            _ => Err(self.expect_phase(false, function, "place").err().unwrap_or(Refused)),
        }
    }
}

/// What a running `place` is about.
struct InPlace {
    is_stored: bool,
    is_hosted: bool,
}

/// Scheme and host of a URL that may be anything: user-info and query may be secrets.
fn origin_of(url: &str) -> String {
    let is_scheme = |(scheme, _): &(&str, &str)| scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    let (scheme, rest) = match url.split_once("://").filter(is_scheme) {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    scheme + host
}

fn check_headers(headers: &[(&[u8], &[u8])]) -> Result<Vec<(String, String)>, String> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > abi::REMOTE_HEADERS_MAX || bytes > abi::REMOTE_BYTES_MAX {
        let (count, max) = (abi::REMOTE_HEADERS_MAX, abi::REMOTE_BYTES_MAX);
        return Err(format!("its request has more than {count} headers, or than {max} bytes"));
    }
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let is_value = |b: &u8| b.is_ascii_graphic() || *b == b' ';
    let mut checked = Vec::new();
    for (name, value) in headers {
        let text = String::from_utf8_lossy(name).to_ascii_lowercase();
        if name.is_empty() || !name.iter().all(is_token) || HOST_HEADERS.contains(&&*text) {
            return Err(format!(
                "its request has the header {}, which is not its own",
                shown(name)
            ));
        }
        if !value.iter().all(is_value) {
            return Err(format!("the value of its header {text} is not printable ASCII"));
        }
        checked.push((text, String::from_utf8_lossy(value).into_owned()));
    }
    Ok(checked)
}
