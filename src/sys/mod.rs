//! What an operating system must supply; Linux supplies it.
//!
//! | file | what it gives |
//! |---|---|
//! | `descriptor` | descriptors that are kept, in a program that closes what it does not know |
//! | `memory` | anonymous sealed memory, preallocation, the page that a fork wipes |
//! | `large` | mappings of whole files, on huge pages |
//! | `wait` | sleeping on one or two shared words, waking, the asymmetric barrier |
//! | `liveness` | byte locks that the kernel drops when their process dies |
//! | `fork` | a fork that gives the caller a sibling; what `ps` shows |
//! | `thread` | what a thread hands on to the programs that it executes |
//! | `stack` | where a thread's stack ends |
//! | `overflow` | what a child says when its stack is used up |
//! | `program` | how the running program was started |
//! | `process` | sockets that carry descriptors, process descriptors, signals, the running image |
//!
//! A port supplies the same names. Nothing outside this folder makes a system call on segments.

mod descriptor;
mod fork;
mod large;
mod liveness;
mod memory;
mod overflow;
mod process;
mod program;
mod stack;
mod thread;
mod wait;

pub(crate) use descriptor::*;
pub(crate) use fork::*;
pub(crate) use large::*;
pub(crate) use liveness::*;
pub(crate) use memory::*;
pub(crate) use overflow::*;
pub(crate) use process::*;
pub(crate) use program::*;
pub(crate) use stack::*;
pub(crate) use thread::*;
pub(crate) use wait::*;
