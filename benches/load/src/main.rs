//! `ringport-bench`: starts Ringport and its peers on loopback, loads them in turns, and says how
//! they did.

mod record;
mod report;

fn main() {}
