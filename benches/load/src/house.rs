//! Where a run happens: its folders, the programs that were found, the origin, and the servers,
//! of which one runs at a time.

mod afresh;
mod secure;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::Ask;
use crate::client::plain::Plain;
use crate::content::{Blob, Content, Image};
use crate::process;
use crate::record::ServerVersion;
use crate::servers::given::{self, Given};
use crate::servers::nginx::{self, Role};
use crate::servers::{How, Running, registry, ringport};
use crate::stock;

pub(crate) const RINGPORT: &str = "ringport";
/// The same with its access log on, which all others have off.
pub(crate) const RINGPORT_LOGGED: &str = "ringport-logged";
pub(crate) const NGINX: &str = "nginx";
pub(crate) const NGINX_THREADS: &str = "nginx-threads";
pub(crate) const NGINX_CACHE: &str = "nginx-cache";
pub(crate) const REGISTRY: &str = "docker-registry";
pub(crate) const REGISTRY_PROXY: &str = "docker-registry-proxy";

/// All that the suite knows to start by itself, in the order in which they are shown.
pub(crate) const KNOWN: [&str; 7] =
    [RINGPORT, RINGPORT_LOGGED, NGINX, NGINX_THREADS, NGINX_CACHE, REGISTRY, REGISTRY_PROXY];

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// To which servers are pinned.
    pub(crate) server_cores: Vec<usize>,
    /// On which the load is made.
    pub(crate) client_cores: Vec<usize>,
    /// Length of a measured window.
    pub(crate) seconds: f64,
    /// Whether this is the short form.
    pub(crate) quick: bool,
    /// Ringport's program.
    pub(crate) ringport: PathBuf,
    /// Servers that others named.
    pub(crate) given: Vec<Given>,
    /// Where a profiler listens for the begin and the end of a measurement.
    pub(crate) perf_control: Option<PathBuf>,
}

/// Why there is no measurement.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The server is not here; why, and how to get it.
    Missing(String),
    /// It is here, and something went wrong.
    Failed(String),
    /// It gave something else than what it holds: request, expected, found.
    Wrong(String),
}

impl From<String> for Trouble {
    fn from(what: String) -> Trouble {
        Trouble::Failed(what)
    }
}

/// What is to be served in a scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct Goods {
    /// Each of its own.
    pub(crate) blobs: Vec<Blob>,
    /// With the blobs that they name.
    pub(crate) images: Vec<Image>,
}

/// Where a run happens.
pub(crate) struct House {
    /// From the command line.
    pub(crate) settings: Settings,
    /// What is served.
    pub(crate) content: Content,
    /// Set when the run is to end.
    pub(crate) interrupted: Arc<AtomicBool>,
    folder: PathBuf,
    nginx: Option<PathBuf>,
    registry: Option<PathBuf>,
    origin: Option<Running>,
    published: BTreeSet<String>,
    proven: BTreeSet<(String, String)>,
}

impl House {
    /// A house in this folder.
    ///
    /// # Errors
    /// The file system's, with the folder.
    pub(crate) fn build(
        settings: Settings,
        folder: PathBuf,
        interrupted: Arc<AtomicBool>,
    ) -> Result<House, String> {
        let content = Content::below(&folder.join("content"))?;
        Ok(House {
            settings,
            content,
            interrupted,
            folder,
            nginx: process::find("nginx"),
            registry: process::find("docker-registry").or_else(|| process::find("registry")),
            origin: None,
            published: BTreeSet::new(),
            proven: BTreeSet::new(),
        })
    }

    /// Whether the run is to end.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// What the programs call themselves.
    pub(crate) fn versions(&self, names: &[String]) -> Vec<ServerVersion> {
        let version = |name: &str| match name {
            RINGPORT | RINGPORT_LOGGED => process::version(&self.settings.ringport, "--version"),
            NGINX | NGINX_THREADS | NGINX_CACHE => {
                self.nginx.as_ref().map(|p| process::version(p, "-v")).unwrap_or_default()
            }
            REGISTRY | REGISTRY_PROXY => {
                self.registry.as_ref().map(|p| process::version(p, "--version")).unwrap_or_default()
            }
            _ => String::new(),
        };
        names.iter().map(|n| ServerVersion { name: n.clone(), version: version(n) }).collect()
    }

    /// Puts everything where servers find it: the files lie there already, the origin is pushed to.
    ///
    /// # Errors
    /// That there can be no origin; what the pushes failed with.
    fn publish(&mut self, goods: &Goods) -> Result<(), Trouble> {
        let origin = self.origin()?;
        if self.registry.is_some() {
            let mut connection = Plain::open(origin).map_err(|e| format!("origin: {e}"))?;
            stock::push(&mut connection, goods, &mut self.published)?;
        }
        Ok(())
    }

    /// The origin's address; it is started when it is first asked for, beside the client: while
    /// something is measured it has nothing to do.
    ///
    /// # Errors
    /// That no program for it is here; that it does not start.
    pub(crate) fn origin(&mut self) -> Result<SocketAddr, Trouble> {
        if let Some(origin) = &self.origin {
            return Ok(origin.addr);
        }
        let cores = self.settings.client_cores.as_slice();
        let how = How { workers: 1, ..How::new(cores, self.own_folder("origin")?) };
        let started = match (&self.registry, &self.nginx) {
            (Some(program), _) => {
                registry::start("origin", program, &self.registry_store(), None, &how)?
            }
            (None, Some(program)) => {
                nginx::start("origin", program, Role::Static, self.content.root(), &how)?
            }
            (None, None) => {
                let why = "neither docker-registry nor nginx is on the PATH, and one of them has to \
                           be the origin: apt-get install docker-registry nginx-light";
                // Not the server's: what needs no origin can still be measured.
                return Err(Trouble::Failed(why.to_owned()));
            }
        };
        let addr = started.addr;
        self.origin = Some(started);
        Ok(addr)
    }

    /// Publishes what is to be served, starts a server on the servers' cores, and looks whether it
    /// serves all of it. Its folder, and with it what it has stored, is the same each time.
    ///
    /// # Errors
    /// That it is not here; that it does not start; what was not right.
    pub(crate) fn open(&mut self, server: &str, goods: &Goods) -> Result<Running, Trouble> {
        let cores = self.settings.server_cores.clone();
        self.open_on(server, &cores, goods)
    }

    /// The same on other cores.
    ///
    /// # Errors
    /// As `open`.
    pub(crate) fn open_on(
        &mut self,
        server: &str,
        cores: &[usize],
        goods: &Goods,
    ) -> Result<Running, Trouble> {
        self.publish(goods)?;
        let how = How::new(cores, self.own_folder(server)?);
        let running = self.start(server, &how)?;
        self.prove(&running, goods)?;
        Ok(running)
    }

    fn start(&mut self, server: &str, how: &How) -> Result<Running, Trouble> {
        if let Some(given) = self.settings.given.iter().find(|g| g.name == server).cloned() {
            let origin = self.origin().ok();
            return Ok(given::start(&given, origin, how)?);
        }
        let program = self.program(server)?;
        let root = self.content.root().to_owned();
        let running = match server {
            RINGPORT => ringport::start(server, &program, self.origin()?, "off", how),
            RINGPORT_LOGGED => {
                let log = how.folder.join("access.log");
                ringport::start(server, &program, self.origin()?, &log.to_string_lossy(), how)
            }
            NGINX => nginx::start(server, &program, Role::Static, &root, how),
            NGINX_THREADS => nginx::start(server, &program, Role::StaticThreads, &root, how),
            NGINX_CACHE => nginx::start(server, &program, Role::Cache(self.origin()?), &root, how),
            REGISTRY => registry::start(server, &program, &self.registry_store(), None, how),
            REGISTRY_PROXY => {
                let store = how.folder.join("store");
                registry::start(server, &program, &store, Some(self.origin()?), how)
            }
            _ => Err(format!("no server is called {server}")),
        };
        Ok(running?)
    }

    /// Fetches everything once: compared with its digest the first time, and in memory afterwards.
    /// What a given server does not have is pushed to it.
    ///
    /// # Errors
    /// What was not right.
    fn prove(&mut self, running: &Running, goods: &Goods) -> Result<(), Trouble> {
        let mut connection =
            Plain::open(running.addr).map_err(|e| format!("{}: {e}", running.name))?;
        let is_given = self.settings.given.iter().any(|given| given.name == running.name);
        if is_given && stock::lacks(&mut connection, goods)? {
            stock::push(&mut connection, goods, &mut BTreeSet::new())?;
        }
        for (target, digest) in stock::targets(goods) {
            let name = (running.name.clone(), target.clone());
            let is_known = self.proven.contains(&name);
            stock::prove(&mut connection, &target, &digest, !is_known)?;
            if running.name.starts_with(RINGPORT) && !is_known {
                stock::await_stored(&mut connection, &target)?;
            }
            self.proven.insert(name);
        }
        Ok(())
    }

    /// What a server calls that object.
    ///
    /// # Errors
    /// That it has no name for it.
    pub(crate) fn etag(&self, running: &Running, ask: &Ask) -> Result<String, Trouble> {
        let answer = Plain::open(running.addr).and_then(|mut c| c.ask(&ask.bytes));
        let answer = answer.map_err(|e| format!("{}: {}: {e}", running.name, ask.name))?;
        let etag = answer.header("etag").map(str::to_owned);
        Ok(etag.ok_or_else(|| format!("{}: {}: no ETag", running.name, ask.name))?)
    }

    /// A folder of the run.
    ///
    /// # Errors
    /// The file system's, with the folder.
    pub(crate) fn own_folder(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.folder.join("servers").join(name);
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(folder)
    }

    fn registry_store(&self) -> PathBuf {
        self.folder.join("registry")
    }

    fn program(&self, server: &str) -> Result<PathBuf, Trouble> {
        let missing = |name: &str, package: &str| {
            Trouble::Missing(format!("no {name} on the PATH: apt-get install {package}"))
        };
        match server {
            RINGPORT | RINGPORT_LOGGED if self.settings.ringport.is_file() => {
                Ok(self.settings.ringport.clone())
            }
            RINGPORT | RINGPORT_LOGGED => Err(Trouble::Missing(format!(
                "no file {}: cargo build --release, or name it with --ringport",
                self.settings.ringport.display()
            ))),
            NGINX | NGINX_THREADS | NGINX_CACHE => {
                self.nginx.clone().ok_or_else(|| missing("nginx", "nginx-light"))
            }
            _ => self.registry.clone().ok_or_else(|| missing("docker-registry", "docker-registry")),
        }
    }
}
