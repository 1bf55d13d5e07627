//! The client against scripted servers on 127.0.0.0/8: what lying, slow and greedy upstreams do.

mod bodies;
mod endpoints;
mod names;
mod origin;
mod redirects;
mod sign_in;
mod tiers;
mod tls;
mod world;

pub(super) use world::on_workers;
