//! Why there is no pool, and why a task has no value.

use std::fmt;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Death, SegmentError, WorkerExit, equal_by_debug, whole};
use crate::message::{DecodeError, EncodeError};
use crate::process::{SpawnError, at};

/// Why a pool could not be made, or could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A pool of no workers was asked for.
    #[error("a pool needs at least 1 worker, 0 were asked for")]
    NoWorkers,
    /// More workers were asked for than a pool can have.
    #[error("a pool has at most {limit} workers, {asked} were asked for")]
    TooManyWorkers {
        /// How many were asked for.
        asked: usize,
        /// How many there can be.
        limit: usize,
    },
    /// A worker could not be started.
    #[error(transparent)]
    Spawn(SpawnError),
    /// There was no memory to share.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The arguments of the initializer cannot be sent.
    #[error("the initializer's arguments cannot be sent")]
    Encode(#[source] EncodeError),
    /// The pool's own thread could not be started.
    #[error("the pool's thread could not be started")]
    Thread(#[source] io::Error),
    /// Something was left to do at the end of the time that was given for it, and was ended.
    #[error("not all that was submitted had ended in time; the rest was terminated")]
    Terminated,
    /// No worker stays alive.
    #[error("the pool is broken: {why}")]
    Broken {
        /// Payload happened to the last worker.
        why: String,
    },
}

equal_by_debug!(PoolError);

impl From<SpawnError> for PoolError {
    fn from(error: SpawnError) -> PoolError {
        PoolError::Spawn(error)
    }
}

impl From<EncodeError> for PoolError {
    fn from(error: EncodeError) -> PoolError {
        PoolError::Encode(error)
    }
}

/// The pool's queue is full: as many items as its limit allows have been submitted and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full<T> {
    /// The arguments, or the items, that were refused.
    pub value: T,
    /// The limit, in items.
    pub limit: u64,
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit;
        write!(
            f,
            "the pool's queue is full: its limit (queue_limit) is {limit} items"
        )
    }
}

impl<T: fmt::Debug> std::error::Error for Full<T> {}

/// Why a task has no value.
///
/// Every task ends in exactly one way: its value, or one of these. `item` is the index of the item in
/// what was given to the call, 0 for a single call; `pid` and `name` are those of the worker that had it.
///
/// It travels in messages: a function may run a pool of its own and return what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The function panicked. The worker goes on.
    #[error(
        "item {item} panicked in {name} (pid {pid}){}: {message}",
        at(location)
    )]
    Panicked {
        /// Index of the item.
        item: usize,
        /// Process ID of the worker.
        pid: u32,
        /// Name of the worker.
        name: String,
        /// The panic's text.
        message: String,
        /// File, line and column; empty if the panic did not say where it began (`resume_unwind`).
        location: String,
        /// The stack at that moment.
        ///
        /// For its first panic a worker looks up the names in the debug symbols of the program and its
        /// libraries, which takes 1 to 30 ms, and 60 more where those of the C library are installed.
        backtrace: String,
    },
    /// The worker died in the function. The pool replaces it and goes on.
    #[error("{name} (pid {pid}) {how} in item {item}, attempt {attempt}")]
    WorkerDied {
        /// Index of the item.
        item: usize,
        /// Process ID of the worker.
        pid: u32,
        /// Name of the worker.
        name: String,
        /// How it died.
        how: WorkerExit,
        /// How often the item was begun, this time included.
        attempt: u32,
    },
    /// The function ran longer than the pool's limit, and its worker was killed and replaced; or the caller
    /// did not want to wait any longer, and the task goes on.
    #[error("item {item} was not done within {limit:?}")]
    TimedOut {
        /// Index of the item.
        item: usize,
        /// Process ID of the worker that was killed; `None` if only the caller stopped waiting.
        pid: Option<u32>,
        /// Name of the worker that was killed.
        name: Option<String>,
        /// The limit that was passed.
        limit: Duration,
    },
    /// The task was cancelled before it began.
    #[error("item {item} was cancelled")]
    Cancelled {
        /// Index of the item.
        item: usize,
    },
    /// The arguments could not be read by the worker, or the result not by the caller.
    #[error("the {what} of item {item} cannot be read")]
    Decode {
        /// Index of the item.
        item: usize,
        /// Process ID of the worker; `None` if the caller failed.
        pid: Option<u32>,
        /// Name of the worker; `None` if the caller failed.
        name: Option<String>,
        /// Arguments, result or context.
        what: Payload,
        /// Payload is wrong with the bytes.
        #[source]
        error: DecodeError,
    },
    /// The arguments could not be written by the caller, or the result not by the worker.
    #[error("the {what} of item {item} cannot be sent")]
    Encode {
        /// Index of the item.
        item: usize,
        /// Process ID of the worker; `None` if the caller failed.
        pid: Option<u32>,
        /// Name of the worker; `None` if the caller failed.
        name: Option<String>,
        /// Arguments, result or context.
        what: Payload,
        /// Payload is wrong with the value.
        #[source]
        error: EncodeError,
    },
    /// There is no memory for the arguments or the result.
    #[error("no shared memory for item {item}: {why}")]
    NoMemory {
        /// Index of the item.
        item: usize,
        /// Payload was asked for.
        why: String,
    },
    /// The task was killed, and its worker with it, which is replaced.
    #[error("item {item} was killed, with {name} (pid {pid})")]
    Killed {
        /// Index of the item.
        item: usize,
        /// Process ID of the worker.
        pid: u32,
        /// Name of the worker.
        name: String,
    },
    /// The worker used more memory than the pool's limit for each, and was ended and replaced.
    #[error("item {item} ended {name} (pid {pid}): its memory is limited to {limit} bytes")]
    OutOfMemory {
        /// Index of the item.
        item: usize,
        /// Process ID of the worker.
        pid: u32,
        /// Name of the worker.
        name: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// It has no result, and nobody can say why: there was no memory for the reason, or a worker has written over
    /// memory of the pool that was not its own.
    #[error("item {item} has no result, and the reason is lost: {why}")]
    Unexplained {
        /// Index of the item.
        item: usize,
        /// What was found.
        why: String,
    },
    /// The function is not part of the program that the workers run.
    #[error("the function of item {item} is not part of the program that the workers run: {why}")]
    NoFunction {
        /// Index of the item.
        item: usize,
        /// Payload is wrong with it.
        why: String,
    },
    /// The pool was closed, or ended before the task did.
    #[error("the pool was closed before item {item} was done")]
    PoolClosed {
        /// Index of the item.
        item: usize,
    },
    /// No worker stays alive.
    #[error("the pool is broken, item {item} is not done: {why}")]
    PoolBroken {
        /// Index of the item.
        item: usize,
        /// Payload happened to the last worker.
        why: String,
    },
    /// The pool belongs to the process that this one was forked from.
    #[error("this process was forked by the user; a pool of its parent cannot be used here")]
    Forked,
}

/// Payload of an item could not be read or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Payload {
    /// Payload the function is called with.
    Arguments,
    /// Payload it returns.
    Result,
    /// Payload is sent once per worker.
    Context,
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Payload::Arguments => "argument",
            Payload::Result => "result",
            Payload::Context => "context",
        })
    }
}

impl TaskError {
    /// Index of the item in what was given to the call; 0 for a single call.
    pub fn item(&self) -> usize {
        match self {
            TaskError::Panicked { item, .. }
            | TaskError::WorkerDied { item, .. }
            | TaskError::TimedOut { item, .. }
            | TaskError::Cancelled { item }
            | TaskError::Decode { item, .. }
            | TaskError::Encode { item, .. }
            | TaskError::NoMemory { item, .. }
            | TaskError::Killed { item, .. }
            | TaskError::OutOfMemory { item, .. }
            | TaskError::Unexplained { item, .. }
            | TaskError::NoFunction { item, .. }
            | TaskError::PoolClosed { item }
            | TaskError::PoolBroken { item, .. } => *item,
            TaskError::Forked => 0,
        }
    }

    /// Which worker died, and how, if that is why.
    pub fn death(&self) -> Option<Death> {
        match self {
            TaskError::WorkerDied { pid, name, how, .. } => {
                Some(Death::new(*pid, Some(name), *how))
            }
            _ => None,
        }
    }

    /// The same for another item.
    pub(super) fn at(mut self, at: usize) -> TaskError {
        match &mut self {
            TaskError::Panicked { item, .. }
            | TaskError::WorkerDied { item, .. }
            | TaskError::TimedOut { item, .. }
            | TaskError::Cancelled { item }
            | TaskError::Decode { item, .. }
            | TaskError::Encode { item, .. }
            | TaskError::NoMemory { item, .. }
            | TaskError::Killed { item, .. }
            | TaskError::OutOfMemory { item, .. }
            | TaskError::Unexplained { item, .. }
            | TaskError::NoFunction { item, .. }
            | TaskError::PoolClosed { item }
            | TaskError::PoolBroken { item, .. } => *item = at,
            TaskError::Forked => {}
        }
        self
    }
}

/// What a worker says of an item that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) failure: Failure,
}

impl Report {
    /// The error of `item`.
    pub(super) fn error(self, item: usize) -> TaskError {
        self.failure.of(item, self.pid, &self.name)
    }
}

/// Why an item failed in a living worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Failure {
    Panicked {
        message: String,
        location: String,
        backtrace: String,
    },
    Decode(Payload, DecodeError),
    Encode(Payload, EncodeError),
    NoFunction(String),
    NoMemory(String),
}

impl Failure {
    /// Why an initializer failed, in a line.
    pub(super) fn text(self, name: &str, pid: u32) -> String {
        match self {
            Failure::Panicked {
                message, location, ..
            } => format!(
                "it panicked in {name} (pid {pid}){}: {message}",
                at(&location)
            ),
            other => whole(&other.of(0, pid, name)),
        }
    }

    /// The error of `item`, which the worker `pid` had.
    fn of(self, item: usize, pid: u32, name: &str) -> TaskError {
        let name = name.to_owned();
        match self {
            Failure::Panicked {
                message,
                location,
                backtrace,
            } => TaskError::Panicked {
                item,
                pid,
                name,
                message,
                location,
                backtrace,
            },
            Failure::Decode(what, error) => TaskError::Decode {
                item,
                pid: Some(pid),
                name: Some(name),
                what,
                error,
            },
            Failure::Encode(what, error) => TaskError::Encode {
                item,
                pid: Some(pid),
                name: Some(name),
                what,
                error,
            },
            Failure::NoFunction(why) => TaskError::NoFunction { item, why },
            Failure::NoMemory(why) => TaskError::NoMemory { item, why },
        }
    }
}
