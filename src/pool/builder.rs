//! A pool to be.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Pool;
use super::error::PoolError;
use super::settings::{Initializer, OnDeath, Settings};
use super::worker::Prepare;
use crate::handle::{self, Transport};
use crate::layout::SEATS;
use crate::message::{self, EncodeError, Message};
use crate::process::task::{self, refuse_captures};
use crate::process::{Function, Process, ProcessBuilder, SpawnError, StartMethod, Stdio};

/// A pool to be: made by [`Pool::builder`].
///
/// # Examples
///
/// ```
/// use multiproc::{OnDeath, Pool};
///
/// fn greet(greeting: String) {
///     println!("{greeting} from {}", multiproc::current_process().name());
/// }
///
/// let pool = Pool::builder()
///     .workers(2)
///     .name("greeter")
///     .initializer(greet, ("hello".to_owned(),))
///     .on_worker_death(OnDeath::Retry(1))
///     .build()?;
/// assert_eq!(pool.map(|x: u64| x + 1, [1, 2])?, [2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder starts nothing until `build`"]
pub struct PoolBuilder {
    workers: Option<usize>,
    name: String,
    initializer: Option<Result<Arc<Initializer>, Unusable>>,
    max_tasks: Option<u64>,
    on_death: OnDeath,
    task_timeout: Option<Duration>,
    kill_tree: bool,
    queue_limit: Option<u64>,
    memory_limit: Option<u64>,
    ends_by_signals: bool,
    process: ProcessBuilder,
}

/// Why an initializer cannot be used, which `build` says.
#[derive(Clone)]
enum Unusable {
    Foreign,
    Encode(EncodeError),
}

impl From<Unusable> for PoolError {
    fn from(why: Unusable) -> PoolError {
        match why {
            Unusable::Foreign => PoolError::Spawn(SpawnError::ForeignFunction),
            Unusable::Encode(error) => PoolError::Encode(error),
        }
    }
}

impl std::fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("workers", &self.workers)
            .field("name", &self.name)
            .field("max_tasks", &self.max_tasks)
            .field("on_death", &self.on_death)
            .field("task_timeout", &self.task_timeout)
            .field("process", &self.process)
            .field("kill_tree", &self.kill_tree)
            .finish_non_exhaustive()
    }
}

impl PoolBuilder {
    pub(super) fn new() -> PoolBuilder {
        PoolBuilder {
            workers: None,
            name: "PoolWorker".to_owned(),
            initializer: None,
            max_tasks: None,
            on_death: OnDeath::Fail,
            task_timeout: None,
            kill_tree: false,
            queue_limit: None,
            memory_limit: None,
            ends_by_signals: false,
            process: Process::builder(),
        }
    }

    /// So many workers; otherwise as many as this process may use processors.
    #[doc(alias = "processes")]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// What the workers are called: `name-1`, `name-2` and so on; otherwise `PoolWorker-1`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Has every worker, also each that takes the place of another, call this function before its first task.
    ///
    /// If it panics, the pool is broken: every task ends with
    /// [`PoolBroken`](super::TaskError::PoolBroken), which says how it panicked.
    pub fn initializer<F, A>(mut self, function: F, arguments: A) -> Self
    where
        F: Function<A>,
        A: Message,
    {
        refuse_captures!(function: F);
        self.initializer = Some(initializer::<F, A>(&arguments).map(Arc::new));
        self
    }

    /// Replaces a worker after so many tasks, where a chunk of a `map` is one; 0 counts as 1.
    #[doc(alias = "maxtasksperchild")]
    pub fn max_tasks_per_worker(mut self, tasks: u64) -> Self {
        self.max_tasks = Some(tasks.max(1));
        self
    }

    /// What becomes of an item whose worker dies in it: it fails, unless this says otherwise.
    pub fn on_worker_death(mut self, what: OnDeath) -> Self {
        self.on_death = what;
        self
    }

    /// Ends an item that runs longer than this, by killing its worker, which is replaced.
    ///
    /// Programs that the worker has started, by [`Command`](std::process::Command) say, go on and outlive it
    /// and the pool, unless [`kill_tree`](PoolBuilder::kill_tree) is set.
    pub fn task_timeout(mut self, limit: Duration) -> Self {
        self.task_timeout = Some(limit);
        self
    }

    /// Whether everything that a worker has started is ended with it when the pool kills it: for an item that
    /// ran too long, when the pool is dropped or terminated, and when it does not end in time after
    /// [`join`](Pool::join). Otherwise, and when a worker ends by itself, programs that it has started go on.
    ///
    /// It takes up to 200 ms for each worker: see [`Child::kill_tree`](crate::Child::kill_tree).
    pub fn kill_tree(mut self, tree: bool) -> Self {
        self.kill_tree = tree;
        self
    }

    /// How many items may be submitted and not have ended: then [`apply_async`](Pool::apply_async) and
    /// [`map_async`](Pool::map_async) wait, and [`try_apply_async`](Pool::try_apply_async) and
    /// [`try_map_async`](Pool::try_map_async) give back what they were given. 0 counts as 1. Without this there is no
    /// limit but memory. More at once are taken when nothing else is there.
    pub fn queue_limit(mut self, items: u64) -> Self {
        self.queue_limit = Some(items.max(1));
        self
    }

    /// How many bytes of memory each worker may have to itself (shared memory is not counted). A worker that is found
    /// above this is killed and replaced; the item that it is at ends in
    /// [`TaskError::OutOfMemory`](super::TaskError::OutOfMemory).
    ///
    /// It is looked for every 5 ms while there is work, so a worker may have more for as long.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Whether SIGTERM and SIGINT end a worker. Otherwise it does not heed them: signals that are sent to a whole group
    /// of processes, as service managers and terminals do, are for this process to decide on, and its workers finish
    /// what they are at. Programs that workers start end by them as usual.
    pub fn signals(mut self, end_workers: bool) -> Self {
        self.ends_by_signals = end_workers;
        self
    }

    /// As [`ProcessBuilder::env`], for each worker.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.process = self.process.env(key, value);
        self
    }

    /// As [`ProcessBuilder::current_dir`], for each worker.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.process = self.process.current_dir(directory);
        self
    }

    /// What each worker's standard input, output and error are; see [`ProcessBuilder::stdin`]. Of
    /// [`Stdio::Pipe`] nobody has the other end.
    pub fn stdio(mut self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Self {
        self.process = self.process.stdin(stdin).stdout(stdout).stderr(stderr);
        self
    }

    /// As [`ProcessBuilder::nice`], for each worker.
    pub fn nice(mut self, increment: i32) -> Self {
        self.process = self.process.nice(increment);
        self
    }

    /// As [`ProcessBuilder::affinity`], for each worker.
    pub fn affinity(mut self, processors: &[usize]) -> Self {
        self.process = self.process.affinity(processors);
        self
    }

    /// How the workers are made; see [`ProcessBuilder::start_method`](crate::ProcessBuilder::start_method).
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.process = self.process.start_method(method);
        self
    }

    /// Starts the pool.
    ///
    /// # Errors
    ///
    /// [`PoolError`]; nothing of the pool is left then.
    pub fn build(self) -> Result<Pool, PoolError> {
        let workers = match self.workers {
            Some(0) => return Err(PoolError::NoWorkers),
            Some(asked) if asked > SEATS => {
                let limit = SEATS;
                return Err(PoolError::TooManyWorkers { asked, limit });
            }
            Some(workers) => workers,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        Pool::start(Settings {
            workers,
            name: self.name,
            initializer: self.initializer.transpose()?,
            max_tasks: self.max_tasks,
            on_death: self.on_death,
            task_timeout: self.task_timeout,
            kill_tree: self.kill_tree,
            queue_limit: self.queue_limit,
            memory_limit: self.memory_limit,
            ends_by_signals: self.ends_by_signals,
            process: self.process,
        })
    }
}

fn initializer<F: Function<A>, A: Message>(arguments: &A) -> Result<Initializer, Unusable> {
    let name = task::name::<Prepare<F, A>>().map_err(|_| Unusable::Foreign)?;
    let mut bytes = Vec::new();
    // Every worker decodes them, also those to come, of every pool that is built so.
    let (encoded, passed) =
        handle::collect(Transport::Kept, || message::encode(arguments, &mut bytes));
    encoded.map_err(Unusable::Encode)?;
    Ok(Initializer {
        name,
        arguments: bytes,
        _passed: Mutex::new(passed),
    })
}
