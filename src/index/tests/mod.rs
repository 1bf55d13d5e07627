//! Tests of the index, by what they threaten it with.

mod crash;
mod damage;
mod filling;
mod format;
mod model;
mod model_checked;
mod plain_memory;
mod readers;
mod sampling;
mod support;
mod uses;
