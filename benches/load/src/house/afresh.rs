//! Servers that have stored nothing yet.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{House, NGINX_CACHE, REGISTRY, REGISTRY_PROXY, RINGPORT, Trouble};
use crate::servers::counting::Counting;
use crate::servers::nginx::{self, Role};
use crate::servers::{How, Running, registry, ringport};

impl House {
    /// How a server is started that has stored nothing yet: in a folder of its own. What was stored
    /// in it before is cut to nothing and stays until the run's end: where many files have just been
    /// removed ext4 looks at each of them again before it makes another, for minutes.
    ///
    /// # Errors
    /// The file system's, with the folder.
    pub(crate) fn afresh(&self, server: &str) -> Result<How, String> {
        static SPENT: AtomicUsize = AtomicUsize::new(0);
        let folder = self.own_folder(&format!("afresh-{server}"))?;
        let spent = self.own_folder("spent")?;
        let spent = spent.join(SPENT.fetch_add(1, Ordering::Relaxed).to_string());
        cut(&folder)
            .and_then(|()| fs::rename(&folder, spent))
            .map_err(|e| format!("{}: {e}", folder.display()))?;
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

/// Cuts all files in a folder to nothing.
fn cut(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            cut(&entry.path())?;
        } else if kind.is_file() {
            OpenOptions::new().write(true).truncate(true).open(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_has_its_names_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("c"), "some").unwrap();
        fs::write(folder.path().join("d"), "more").unwrap();
        cut(folder.path()).unwrap();
        assert_eq!(fs::metadata(deep.join("c")).unwrap().len(), 0);
        assert_eq!(fs::metadata(folder.path().join("d")).unwrap().len(), 0);
    }
}
