//! Process, Pool, Queue, Pipe and Lock over shared memory.

// Under loom only the pure protocols are compiled, by tests/loom.rs itself.
#![cfg(not(loom))]

mod error;
mod handle;
mod kin;
mod layout;
mod message;
mod named;
mod ring;
mod roster;
mod segment;
mod signal;
mod sync;
mod sys;

pub use error::{Corrupt, SegmentError};
pub use message::{DecodeError, EncodeError, Message, Plain};
pub use segment::Segment;
