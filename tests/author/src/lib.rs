//! What an author of libraries makes of the crate: an actor supervisor, a queue of jobs, decorators, a pre-fork server.
//!
//! Errors are `anyhow`'s throughout, and there is no `unsafe`.

pub mod actors;
pub mod decorate;
pub mod jobs;
pub mod prefork;

/// Longer than anything here takes, also on a busy machine.
#[cfg(test)]
const LONG: std::time::Duration = std::time::Duration::from_secs(30);
