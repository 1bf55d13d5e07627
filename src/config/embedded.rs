//! Where a configuration comes from: a file, a text, or the one inside the binary.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::check::{FileChecks, check};
use super::{Config, ConfigError};

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
        let taken = |admin: &SocketAddr| admin.port() != 0 && listen.contains(admin);
        if let Some(admin) = self.server.admin.filter(taken) {
            return Err(ConfigError::ListenIsAdmin { admin });
        }
        if !listen.is_empty() {
            self.server.listen = listen;
        }
        if let Some(root) = data {
            self.storage.root = root;
        }
        Ok(())
    }
}
