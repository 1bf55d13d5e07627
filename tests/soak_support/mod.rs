//! What the soak test stands on: an origin whose content is made up as it is sent, and a clock
//! that goes as fast as the trace.

#![allow(unreachable_pub)]
// The bans on blocking calls are for workers; nothing here runs on one.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod clock;
pub mod origin;
pub mod sampler;
