//! What a process may be given at its start.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::SpawnError;
use super::function::{self, Call, Function};
use super::{Child, start, task};
use crate::kin;
use crate::message::Message;

/// Where a standard stream of a child leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// To the same place as the parent's.
    #[default]
    Inherit,
    /// To nowhere: reading gives the end of the file, what is written is lost.
    Null,
    /// To the parent: see [`Child::take_stdin`], [`Child::take_stdout`], [`Child::take_stderr`].
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[doc(alias = "set_start_method")]
#[doc(alias = "forkserver")]
pub enum StartMethod {
    /// A small helper of this program, its *zygote*, forks it; one or two are made in advance and wait.
    ///
    /// Much quicker, and as quick for a large parent as for a small one. The zygote has one thread and has
    /// run nothing of the program but what runs before `main`, so that no lock is held and nothing is half
    /// done in what it copies. The new process is a child of this one, not of the zygote. When there is no
    /// zygote, because it was killed or cannot be had (a program that has threads before `main`), the
    /// process is made by [`Exec`](StartMethod::Exec). A zygote made when user, groups, limits, umask,
    /// process group or root directory were others is replaced.
    ///
    /// Descriptors that are open across an execution are not inherited, save the standard streams.
    /// Processes of one zygote share the layout of their memory, as forks do: who has learned addresses
    /// in one knows those of the others.
    #[default]
    Zygote,
    /// The running program is executed once more.
    #[doc(alias = "spawn")]
    Exec,
}

/// A process to be: its name, surroundings and standard streams. Made by [`Process::builder`](super::Process::builder).
///
/// # Examples
///
/// ```
/// use multiproc::Process;
///
/// fn greeting() -> String {
///     let name = multiproc::current_process().name().to_string();
///     format!("{name} says {}", std::env::var("GREETING").unwrap())
/// }
///
/// let child = Process::builder().name("reader").env("GREETING", "hello").spawn(greeting, ())?;
/// assert_eq!(child.join()?, "reader says hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder starts nothing until `spawn`"]
pub struct ProcessBuilder {
    pub(super) name: Option<String>,
    pub(super) environment: Vec<Change>,
    pub(super) current_dir: Option<PathBuf>,
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
    pub(super) affinity: Option<Vec<usize>>,
    pub(super) nice: Option<i32>,
    pub(super) method: Option<StartMethod>,
}

impl ProcessBuilder {
    /// Its name: [`current_process`](super::current_process) tells it there, and `ps` and `top` show it
    /// (`top` its first 15 bytes). Without it `Process-1`, `Process-2` and so on, and `Process-1:2` for
    /// the second child of the first.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets a variable of its environment, which is otherwise a copy of the parent's.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((key.into(), Some(value.into())));
        self
    }

    /// Takes a variable out of its environment.
    pub fn env_remove(mut self, key: impl Into<OsString>) -> Self {
        self.environment.push((key.into(), None));
        self
    }

    /// Its working directory, otherwise the parent's.
    #[doc(alias = "cwd")]
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.current_dir = Some(directory.as_ref().to_path_buf());
        self
    }

    /// Where its standard input comes from.
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdin = stdin;
        self
    }

    /// Where its standard output goes.
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdout = stdout;
        self
    }

    /// Where its standard error goes.
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.stderr = stderr;
        self
    }

    /// The processors it may run on, counted from 0.
    pub fn affinity(mut self, processors: &[usize]) -> Self {
        self.affinity = Some(processors.to_vec());
        self
    }

    /// How much more willingly than its parent it gives way to others, as `nice` counts.
    pub fn nice(mut self, increment: i32) -> Self {
        self.nice = Some(increment);
        self
    }

    /// How it is made. [`StartMethod::Zygote`] waits until there is a zygote; when nothing is said here,
    /// the first processes are made by [`StartMethod::Exec`] while the zygote starts.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = Some(method);
        self
    }

    /// Starts the process: it runs `function` with `arguments` and ends. See [`Process::spawn`](super::Process::spawn).
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; nothing of the process is left then.
    pub fn spawn<F, A>(self, function: F, arguments: A) -> Result<Child<F::Output>, SpawnError>
    where
        F: Function<A>,
        A: Message,
        F::Output: Message,
    {
        const { task::must_be_sizeless::<F>() }
        // Its type says all.
        let _: F = function;
        if kin::forked() {
            return Err(SpawnError::Forked);
        }
        let task = task::name::<Call<F, A>>()?;
        let (bytes, passed) = function::encode(&arguments)?;
        let (record, pipes) = start::start(self, task, &bytes, &passed)?;
        let child = Child::new(record, pipes);
        child.settle(passed);
        Ok(child)
    }
}
