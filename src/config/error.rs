//! What is wrong with a configuration, told so that it can be put right without a manual.

use std::fmt;

/// Why there is no [`Config`](super::Config).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file itself could not be read.
    #[error("cannot read the configuration {file}: {source}")]
    Unreadable {
        /// The path as given.
        file: String,
        /// What the operating system answered.
        source: std::io::Error,
    },
    /// `--listen` names an address that the configuration gives to something else.
    #[error(
        "--listen {address}: expected an address of its own, found the one of {key}; choose \
         another port, or move {key} in a configuration (--config FILE)"
    )]
    ListenIsTaken {
        /// The address that both want.
        address: std::net::SocketAddr,
        /// The key that has it.
        key: &'static str,
    },
    /// `--listen` names an address off loopback, and everyone may write there.
    #[error(
        "--listen {address}: expected a loopback address, since the configuration lets everyone \
         push, delete or list (\"anonymous\"); name users there, or if everyone who reaches that \
         address is meant, add `anonymous_writes_public = true` to [auth]"
    )]
    ListenIsOpen {
        /// The address.
        address: std::net::SocketAddr,
    },
    /// A plugin file is to take a configured one's place, and nobody says which one's.
    #[error("--plugin {file}: expected NAME={file} with one of the configured plugins: {known}")]
    WhichPlugin {
        /// The file as it was named.
        file: String,
        /// The names there are.
        known: String,
    },
    /// The text was read and refused; never empty. One line per problem.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// The problems of a text that was read; empty when it could not be.
    pub fn problems(&self) -> &[Problem] {
        match self {
            ConfigError::Invalid(problems) => problems,
            _ => &[],
        }
    }
}

/// One thing to put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named on the command line.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key's path, such as `upstream[0].tag_ttl`; empty for a text that is not TOML.
    pub key: String,
    /// What may stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
    /// The way out, when there is an obvious one.
    pub remedy: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "key `{}`: ", self.key)?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}
