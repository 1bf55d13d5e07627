//! The declared upstreams, ready to be asked: the closed world of this module.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::RootCertStore;

use super::address::AddressPolicy;
use super::credentials::Credentials;
use super::error::{Site, UpstreamError};
use super::proxy::{Proxies, Proxy};
use super::proxy_environment::Environment;
use super::tls::{TlsContexts, TlsError, system_roots};
use super::url::{Host, Origin, Url};
use crate::config::{Config, CredentialConfig, EndpointUrl, ProxyConfig, UpstreamConfig};
use crate::oci::Namespace;

/// All upstreams, by canonical namespace and alias. Immutable; a reload builds another.
pub struct UpstreamSet {
    upstreams: Vec<Arc<Upstream>>,
    by_name: HashMap<Namespace, usize>,
    tiers: Vec<Arc<Upstream>>,
}

/// One upstream with all that is needed to speak to it.
pub struct Upstream {
    /// Canonical, or scoped: with the credential and the namespace to forward that it stands for.
    /// All that is remembered of an upstream is kept by this, tokens and connections too.
    pub(super) namespace: Namespace,
    /// Whose rate limit requests spend: the namespace without what is forwarded.
    pub(super) login: Namespace,
    /// The same upstream with the credentials that take turns with this one's own.
    pub(super) turns: Vec<Namespace>,
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) credentials: Credentials,
    pub(super) addresses: AddressPolicy,
    pub(super) token_realms: Vec<String>,
    /// Sent along as `ns=`.
    pub(super) forward_ns: Option<Namespace>,
    pub(super) timeouts: Timeouts,
    /// How long the first endpoint may be silent before a second one is asked too.
    pub(super) hedge_after: Option<Duration>,
    pub(super) proxies: Proxies,
    pub(super) tls: TlsContexts,
    /// A remote tier, and no registry.
    pub(super) is_tier: bool,
}

/// One place an upstream is reached at.
pub(super) struct Endpoint {
    pub(super) origin: Origin,
    /// Empty, or starts with `/` and does not end with one.
    pub(super) path: String,
    /// As shown in errors and to operators.
    pub(super) name: Arc<str>,
}

/// How long each step may take.
#[derive(Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    pub(super) tls: Duration,
    pub(super) first_byte: Duration,
    pub(super) stall: Duration,
}

/// Why the upstreams cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamSetError {
    /// A certificate or key file.
    #[error("upstream {namespace}: {source}")]
    Tls {
        /// Whose.
        namespace: Namespace,
        /// Which file and why.
        source: TlsError,
    },
    /// A password or token file.
    #[error("upstream {namespace}: {reason}")]
    Secret {
        /// Whose.
        namespace: Namespace,
        /// Which file and why.
        reason: String,
    },
    /// A remote tier.
    #[error("remote tier {tier}: {reason}")]
    Tier {
        /// As configured.
        tier: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An endpoint that is no address.
    #[error("upstream {namespace}: endpoint \"{endpoint}\": {reason}")]
    Endpoint {
        /// Whose.
        namespace: Namespace,
        /// As configured.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A proxy of the environment.
    #[error("{0}")]
    Environment(String),
    /// Two upstreams claim one name.
    #[error("two upstreams claim the namespace {namespace}; give it to one of them")]
    Duplicate {
        /// The name.
        namespace: Namespace,
    },
}

impl UpstreamSet {
    /// Sets up every upstream of `config`. Reads certificates, keys and secrets, so it blocks: for
    /// the start, not for workers.
    ///
    /// # Errors
    /// [`UpstreamSetError`], naming the upstream and the file.
    pub fn build(config: &Config) -> Result<Self, UpstreamSetError> {
        let endpoints = config.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
        let speaks_tls = endpoints.chain(&config.storage.remote_tiers).any(|url| url.https);
        // Loaded in any case: a plain http endpoint may redirect to https.
        let roots = Arc::new(system_roots(speaks_tls));
        let allow_private = &config.storage.remote_allow_private;
        let tier = |tier| Upstream::of_tier(tier, allow_private, &roots).map(Arc::new);
        let tiers = config.storage.remote_tiers.iter().map(tier).collect::<Result<_, _>>()?;
        let mut set = Self { upstreams: Vec::new(), by_name: HashMap::new(), tiers };
        let environment = environment_for(config)?;
        for declared in &config.upstreams {
            let upstream = Upstream::build(declared, &roots, &environment)?;
            for scoped in upstream.scoped(declared, config)? {
                set.by_name.insert(scoped.namespace.clone(), set.upstreams.len());
                set.upstreams.push(Arc::new(scoped));
            }
            let index = set.upstreams.len();
            set.upstreams.push(Arc::new(upstream));
            for name in std::iter::once(&declared.namespace).chain(&declared.aliases) {
                if set.by_name.insert(name.clone(), index).is_some_and(|other| other != index) {
                    return Err(UpstreamSetError::Duplicate { namespace: name.clone() });
                }
            }
        }
        Ok(set)
    }

    /// This set and, behind it, the upstreams of `before` that are not in it: what is under way
    /// from them can end, although nobody is routed to them any more.
    pub fn keeping(mut self, before: &UpstreamSet) -> Self {
        for upstream in &before.upstreams {
            if !self.by_name.contains_key(&upstream.namespace) {
                self.by_name.insert(upstream.namespace.clone(), self.upstreams.len());
                self.upstreams.push(upstream.clone());
            }
        }
        self
    }

    /// All endpoints there are, those of remote tiers too.
    pub fn endpoint_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.upstreams.iter().chain(&self.tiers).flat_map(|upstream| upstream.endpoint_names())
    }

    /// The upstream that `name` (canonical, scoped or alias) stands for.
    pub fn find(&self, name: &Namespace) -> Option<&Arc<Upstream>> {
        self.upstreams.get(*self.by_name.get(name)?)
    }

    /// `upstream` and those whose credentials take turns with its own.
    pub(super) fn turns<'s>(&'s self, upstream: &'s Arc<Upstream>) -> Vec<&'s Arc<Upstream>> {
        let others = upstream.turns.iter().filter_map(|name| self.find(name));
        std::iter::once(upstream).chain(others).collect()
    }

    /// The remote tier below which this address lies, and the address.
    pub(super) fn tier(&self, url: &str) -> Option<(&Arc<Upstream>, Url)> {
        let url = Url::parse(url).ok()?;
        let is_at = |endpoint: &Endpoint| endpoint.origin == url.origin;
        let tier = self.tiers.iter().find(|tier| tier.endpoints.iter().any(is_at))?;
        Some((tier, url))
    }

    /// All upstreams, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.iter()
    }
}

impl Upstream {
    fn build(
        config: &UpstreamConfig,
        roots: &Arc<RootCertStore>,
        environment: &Arc<Environment>,
    ) -> Result<Self, UpstreamSetError> {
        let namespace = config.namespace.clone();
        let client = config.client_cert.as_deref().zip(config.client_key.as_deref());
        let tls = TlsContexts::build(roots, config.ca_file.as_deref(), client)
            .map_err(|source| UpstreamSetError::Tls { namespace: namespace.clone(), source })?;
        let login = (&config.username, &config.password_file, &config.token_file);
        let credentials = checked_login(&namespace, login, &config.credential_command)?;
        let turning = config.credentials.iter().filter(|credential| credential.rotate);
        let turns = turning.map(|credential| namespace.scoped(Some(&credential.name), None));
        let endpoints: Result<_, _> =
            config.endpoints.iter().map(|url| Endpoint::build(&namespace, url)).collect();
        Ok(Self {
            login: namespace.clone(),
            turns: turns.collect(),
            endpoints: endpoints?,
            credentials,
            addresses: AddressPolicy::new(&config.allow_private),
            token_realms: config.token_realms.clone(),
            forward_ns: config.forward_ns.then(|| namespace.clone()),
            timeouts: Timeouts {
                connect: config.connect_timeout,
                tls: config.tls_timeout,
                first_byte: config.first_byte_timeout,
                stall: config.stall_timeout,
            },
            proxies: proxies(config, environment)?,
            hedge_after: Some(config.hedge_after).filter(|after| !after.is_zero()),
            tls,
            is_tier: false,
            namespace,
        })
    }

    /// The same upstream with each of its named credentials and, if it is a namespace-aware proxy,
    /// each declared namespace to forward: all that a resolver may choose.
    fn scoped(
        &self,
        declared: &UpstreamConfig,
        config: &Config,
    ) -> Result<Vec<Upstream>, UpstreamSetError> {
        let mut logins = vec![(None, self.credentials.clone())];
        for credential in &declared.credentials {
            let CredentialConfig { name, username, password_file, token_file, .. } = credential;
            let namespace = self.namespace.scoped(Some(name), None);
            let files = (username, password_file, token_file);
            let login = checked_login(&namespace, files, &credential.credential_command)?;
            logins.push((Some(name.as_str()), login));
        }
        let forwarded = config.namespaces().filter(|_| declared.forward_ns).map(Some);
        let forwarded: Vec<_> = std::iter::once(None).chain(forwarded).collect();
        let mut scoped = Vec::new();
        for (credential, login) in &logins {
            for forward_ns in forwarded.iter().filter(|ns| credential.is_some() || ns.is_some()) {
                // Who asks for one credential gets that one.
                let turning = declared.credentials.iter().filter(|_| credential.is_none());
                let turning = turning.filter(|other| other.rotate);
                let turn = |other: &CredentialConfig| {
                    self.namespace.scoped(Some(&other.name), *forward_ns)
                };
                scoped.push(Upstream {
                    namespace: self.namespace.scoped(*credential, *forward_ns),
                    login: self.namespace.scoped(*credential, None),
                    turns: turning.map(turn).collect(),
                    endpoints: self.endpoints.clone(),
                    credentials: login.clone(),
                    addresses: self.addresses.clone(),
                    token_realms: self.token_realms.clone(),
                    forward_ns: forward_ns.cloned().or_else(|| self.forward_ns.clone()),
                    timeouts: self.timeouts,
                    hedge_after: self.hedge_after,
                    proxies: self.proxies.clone(),
                    tls: self.tls.clone(),
                    is_tier: false,
                });
            }
        }
        Ok(scoped)
    }

    /// The canonical namespace, or what [`Namespace::scoped`] made of it.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its endpoints as they are written in errors and metrics.
    pub fn endpoint_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.endpoints.iter().map(|endpoint| &endpoint.name)
    }

    /// How to speak TLS to `origin`: our certificate is only shown to endpoints.
    pub(super) fn tls_for(&self, origin: &Origin) -> &TlsConnector {
        match self.endpoints.iter().any(|endpoint| endpoint.origin == *origin) {
            true => &self.tls.endpoint,
            false => &self.tls.elsewhere,
        }
    }

    /// For errors about `url`.
    pub(super) fn site(&self, url: &Url) -> Box<Site> {
        let address = match self.proxies.proxy_for(&url.origin) {
            None => url.to_string(),
            Some(proxy) => format!("{url} through the proxy {}", proxy.name()),
        };
        Box::new(Site {
            upstream: self.namespace.clone(),
            address: address.into(),
            is_tier: self.is_tier,
        })
    }

    pub(super) fn internal(&self, reason: impl ToString) -> UpstreamError {
        UpstreamError::Internal { upstream: self.namespace.clone(), reason: reason.to_string() }
    }
}

/// The environment's proxies, if any upstream is to be reached through them.
fn environment_for(config: &Config) -> Result<Arc<Environment>, UpstreamSetError> {
    let is_used = config.upstreams.iter().any(|u| u.proxy == ProxyConfig::Environment);
    let variable = |name: &str| std::env::var(name).ok().filter(|_| is_used);
    let environment = Environment::read(variable);
    let environment =
        environment.map_err(|error| UpstreamSetError::Environment(error.to_string()))?;
    environment.log();
    Ok(Arc::new(environment))
}

fn proxies(
    config: &UpstreamConfig,
    environment: &Arc<Environment>,
) -> Result<Proxies, UpstreamSetError> {
    let namespace = &config.namespace;
    match &config.proxy {
        ProxyConfig::Environment => Ok(Proxies::Environment(environment.clone())),
        ProxyConfig::Direct => Ok(Proxies::Direct),
        ProxyConfig::Through(url) => {
            let login = (&config.proxy_username, &config.proxy_password_file, &None);
            let login = checked_login(namespace, login, &None)?;
            let url = Url::parse(&url.to_string()).map_err(|error| UpstreamSetError::Endpoint {
                namespace: namespace.clone(),
                endpoint: url.to_string(),
                reason: error.to_string(),
            })?;
            Ok(Proxies::Through(Arc::new(Proxy::with_login(url, login))))
        }
    }
}

/// A login of the configuration. Files are read once to find mistakes.
fn checked_login(
    namespace: &Namespace,
    login: (&Option<String>, &Option<PathBuf>, &Option<PathBuf>),
    command: &Option<Vec<String>>,
) -> Result<Credentials, UpstreamSetError> {
    let credentials = match login {
        (Some(username), Some(file), _) => {
            Credentials::Password { username: username.as_str().into(), file: file.clone() }
        }
        (_, _, Some(file)) => Credentials::Token { file: file.clone() },
        _ => match command {
            Some(argv) => Credentials::Command { argv: argv.as_slice().into() },
            None => Credentials::Anonymous,
        },
    };
    credentials.check().map_err(|error| UpstreamSetError::Secret {
        namespace: namespace.clone(),
        reason: error.to_string(),
    })?;
    Ok(credentials)
}

impl Endpoint {
    pub(super) fn build(
        namespace: &Namespace,
        url: &EndpointUrl,
    ) -> Result<Self, UpstreamSetError> {
        let refused = |reason: String| UpstreamSetError::Endpoint {
            namespace: namespace.clone(),
            endpoint: url.to_string(),
            reason,
        };
        let bracketed = match url.host.contains(':') && !url.host.starts_with('[') {
            true => format!("[{}]", url.host),
            false => url.host.clone(),
        };
        let host = Host::parse(&bracketed).map_err(|error| refused(error.to_string()))?;
        let path = url.path.trim_end_matches('/').to_owned();
        let origin = Origin { https: url.https, host, port: url.port };
        let name = format!("{origin}{path}").into();
        Url::new(origin.clone(), &format!("{path}/"))
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self { origin, path, name })
    }
}
