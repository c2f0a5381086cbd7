#![doc = include_str!("../README.md")]
// Under loom only the pure protocols are compiled, by tests/loom.rs itself.
#![cfg(not(loom))]

mod chunk;
mod cookie;
pub mod docs;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod door;
mod error;
mod frozen;
mod handle;
mod kin;
mod latch;
mod layout;
mod lock;
mod mapped;
mod message;
mod named;
mod pipe;
mod pool;
mod process;
mod queue;
mod ring;
mod roster;
mod sealed;
mod segment;
mod signal;
mod stream;
mod sync;
mod sys;
mod trace;
mod unwind;

pub use error::{
    Corrupt, Death, DecodeError, EncodeError, RecvError, SegmentError, SendError, Undeliverable,
    WorkerExit,
};
pub use frozen::Frozen;
pub use handle::Fd;
pub use lock::{Abandoned, Guard, Lock, LockError};
pub use message::{Message, Plain, PlainData};
pub use pipe::{Listener, Pipe, PipeBuilder, PipeEnd, PipeError};
pub use pool::{
    CurrentWorker, Full, Imap, Insights, Items, OnDeath, Payload, Pool, PoolBuilder, PoolError,
    PoolStats, PoolView, QueueWait, SlowTask, Task, TaskError, WithContext, Worker, WorkerInsights,
    current_worker,
};
pub use process::{
    Child, ContextFunction, Func, Function, JoinError, MapFunction, Output, Process,
    ProcessBuilder, SpawnError, StartMethod, Stdio, active_children, current_process, end_zygote,
    init, parent_process, wait_any,
};
pub use queue::{
    InPlace, Iter, Lease, Loan, LoanError, Queue, QueueBuilder, QueueError, QueueStats, Receiver,
    Sender,
};
pub use segment::Segment;
