//! Where a configuration comes from: a file, a text, or the one inside the binary.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::check::{FileChecks, check};
use super::model::PluginConfig;
use super::{Config, ConfigError};
use crate::limits::PLUGIN_BUDGET;

/// `config/default.toml`: what runs without `--config`.
pub(super) const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// How problems name it; only a broken build would show one.
const DEFAULT_NAME: &str = "(embedded default.toml)";

impl Config {
    /// Reads the file at `path` and everything it names: secret files must exist and be closed.
    /// Blocks on the file system; call it before the workers start.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => check(&text, &file, FileChecks::Made),
            Err(source) => Err(ConfigError::Unreadable { file, source }),
        }
    }

    /// Reads `text`, calling it `file` in problems, without a look at the files it names.
    pub fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
        check(text, file, FileChecks::Skipped)
    }

    /// The configuration inside the binary. A test keeps it free of problems.
    pub fn embedded() -> Result<Config, ConfigError> {
        Config::parse(DEFAULT_TOML, DEFAULT_NAME)
    }

    /// Takes over what the command line says: `--listen` (none keeps the file's) and `--data`.
    pub fn override_with(
        &mut self,
        listen: Vec<SocketAddr>,
        data: Option<PathBuf>,
    ) -> Result<(), ConfigError> {
        let taken = |address: &&SocketAddr| address.port() != 0 && listen.contains(*address);
        let tls = self.server.tls.iter().flat_map(|tls| &tls.listen);
        let others = [
            ("server.admin", self.server.admin.iter().find(taken)),
            ("server.tls_listen", tls.clone().find(taken)),
        ];
        if let Some((key, &address)) = others.iter().find_map(|(key, at)| Some((*key, (*at)?))) {
            return Err(ConfigError::ListenIsTaken { address, key });
        }
        let public = listen.iter().find(|address| !address.ip().is_loopback());
        if let (Some(address), true) = (public, self.is_open_by_oversight()) {
            return Err(ConfigError::ListenIsOpen { address: *address });
        }
        if !listen.is_empty() {
            self.server.listen = listen;
        }
        if let Some(root) = data {
            self.storage.root = root;
        }
        Ok(())
    }

    /// Puts the plugin file at `path` (absolute) in the place of the configured plugin `name`,
    /// whose `[plugin.config]` it gets; without a name in the place of the only one. One that is
    /// not configured gets an empty configuration and is asked first. A pin is dropped.
    pub fn with_plugin(&mut self, name: Option<&str>, path: PathBuf) -> Result<(), ConfigError> {
        let file = path.display().to_string();
        let name = match (name, self.plugins.as_slice()) {
            (Some(name), _) => name.to_owned(),
            (None, [only]) => only.name.clone(),
            (None, []) => "plugin".to_owned(),
            (None, several) => {
                let known: Vec<&str> = several.iter().map(|p| p.name.as_str()).collect();
                return Err(ConfigError::WhichPlugin { file, known: known.join(", ") });
            }
        };
        match self.plugins.iter_mut().find(|plugin| plugin.name == name) {
            Some(plugin) => (plugin.path, plugin.sha256) = (path, None),
            None => self.plugins.push(PluginConfig {
                name: name.clone(),
                path,
                sha256: None,
                budget: PLUGIN_BUDGET,
                config: toml::Table::new(),
            }),
        }
        if !self.routing.resolvers.contains(&name) {
            self.routing.resolvers.insert(0, name);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_takes_the_place_of_another() {
        let plugin = |name: &str| {
            format!("[[plugin]]\nname = '{name}'\npath = '/{name}.so'\n[plugin.config]\nx = 1\n")
        };
        let config = |resolvers: &str, plugins: &[&str]| {
            let plugins: String = plugins.iter().map(|name| plugin(name)).collect();
            let text = format!("[routing]\nresolvers = {resolvers}\n{plugins}");
            Config::parse(&text, "test.toml").unwrap()
        };
        let mut none = config("['standard']", &[]);
        none.with_plugin(None, "/new.so".into()).unwrap();
        assert_eq!(none.routing.resolvers, ["plugin", "standard"]);
        assert!(none.plugins[0].config.is_empty());
        let mut one = config("['a', 'standard']", &["a"]);
        one.with_plugin(None, "/new.so".into()).unwrap();
        assert_eq!(one.routing.resolvers, ["a", "standard"]);
        assert_eq!(one.plugins[0].path, PathBuf::from("/new.so"));
        assert_eq!(one.plugins[0].config.len(), 1, "its configuration stays");
        let mut two = config("['a', 'standard']", &["a", "b"]);
        let error = two.with_plugin(None, "/new.so".into()).expect_err("which?").to_string();
        assert!(error.contains("NAME=/new.so") && error.ends_with("a, b"), "{error}");
        two.with_plugin(Some("b"), "/new.so".into()).unwrap();
        assert_eq!(two.routing.resolvers, ["b", "a", "standard"]);
        assert_eq!(two.plugins[1].path, PathBuf::from("/new.so"));
    }
}
