//! Ringport: an OCI registry mirror for high-volume CI.
//!
//! The modules are the stages of a request, in layers that import only downward; ARCHITECTURE.md
//! is the map.

pub mod config;
pub mod http;
pub mod keeping;
pub mod limits;
pub mod oci;

pub mod runtime;
pub mod telemetry;

pub mod catalog;
pub mod index;
pub mod plugin;
pub mod storage;
pub mod transfer;
pub mod upstream;

pub mod registry;

pub mod api;
pub mod auth;
pub mod server;

pub mod cli;
