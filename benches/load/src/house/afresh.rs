//! Servers that have stored nothing yet.

use std::net::SocketAddr;

use super::{House, NGINX_CACHE, REGISTRY, REGISTRY_PROXY, RINGPORT, Trouble};
use crate::servers::counting::Counting;
use crate::servers::nginx::{self, Role};
use crate::servers::{How, Running, registry, ringport};

impl House {
    /// How a server is started that has stored nothing yet: in a folder that was emptied.
    ///
    /// # Errors
    /// The file system's, with the folder.
    pub(crate) fn afresh(&self, server: &str) -> Result<How, String> {
        let folder = self.own_folder(&format!("afresh-{server}"))?;
        std::fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let folder = self.own_folder(&format!("afresh-{server}"))?;
        Ok(How::new(&self.settings.server_cores, folder))
    }

    /// The origin of mirrors that have stored nothing yet.
    ///
    /// # Errors
    /// The network's.
    pub(crate) fn counting(&self) -> Result<Counting, String> {
        Counting::start(self.content.root(), &self.settings.client_cores)
    }

    /// Starts a mirror that has stored nothing before this origin.
    ///
    /// # Errors
    /// That it is not here, or no mirror; that it does not start.
    pub(crate) fn start_cold(&self, server: &str, origin: SocketAddr) -> Result<Running, Trouble> {
        let (program, how) = (self.program(server)?, self.afresh(server)?);
        let running = match server {
            RINGPORT => ringport::start(server, &program, origin, "off", &how),
            NGINX_CACHE => {
                nginx::start(server, &program, Role::Cache(origin), self.content.root(), &how)
            }
            REGISTRY_PROXY => {
                let store = how.folder.join("store");
                registry::start(server, &program, &store, Some(origin), &how)
            }
            _ => Err(format!("{server} is no mirror")),
        };
        Ok(running?)
    }

    /// Starts a registry that takes pushes and has nothing yet.
    ///
    /// # Errors
    /// That it is not here, or takes none; that it does not start.
    pub(crate) fn start_empty(&self, server: &str) -> Result<Running, Trouble> {
        let (program, how) = (self.program(server)?, self.afresh(server)?);
        let running = match server {
            RINGPORT => ringport::start_hosted(server, &program, &how),
            REGISTRY => {
                let store = how.folder.join("store");
                registry::start(server, &program, &store, None, &how)
            }
            _ => Err(format!("{server} takes no pushes")),
        };
        Ok(running?)
    }
}
