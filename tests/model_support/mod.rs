//! A model of a registry in memory, random operations on it and on a real one, and what each
//! answer must be: what `push_model` and the crash tests of pushes stand on.
//!
//! `contents` is what is pushed, `operation` what is done, `model` what must come of it, `wire`
//! the requests, `subject` the server. `machine` joins them for one client.

// Each test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

pub mod changing;
pub mod clock;
pub mod contents;
pub mod judge;
pub mod ledger;
pub mod machine;
pub mod model;
pub mod observed;
pub mod operation;
pub mod pushing;
pub mod reading;
pub mod resuming;
pub mod shrink;
pub mod subject;
pub mod together;
pub mod uploads;
pub mod wire;
