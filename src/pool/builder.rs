//! A pool to be.

use std::sync::Mutex;
use std::time::Duration;

use super::Pool;
use super::error::PoolError;
use super::job::SEATS;
use super::settings::{OnDeath, Settings};
use super::step::Prepare;
use crate::handle::{self, Passed, Transport};
use crate::message::{self, Message};
use crate::process::task::{self, TaskName};
use crate::process::{Function, SpawnError, StartMethod};

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
#[must_use = "a builder starts nothing until `build`"]
pub struct PoolBuilder {
    workers: Option<usize>,
    name: String,
    initializer: Option<Result<Initializer, PoolError>>,
    max_tasks: Option<u64>,
    on_death: OnDeath,
    task_timeout: Option<Duration>,
    method: Option<StartMethod>,
    kill_tree: bool,
}

struct Initializer {
    name: TaskName,
    arguments: Vec<u8>,
    passed: Passed,
}

impl std::fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("workers", &self.workers)
            .field("name", &self.name)
            .field("max_tasks", &self.max_tasks)
            .field("on_death", &self.on_death)
            .field("task_timeout", &self.task_timeout)
            .field("method", &self.method)
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
            method: None,
            kill_tree: false,
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
        const { task::must_be_sizeless::<F>() }
        // Its type says all.
        let _: F = function;
        self.initializer = Some(Initializer::new::<F, A>(&arguments));
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

    /// How the workers are made; see [`ProcessBuilder::start_method`](crate::ProcessBuilder::start_method).
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = Some(method);
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
        let (initializer, passed) = match self.initializer.transpose()? {
            Some(its) => (Some((its.name, its.arguments)), Some(its.passed)),
            None => (None, None),
        };
        Pool::start(Settings {
            workers,
            name: self.name,
            initializer,
            _passed: Mutex::new(passed),
            max_tasks: self.max_tasks,
            on_death: self.on_death,
            task_timeout: self.task_timeout,
            method: self.method,
            kill_tree: self.kill_tree,
        })
    }
}

impl Initializer {
    fn new<F: Function<A>, A: Message>(arguments: &A) -> Result<Initializer, PoolError> {
        let name = task::name::<Prepare<F, A>>().map_err(SpawnError::from)?;
        let mut bytes = Vec::new();
        // Every worker decodes them, also those to come.
        let (encoded, passed) =
            handle::collect(Transport::Kept, || message::encode(arguments, &mut bytes));
        encoded?;
        Ok(Initializer {
            name,
            arguments: bytes,
            passed,
        })
    }
}
