//! How a process is made, and what it is given.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where a standard stream of a child leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// To the same place as the parent's.
    #[default]
    Inherit,
    /// To nowhere: reading gives the end of the file, what is written is lost.
    Null,
    /// To the parent: see `take_stdin`, `take_stdout` and `take_stderr` of [`Child`](super::Child).
    Pipe,
}

/// A variable, and its value; or that there is none.
pub(super) type Change = (OsString, Option<OsString>);

/// How a process is made.
///
/// Either way it runs the same program, without `main`, from the state that statics have before `main`;
/// and it finds the standard streams, the environment and the working directory that its parent has at
/// that moment.
///
/// # Examples
///
/// ```
/// use multiproc::{Process, StartMethod};
///
/// let child = Process::builder().start_method(StartMethod::Exec).spawn(|| 7, ())?;
/// assert_eq!(child.join()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[doc(alias = "set_start_method")]
#[doc(alias = "forkserver")]
pub enum StartMethod {
    /// A small helper of this program, its *zygote*, forks it; one or two are made in advance and wait.
    ///
    /// Much quicker, and as quick for a large parent as for a small one. The zygote has one thread and has
    /// run nothing of the program but what runs before `main`, so that no lock is held and nothing is half
    /// done in what it copies. The new process is a child of this one, not of the zygote.
    ///
    /// The processes of a zygote have the users, capabilities, filters of system calls, namespaces, control
    /// group, affinity, priority, limits, umask and so on that the program had when the zygote was made.
    /// They are given to threads that have the same. For a thread that has something else, that has
    /// restricted itself for example, the process is made by [`Exec`](StartMethod::Exec); when the whole
    /// program has changed, the zygote and those it has made in advance are ended first, and another is
    /// made. See [`end_zygote`](crate::end_zygote) for programs that give up their rights. The process is
    /// made by `Exec` as well when the zygote was killed, or when the working directory may not be searched.
    ///
    /// A program that has threads before `main` can have no zygote, nor one that may not fork. Unless asked
    /// for, it is done without; asked for, [`NoZygote`](crate::SpawnError::NoZygote) is the answer.
    ///
    /// Descriptors that are open across an execution are not inherited, save the standard streams.
    /// Processes of one zygote share the layout of their memory, as forks do: who has learned addresses
    /// in one knows those of the others.
    #[default]
    Zygote,
    /// The running program is executed once more, by a thread that the calling thread makes: the process has
    /// what the calling thread has. That thread sleeps as long as the process lives.
    #[doc(alias = "spawn")]
    Exec,
}

/// Everything that can be asked for; what is not is as the parent has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub(super) name: Option<String>,
    pub(super) environment: Vec<Change>,
    pub(super) current_dir: Option<PathBuf>,
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
    pub(super) affinity: Option<Vec<usize>>,
    pub(super) nice: Option<i32>,
    pub(super) method: Option<StartMethod>,
    pub(super) max_result: Option<usize>,
}
