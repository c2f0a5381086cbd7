//! What a process may be given at its start.

use std::ffi::OsString;
use std::path::Path;

use super::error::SpawnError;
use super::function::{self, Call, Function};
use super::settings::{Settings, StartMethod, Stdio};
use super::task::refuse_captures;
use super::{Child, start, task};
use crate::kin;
use crate::message::Message;
use crate::trace;

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
pub struct ProcessBuilder(Settings);

impl ProcessBuilder {
    /// Its name: [`current_process`](super::current_process) tells it there, and `ps` and `top` show it
    /// (`top` its first 15 bytes). Without it `Process-1`, `Process-2` and so on, and `Process-1:2` for
    /// the second child of the first.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.name = Some(name.into());
        self
    }

    /// Sets a variable of its environment, which is otherwise a copy of the parent's.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.0.environment.push((key.into(), Some(value.into())));
        self
    }

    /// Takes a variable out of its environment.
    pub fn env_remove(mut self, key: impl Into<OsString>) -> Self {
        self.0.environment.push((key.into(), None));
        self
    }

    /// Its working directory, otherwise the parent's.
    #[doc(alias = "cwd")]
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.0.current_dir = Some(directory.as_ref().to_path_buf());
        self
    }

    /// Where its standard input comes from.
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.0.stdin = stdin;
        self
    }

    /// Where its standard output goes.
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.0.stdout = stdout;
        self
    }

    /// Where its standard error goes.
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.0.stderr = stderr;
        self
    }

    /// The processors it may run on, counted from 0.
    pub fn affinity(mut self, processors: &[usize]) -> Self {
        self.0.affinity = Some(processors.to_vec());
        self
    }

    /// How much more willingly than its parent it gives way to others, as `nice` counts.
    pub fn nice(mut self, increment: i32) -> Self {
        self.0.nice = Some(increment);
        self
    }

    /// Bytes that its result may have at most, encoded; otherwise as many as it likes to share.
    ///
    /// A result is memory that the child has filled, so it costs this process no more than it has cost the
    /// child. A larger one is not read: [`join`](Child::join) returns
    /// [`ResultTooLarge`](crate::JoinError::ResultTooLarge).
    pub fn max_result(mut self, bytes: usize) -> Self {
        self.0.max_result = Some(bytes);
        self
    }

    /// How it is made. [`StartMethod::Zygote`] waits until there is a zygote; when nothing is said here,
    /// the first processes are made by [`StartMethod::Exec`] while the zygote starts.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.0.method = Some(method);
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
        refuse_captures!(function: F);
        let child = self.start::<F, A>(arguments)?;
        trace::started(child.name(), child.pid());
        Ok(child)
    }

    /// Starts it without a word: for those on whose thread no code of the user's may run.
    pub(crate) fn start<F, A>(self, arguments: A) -> Result<Child<F::Output>, SpawnError>
    where
        F: Function<A>,
        A: Message,
        F::Output: Message,
    {
        if kin::forked() {
            return Err(SpawnError::Forked);
        }
        // Before anything is said to anybody: their sockets may be the program's by now.
        kin::check().map_err(SpawnError::from_io)?;
        let task = task::name::<Call<F, A>>()?;
        let (bytes, passed) = function::encode(&arguments)?;
        let (record, pipes) = start::start(&self.0, task, &bytes, &passed)?;
        let child = Child::new(record, pipes, self.0.max_result);
        child.settle(passed);
        Ok(child)
    }
}
