//! The client against scripted servers on 127.0.0.0/8: what lying, slow and greedy upstreams do.

mod bad_tls;
mod bodies;
mod closed_world;
mod endpoints;
mod names;
mod origin;
mod redirect_graphs;
mod redirects;
mod sign_in;
mod tiers;
mod tls;
mod world;

pub(super) use world::on_workers;
