//! Write a Ringport resolver in safe Rust: implement [`Resolver`], name it in [`export!`], build a
//! `cdylib`. `plugins/README.md` walks through it; `plugins/standard` is a complete example.
//!
//! ```
//! use ringport_plugin_sdk::{Answer, Refusal, Request, Resolver, Setup, Verdict};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     denied: String,
//! }
//!
//! struct Corp {
//!     denied: String,
//! }
//!
//! impl Resolver for Corp {
//!     const NAME: &'static str = "corp";
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!     type Config = Config;
//!     type Worker = ();
//!
//!     fn configure(_setup: &Setup<'_>, config: Config) -> Result<Corp, Refusal> {
//!         Ok(Corp { denied: config.denied })
//!     }
//!
//!     fn start_worker(&self, _number: u32) -> Result<(), Refusal> {
//!         Ok(())
//!     }
//!
//!     fn resolve(
//!         &self,
//!         _worker: &mut (),
//!         request: &Request<'_>,
//!         answer: &mut Answer<'_>,
//!     ) -> Result<Verdict, Refusal> {
//!         match request.query_ns {
//!             Some(ns) if ns == self.denied => {
//!                 Err(Refusal::denied(format!("{ns} is not allowed here")))
//!             }
//!             Some("docker.io") => {
//!                 answer.rule("Docker Hub through the company's proxy");
//!                 answer.upstream("artifactory.corp", &format!("hub/{}", request.name));
//!                 Ok(Verdict::Answered)
//!             }
//!             _ => Ok(Verdict::Decline),
//!         }
//!     }
//! }
//!
//! ringport_plugin_sdk::export!(Corp);
//! # fn main() {}
//! ```
//!
//! **Invariant:** a plugin needs no `unsafe`: pointers live in `ffi`, `testing::host` and
//! `testing::life` only.
//! **Invariant:** nothing unwinds into the host. A panic becomes INTERNAL with the panic's text;
//! after it that worker's state is never touched again except to drop it, and answers UNAVAILABLE.
//! **Invariant:** null, empty and non-UTF-8 strings from the host can't reach a resolver as
//! anything but `None`, `""` or a refusal.
//!
//! Deliberately absent: threads, I/O, logging and global state, which a resolver should not have.
//! Tests: beside the code, and `tests/life.rs` runs a plugin through the vtable.

mod config;
mod ffi;
pub mod names;
mod place;
mod resolver;
mod setup;
pub mod testing;

/// The examples of the plugin guide, compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct PluginGuide;

pub use ffi::{Answer, PlaceAnswer, table};
pub use place::{Class, Moment, PlaceRequest, Placement, Purpose, Remote};
pub use resolver::{By, Candidate, Kind, NsSource, Refusal, Request, Resolver, Status, Verdict};
pub use setup::{Header, Setup, Upstream};

/// The ABI itself, for the code that [`export!`] makes.
#[doc(hidden)]
pub use ringport_plugin_abi as abi;

/// Makes `pub static PLUGIN`, the function table of a [`Resolver`], and exports the one symbol
/// the host looks up, `ringport_plugin_entry`. Once in a crate, at its root.
///
/// An rlib of the crate carries the symbol too, so at most one plugin can be linked into a
/// program; others are loaded. A program that links one in uses `PLUGIN` and exports nothing.
#[macro_export]
macro_rules! export {
    ($resolver:ty) => {
        /// The plugin's function table, the same for the linked-in and the loaded form.
        pub static PLUGIN: $crate::abi::Plugin = $crate::table::<$resolver>();

        /// The one exported symbol; see `ringport_plugin.h`.
        #[unsafe(no_mangle)]
        pub extern "C" fn ringport_plugin_entry(
            _host_major: u32,
            _host_minor: u32,
        ) -> *const $crate::abi::Plugin {
            &PLUGIN
        }
    };
}
