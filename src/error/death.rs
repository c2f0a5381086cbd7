//! How a process ended, said in one way by everything that says it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a process ended that gave no result: a worker of a pool or any other.
///
/// # Examples
///
/// ```
/// use multiproc::WorkerExit;
///
/// assert_eq!(WorkerExit::Signalled(9).to_string(), "was ended by signal 9 (SIGKILL)");
/// assert_eq!(WorkerExit::Exited(3).code(), Some(3));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WorkerExit {
    /// It exited, with this code, before it was done.
    Exited(i32),
    /// A signal ended it; `abort`, a stack overflow and the kernel's out-of-memory killer are signals too.
    Signalled(i32),
    /// Nobody here can say: somebody else took its status, or has it.
    Unknown,
}

impl WorkerExit {
    /// Its exit code, if it exited.
    pub fn code(self) -> Option<i32> {
        match self {
            WorkerExit::Exited(code) => Some(code),
            _ => None,
        }
    }

    /// The number of the signal that ended it, if one did.
    pub fn signal(self) -> Option<i32> {
        match self {
            WorkerExit::Signalled(signal) => Some(signal),
            _ => None,
        }
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            WorkerExit::Exited(code) => write!(f, "exited with code {code}"),
            WorkerExit::Unknown => f.write_str("ended with unknown status"),
            WorkerExit::Signalled(signal) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(name) => write!(f, "was ended by signal {signal} ({name})"),
                Err(_) => write!(f, "was ended by signal {signal}"),
            },
        }
    }
}

/// A process that died: which one, and how.
///
/// # Examples
///
/// ```
/// use multiproc::{Pool, TaskError};
///
/// let pool = Pool::new(1)?;
/// let error = pool.apply(|| -> u8 { std::process::exit(3) }, ()).unwrap_err();
/// let death = error.death().expect("its worker died");
/// let (name, pid) = (death.name().unwrap_or("?"), death.pid());
/// assert_eq!(death.to_string(), format!("{name} (pid {pid}) exited with code 3"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Death {
    pid: u32,
    name: Option<String>,
    how: WorkerExit,
}

impl Death {
    pub(crate) fn new(pid: u32, name: Option<&str>, how: WorkerExit) -> Death {
        Death {
            pid,
            name: name.map(str::to_owned),
            how,
        }
    }

    /// The process ID it had.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The name it had, where that is known: of the last holder of a lock only its process ID is.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// How it ended.
    pub fn how(&self) -> WorkerExit {
        self.how
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pid, how) = (self.pid, self.how);
        match &self.name {
            Some(name) => write!(f, "{name} (pid {pid}) {how}"),
            None => write!(f, "process {pid} {how}"),
        }
    }
}
