//! Why a plugin was refused: always with what was expected, what was found and the way out.

use std::io;
use std::path::{Path, PathBuf};

use ringport_plugin_abi as abi;

/// A plugin that can't be used; the server does not start with it.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin}{}: {fault}", in_parentheses(path.as_deref()))]
pub struct PluginError {
    /// Its name in the configuration.
    pub plugin: String,
    /// The file, unless it is linked in.
    pub path: Option<PathBuf>,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

fn in_parentheses(path: Option<&Path>) -> String {
    path.map(|path| format!(" ({})", path.display())).unwrap_or_default()
}

/// What was wrong, in the order of the checks. The variants' texts are their documentation.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    #[error("`routing.resolvers` names it, but there is no [[plugin]] of that name; declare it")]
    Undeclared,
    #[error("`standard` is the name of the built-in resolver; give the [[plugin]] another one")]
    NameTaken,
    #[error(
        "the namespace {namespace} stands for two upstreams, {first} and {second}; it may be the \
         name or an alias of one only"
    )]
    AmbiguousNamespace { namespace: String, first: String, second: String },

    #[error("expected an absolute path, found a relative one; code is not looked up by search")]
    RelativePath,
    #[error("the file can't be read: {0}; check `path` and the permissions of the folders above")]
    Unreadable(#[source] io::Error),
    #[error("expected a regular file, found {found}; `path` must name the .so itself")]
    NotAFile { found: &'static str },
    #[error(
        "expected a file owned by root or by the server's user (uid {expected}), found owner uid \
         {found}; whoever owns it could replace the server's code: chown it"
    )]
    ForeignOwner { expected: u32, found: u32 },
    #[error(
        "expected a file that only its owner may write to, found mode {mode:04o}; run chmod go-w"
    )]
    WritableByOthers { mode: u32 },
    #[error("expected at most {max} bytes, found {found}; that is hardly a plugin")]
    TooLarge { max: u64, found: u64 },
    #[error(
        "expected sha256 {expected}, found {found}; install the pinned file, or correct `sha256` \
         if you trust this one"
    )]
    WrongDigest { expected: String, found: String },
    #[error(
        "no private copy of it can be made in memory: {0}; the server needs memfd_create and /proc"
    )]
    NoCopy(#[source] io::Error),
    #[error("the dynamic linker refused it: {0}; is it a shared object for this machine?")]
    NotLoadable(String),
    #[error(
        "expected the exported function `{}`, found none; export it (Rust: `export!`, C: \
         ringport_plugin.h)",
        abi::ENTRY_SYMBOL
    )]
    NoEntry,

    #[error(
        "`{}` returned null, so the plugin refuses a host of ABI {}.{}; use a newer plugin or an \
         older server",
        abi::ENTRY_SYMBOL,
        abi::ABI_MAJOR,
        abi::ABI_MINOR
    )]
    RefusedHost,
    #[error("the plugin table is not aligned to 8 bytes; return the address of a ringport_plugin")]
    Misaligned,
    #[error(
        "plugin table: expected magic {:#018x}, found {found:#018x}; set `magic` to \
         RINGPORT_PLUGIN_MAGIC",
        abi::PLUGIN_MAGIC
    )]
    WrongMagic { found: u64 },
    #[error(
        "plugin table: expected a size of at least {} bytes, found {found}; set `size` to \
         sizeof(ringport_plugin)",
        abi::PLUGIN_SIZE_MIN
    )]
    ShortTable { found: u32 },
    #[error(
        "expected ABI major {}, found {found}; rebuild the plugin with this server's \
         ringport_plugin.h",
        abi::ABI_MAJOR
    )]
    OtherMajor { found: u32 },
    #[error(
        "expected ABI {}.{} or an older minor, found {}.{found}; use a newer server, or build the \
         plugin for the older minor",
        abi::ABI_MAJOR,
        abi::ABI_MINOR,
        abi::ABI_MAJOR
    )]
    NewerMinor { found: u32 },
    #[error(
        "expected no capability bits but {known:#x} (ABI {}.{minor} defines no others), found \
         {found:#x} beside them; clear them in `capabilities`, or raise `abi_minor`",
        abi::ABI_MAJOR
    )]
    UnknownCapabilities { found: u64, known: u64, minor: u32 },
    #[error(
        "plugin table: expected a `name` of 1 to {} bytes [a-z][a-z0-9_-]*, found {found}",
        abi::NAME_BYTES_MAX
    )]
    BadName { found: String },
    #[error(
        "plugin table: expected a `version` of 1 to {} printable ASCII bytes, found {found}",
        abi::VERSION_BYTES_MAX
    )]
    BadVersion { found: String },
    #[error(
        "plugin table: the required hook `{hook}` is null; set it (`place` and `refresh` are \
         required by their bit in `capabilities` only)"
    )]
    MissingHook { hook: &'static str },

    #[error("`{hook}` refused with {status}: {message}")]
    Refused { hook: &'static str, status: String, message: String },
    #[error("`{hook}` returned OK without setting *out; set it, or return an error")]
    NoHandle { hook: &'static str },
    #[error("worker {worker} runs already; each worker is started once at a time")]
    WorkerRuns { worker: usize },
}
