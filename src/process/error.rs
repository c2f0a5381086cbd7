//! What can go wrong with a process.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{EVICTED, Evicted, Forbidden, NoNull, WorkerExit, equal_by_debug, os};
use crate::message::{DecodeError, EncodeError};
use crate::sys;

/// Why a process could not be started. Nothing of it is left behind.
///
/// It travels in messages.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A child could not find its work: the start hook does not run in this program (the feature `hook`
    /// is off, or this crate was loaded as part of a library), and `multiproc::init()` was not called.
    #[error(
        "no child was started, for it could not find its work: call `multiproc::init()` as the first line of \
         `main`, or, in a library, when the host program loads it"
    )]
    NotInitialised,
    /// This program has rights that its caller does not have: it is a set-user-ID or set-group-ID program
    /// or has file capabilities, or its real and effective IDs differ. A child would begin as such a program
    /// too, which obeys nobody. A daemon gives up its rights for good (`setresuid`) before it starts any.
    #[error(
        "this program has rights that its caller does not have (set-user-ID, set-group-ID, file capabilities, or real and effective IDs that differ); it may start processes only without them, for example as a service of that user"
    )]
    Privileged,
    /// This program was started as an argument of its loader, which is what would be executed again.
    #[error(
        "the program was started through its loader {}, which would be executed in its place: start {} itself",
        loader.display(), program.display()
    )]
    Loader {
        /// The file that was executed.
        loader: PathBuf,
        /// The file of the program that runs.
        program: PathBuf,
    },
    /// [`StartMethod::Zygote`](super::StartMethod::Zygote) was asked for, and this program can have no zygote.
    #[error(
        "this program can have no zygote: leave the start method unset, or choose `StartMethod::Exec`"
    )]
    NoZygote {
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// The environment and the arguments are longer than what the system passes to a program.
    #[error(
        "the environment and the arguments are too long to execute the program again: together they may have a quarter of the stack's limit (RLIMIT_STACK) and 6 MiB at most, one argument 128 KiB"
    )]
    TooLong {
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// The system, or a filter of system calls, refuses one that processes cannot be started without.
    #[error(
        "the system refuses `{call}`, which processes cannot be started without: allow it in the sandbox (such as a seccomp profile) that this program runs in"
    )]
    Refused {
        /// The system call.
        #[serde(deserialize_with = "known_call")]
        call: Name,
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// The thread that watches over children cannot be made.
    #[error(
        "the thread that watches over children cannot be made. After `unshare(CLONE_NEWPID)` a process makes no threads: start the first process before"
    )]
    NoThread {
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// This process was forked by the user: it holds copies of its parent's children, not its own.
    #[error("this process was forked by the user and cannot start processes")]
    Forked,
    /// The program has closed descriptors of this crate, so that its children cannot be reached any more.
    #[error("{EVICTED}")]
    Evicted,
    /// The function's code lies in a library, where a child cannot find it.
    #[error("the function lies in a library outside the image that holds this crate")]
    ForeignFunction,
    /// The arguments could not be encoded.
    #[error("the arguments cannot be sent")]
    Encode(#[source] EncodeError),
    /// The running program cannot be executed once more.
    #[error("the running program cannot be executed again through /proc/self/exe")]
    Image {
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// The child runs another program than this one.
    #[error("the child runs another image than its parent")]
    OtherImage,
    /// The system allows no more processes or threads.
    #[error("too many processes or threads, the limit (RLIMIT_NPROC) is {}, a control group may set a lower one", shown(*limit))]
    TooManyProcesses {
        /// The limit of this user, if there is one.
        limit: Option<u64>,
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// The process may not open more descriptors.
    #[error("too many open descriptors, the limit (RLIMIT_NOFILE) is {}", shown(*limit))]
    TooManyDescriptors {
        /// The limit in force.
        limit: Option<u64>,
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// There is not enough memory for another process.
    #[error("not enough memory for another process")]
    NoMemory {
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory {}", path.display())]
    CurrentDir {
        /// The directory asked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// The child may not run on those processors.
    #[error("cannot set the processor affinity")]
    Affinity {
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// The child may not have that priority.
    #[error("cannot set the nice value")]
    Nice {
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// There is no `/dev/null`, which the process is given for a stream that it does not have.
    #[error(
        "/dev/null cannot be opened, which a process is given for a stream that it does not have"
    )]
    NoNullDevice {
        /// What the system said.
        #[source]
        #[serde(with = "os")]
        error: io::Error,
    },
    /// The child ended, or did not answer, before it was ready.
    #[error("the child was not ready: {0}")]
    NotReady(String),
    /// The system refused.
    #[error("the operating system refused to start a process")]
    Io(
        #[source]
        #[serde(with = "os")]
        io::Error,
    ),
}

impl From<EncodeError> for SpawnError {
    fn from(error: EncodeError) -> SpawnError {
        SpawnError::Encode(error)
    }
}

impl From<io::Error> for SpawnError {
    fn from(error: io::Error) -> SpawnError {
        SpawnError::Io(error)
    }
}

equal_by_debug!(SpawnError);
equal_by_debug!(JoinError);

/// By another name `serde` does not try to borrow it from the message.
type Name = &'static str;

/// System calls that processes cannot be started without.
const CALLS: [&str; 3] = ["memfd_create", "pidfd_open", "socketpair"];

fn known_call<'de, D: Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    let call = String::deserialize(from)?;
    let known = CALLS.into_iter().find(|known| *known == call);
    Ok(known.unwrap_or("a system call"))
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "none".to_string(), |limit| limit.to_string())
}

impl SpawnError {
    /// Names a system call that was refused, or the limit behind another error.
    pub(crate) fn of_call(call: &'static str, error: io::Error) -> SpawnError {
        let error = match Forbidden::of(error) {
            Ok((call, error)) => return SpawnError::Refused { call, error },
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
                SpawnError::Refused { call, error }
            }
            _ => SpawnError::from_io(error),
        }
    }

    /// Names the limit behind an error of the operating system.
    pub(crate) fn from_io(error: io::Error) -> SpawnError {
        use nix::libc::{EAGAIN, EMFILE, ENFILE, ENOMEM, ENOSPC, ETOOMANYREFS};
        match error.raw_os_error() {
            Some(EAGAIN) => SpawnError::TooManyProcesses {
                limit: sys::process_limit(),
                error,
            },
            Some(EMFILE | ENFILE | ETOOMANYREFS) => SpawnError::TooManyDescriptors {
                limit: sys::descriptor_limit(),
                error,
            },
            Some(ENOMEM | ENOSPC) => SpawnError::NoMemory { error },
            _ if Evicted::is_in(&error) => SpawnError::Evicted,
            _ => match NoNull::of(error).map_err(Forbidden::of) {
                Ok(error) => SpawnError::NoNullDevice { error },
                Err(Ok((call, error))) => SpawnError::Refused { call, error },
                Err(Err(error)) => SpawnError::Io(error),
            },
        }
    }
}

/// Where a panic began, if it said so: one by `resume_unwind` does not.
pub(crate) fn at(location: &str) -> String {
    match location {
        "" => String::new(),
        place => format!(" at {place}"),
    }
}

/// How a process ended that gave no result.
///
/// It travels in messages: whoever watches over others can report to somebody else.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Its function panicked.
    #[error("the process panicked{}: {message}", at(location))]
    Panicked {
        /// The panic's message.
        message: String,
        /// File, line and column; empty when unknown.
        location: String,
        /// The call stack at the panic.
        backtrace: String,
    },
    /// It called `exit` with this code before its function returned.
    #[error("the process {}", WorkerExit::Exited(*.0))]
    Exited(i32),
    /// This signal ended it.
    #[error("the process {}", WorkerExit::Signalled(*.0))]
    Signalled(i32),
    /// Its result has more bytes than [`max_result`](super::ProcessBuilder::max_result) allows.
    #[error(
        "the result has {bytes} bytes, at most {limit} are allowed (`ProcessBuilder::max_result`)"
    )]
    ResultTooLarge {
        /// Bytes of the result.
        bytes: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// Its result could not be decoded.
    #[error("the result cannot be decoded")]
    Decode(#[source] DecodeError),
    /// Its result could not be sent.
    #[error("the result cannot be sent: {0}")]
    Encode(String),
    /// It could not decode its arguments.
    #[error("the process cannot decode its arguments: {0}")]
    Arguments(String),
    /// It could not begin.
    #[error("the process did not begin")]
    NotBegun(#[source] SpawnError),
    /// An earlier call has taken the result.
    #[error("the result was taken by an earlier call")]
    Taken,
    /// Somebody else has waited for the process and taken its status.
    #[error("the process ended, and somebody else took its status")]
    Unknown,
    /// This process was forked by the user: the child is its parent's.
    #[error("this process was forked by the user; the child belongs to its parent")]
    Forked,
    /// The program has closed descriptors of this crate, so that its children cannot be reached any more.
    #[error("{EVICTED}")]
    Evicted,
    /// The operating system refused.
    #[error("the operating system refused to wait for the process")]
    Io(
        #[source]
        #[serde(with = "os")]
        io::Error,
    ),
}

impl JoinError {
    /// How the process ended, if it died: exited, or was ended by a signal. Which one it was,
    /// [`Child::death`](super::Child::death) says.
    pub fn exit(&self) -> Option<WorkerExit> {
        match *self {
            JoinError::Exited(code) => Some(WorkerExit::Exited(code)),
            JoinError::Signalled(signal) => Some(WorkerExit::Signalled(signal)),
            JoinError::Unknown => Some(WorkerExit::Unknown),
            _ => None,
        }
    }
}

impl From<io::Error> for JoinError {
    fn from(error: io::Error) -> JoinError {
        match Evicted::is_in(&error) {
            true => JoinError::Evicted,
            false => JoinError::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_its_name() {
        let text = JoinError::Signalled(nix::libc::SIGABRT).to_string();
        assert_eq!(text, "the process was ended by signal 6 (SIGABRT)");
        let text = JoinError::Signalled(40).to_string();
        assert_eq!(text, "the process was ended by signal 40");
    }
}
