//! A pool of processes.
//!
//! Data flows one way. The pool writes a job into a cell of its segment ([`engine`]), encoded items into
//! the arena ([`feed`]), and pushes tickets into one lane that all workers read. A worker leases the job's
//! chunks ([`job`]), runs their items ([`station`], [`step`]), writes the results, commits, and says so in
//! its own lane, which the pool reads ([`receive`]). A worker that dies leaves its row, which says what it
//! was at; the pool fails or repeats that one item and gives the rest to others ([`crew`]).

mod arena;
mod arguments;
mod builder;
mod calls;
mod context;
mod control;
mod crew;
mod engine;
mod error;
mod feed;
#[cfg(fuzzing)]
pub(crate) mod frame;
mod held;
mod imap;
mod items;
mod job;
mod plan;
mod receive;
mod settings;
mod station;
mod step;
mod supervise;
mod task;
mod views;
mod work;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use builder::PoolBuilder;
pub use error::{Death, PoolError, TaskError, What};
pub use items::Items;
pub use settings::OnDeath;
pub use task::Task;
pub use views::{Chunked, With};

use calls::How;
use engine::{Engine, lock};
use imap::Order;
use settings::Settings;
use step::{Each, Spread};
use supervise::supervise;
use work::Ending;

use crate::error::SegmentError;
use crate::kin;
use crate::message::Message;
use crate::process::Function;

/// How long a worker may take to end when nothing is left to do.
const GRACE: Duration = Duration::from_secs(5);

/// Processes that run functions of this program, side by side.
///
/// A pool shares out calls among its workers, which are started with it and replaced when they die. The
/// function is any `fn` item, or a closure that captures nothing; arguments and results travel through
/// shared memory. All calls may be made from many threads at once.
///
/// | | one call | many |
/// |---|---|---|
/// | waits for all results | [`apply`](Pool::apply) | [`map`](Pool::map), [`starmap`](Pool::starmap) |
/// | gives a [`Task`] at once | [`apply_async`](Pool::apply_async) | [`map_async`](Pool::map_async), [`starmap_async`](Pool::starmap_async) |
/// | gives results as they come | | [`imap`](Pool::imap), [`imap_unordered`](Pool::imap_unordered) |
///
/// Dropped, a pool ends all its tasks and its workers at once; [`join`](Pool::join) waits for what was
/// submitted first.
///
/// # If a process dies
///
/// The item that a worker dies in, and no other, ends with [`TaskError::WorkerDied`], or is begun again if
/// the pool was [told so](PoolBuilder::on_worker_death); its place is taken by a new worker. Results that
/// were finished count. When this process dies, its workers end too.
///
/// # Examples
///
/// ```
/// use multiproc::Pool;
///
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// let pool = Pool::new(2)?;
/// assert_eq!(pool.map(square, 1..=5)?, [1, 4, 9, 16, 25]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool {
    engine: Arc<Engine>,
    supervisor: Option<JoinHandle<()>>,
}

/// A worker of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    pid: u32,
    name: Arc<str>,
}

impl Worker {
    /// Its number, as the system counts.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Counts of a pool since it began; stale at once.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Items submitted that have not begun.
    pub queued: u64,
    /// Workers that are at an item.
    pub running: u64,
    /// Items that have a value.
    pub done: u64,
    /// Items that ended in an error.
    pub failed: u64,
    /// Workers that took the place of another.
    pub restarts: u64,
    /// How long workers have been at items, all of them added up, also those that are gone.
    pub busy: Duration,
}

impl Pool {
    /// A pool of so many workers.
    ///
    /// # Errors
    ///
    /// [`PoolError`]; nothing of the pool is left then.
    pub fn new(workers: usize) -> Result<Pool, PoolError> {
        Pool::builder().workers(workers).build()
    }

    /// A pool to be, with settings of its own.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }

    /// Runs `scope` with a pool of so many workers, then waits until all tasks have ended.
    ///
    /// If `scope` panics, all tasks and workers are ended at once.
    ///
    /// # Errors
    ///
    /// [`PoolError`] if there is no pool, or if it broke.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::Pool;
    ///
    /// let sum = Pool::scope(2, |pool| {
    ///     let task = pool.apply_async(|x: u64| x + 1, (41,));
    ///     task.get()
    /// })?;
    /// assert_eq!(sum?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scope<R>(workers: usize, scope: impl FnOnce(&Pool) -> R) -> Result<R, PoolError> {
        let pool = Pool::new(workers)?;
        let result = scope(&pool);
        pool.join()?;
        Ok(result)
    }

    fn start(settings: Settings) -> Result<Pool, PoolError> {
        let engine = Engine::new(settings)?;
        let mut pool = Pool {
            engine: Arc::clone(&engine),
            supervisor: None,
        };
        for seat in 0..engine.control.seats.len() {
            // Dropped when this fails, the pool ends those that it has.
            engine.hire(seat)?;
        }
        let supervised = Arc::clone(&engine);
        let supervisor = thread::Builder::new()
            .name("multiproc-pool".into())
            .spawn(move || supervise(&supervised))
            .map_err(PoolError::Thread)?;
        // Set once, here.
        let _ = engine.supervisor.set(supervisor.thread().clone());
        pool.supervisor = Some(supervisor);
        // Somebody may have died before there was a supervisor.
        engine.call_supervisor();
        Ok(pool)
    }

    fn how(&self) -> How<'_> {
        How::of(&self.engine)
    }

    /// Calls `function` with a tuple of arguments in a worker and waits for what it returns.
    ///
    /// # Errors
    ///
    /// [`TaskError`].
    pub fn apply<F, A>(&self, function: F, arguments: A) -> Result<F::Output, TaskError>
    where
        F: Function<A, Output: Message>,
        A: Message,
    {
        // Its type says all.
        let _: F = function;
        self.how().apply::<Spread<F, A>>(&arguments)
    }

    /// As [`apply`](Pool::apply), but does not wait.
    pub fn apply_async<F, A>(&self, function: F, arguments: A) -> Task<F::Output>
    where
        F: Function<A, Output: Message>,
        A: Message,
    {
        let _: F = function;
        self.how().apply_async::<Spread<F, A>>(&arguments)
    }

    /// Calls `function` with each item and gives the results in the items' order.
    ///
    /// Items are shared out in chunks; the first is `ceil(len / (4 * workers))` items, the following ones
    /// are cut in the same way from what is left, so that all workers end at the same time. Items that
    /// take much memory are sent a window at a time.
    ///
    /// # Errors
    ///
    /// That of the first item that failed. Items that were not begun then are not begun any more.
    pub fn map<F, A, R, By>(
        &self,
        function: F,
        items: impl Items<A, By>,
    ) -> Result<Vec<R>, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Message,
    {
        let _: F = function;
        self.how().map::<Each<F, A, R>, _>(items.source())
    }

    /// As [`map`](Pool::map), but does not wait: all items are read and sent at once.
    pub fn map_async<F, A, R, By>(&self, function: F, items: impl Items<A, By>) -> Task<Vec<R>>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Message,
    {
        let _: F = function;
        self.how().map_async::<Each<F, A, R>, _>(items.source())
    }

    /// As [`map`](Pool::map), for a function of several arguments and items that are tuples of them.
    ///
    /// # Errors
    ///
    /// As [`map`](Pool::map).
    pub fn starmap<F, A, By>(
        &self,
        function: F,
        tuples: impl Items<A, By>,
    ) -> Result<Vec<F::Output>, TaskError>
    where
        F: Function<A, Output: Message>,
        A: Message,
    {
        let _: F = function;
        self.how().map::<Spread<F, A>, _>(tuples.source())
    }

    /// As [`starmap`](Pool::starmap), but does not wait: all tuples are read and sent at once.
    pub fn starmap_async<F, A, By>(
        &self,
        function: F,
        tuples: impl Items<A, By>,
    ) -> Task<Vec<F::Output>>
    where
        F: Function<A, Output: Message>,
        A: Message,
    {
        let _: F = function;
        self.how().map_async::<Spread<F, A>, _>(tuples.source())
    }

    /// Calls `function` with each item and gives the results one after another, in the items' order.
    ///
    /// Items are read as results are taken, four for each worker ahead, so there may be infinitely many.
    /// An item that fails is an error in its place; the others go on. Dropped early, the iterator takes
    /// back what has not begun.
    pub fn imap<F, A, R, I, By>(
        &self,
        function: F,
        items: I,
    ) -> impl Iterator<Item = Result<R, TaskError>>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        let _: F = function;
        self.how()
            .imap::<Each<F, A, R>, _>(items.source(), Order::OfItems)
    }

    /// As [`imap`](Pool::imap), but gives each result as soon as there is one.
    pub fn imap_unordered<F, A, R, I, By>(
        &self,
        function: F,
        items: I,
    ) -> impl Iterator<Item = Result<R, TaskError>>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        let _: F = function;
        self.how()
            .imap::<Each<F, A, R>, _>(items.source(), Order::OfCompletion)
    }

    /// The pool with the number of items in a chunk set by hand: `pool.chunk_size(64).map(..)`. 0 counts as 1.
    #[doc(alias = "chunksize")]
    pub fn chunk_size(&self, items: usize) -> Chunked<'_> {
        Chunked::new(self.how(), items)
    }

    /// The pool with a value that every function is given beside its item: `pool.with(table).map(..)`.
    ///
    /// The value is sent once and decoded once by each worker, however many items there are.
    pub fn with<C: Message>(&self, context: C) -> With<'_, C> {
        With::new(self.how(), &context)
    }

    /// Takes nothing more in. What was submitted is still done.
    pub fn close(&self) {
        if !kin::forked() {
            lock(&self.engine.intake)
                .closed
                .get_or_insert(Ending::Closed);
        }
    }

    /// Waits until all that was submitted has ended, then ends the workers.
    ///
    /// # Errors
    ///
    /// [`PoolError::Broken`] if the pool broke before.
    pub fn join(self) -> Result<(), PoolError> {
        if kin::forked() {
            return Err(SegmentError::Forked.into());
        }
        self.close();
        let engine = &self.engine;
        let is_idle = || lock(&engine.intake).outstanding == 0;
        engine.wait(is_idle, |_| true, None);
        match &lock(&engine.intake).closed {
            Some(Ending::Broken(why)) => Err(PoolError::Broken {
                why: why.to_string(),
            }),
            _ => {
                engine.send_home(GRACE);
                Ok(())
            }
        }
    }

    /// Ends all tasks and all workers at once. Tasks that have not ended end with [`TaskError::PoolClosed`].
    pub fn terminate(&self) {
        if !kin::forked() {
            self.engine.close_down();
        }
    }

    /// The workers that live, by seat. Any of them may end, and be replaced, at once. None in a forked copy.
    pub fn workers(&self) -> Vec<Worker> {
        // A forked copy has none, and the lock may have been held at the fork.
        if kin::forked() {
            return Vec::new();
        }
        lock(&self.engine.crew)
            .places
            .iter()
            .filter(|place| place.child.as_ref().is_some_and(|child| child.is_alive()))
            .map(|place| Worker {
                pid: place.pid,
                name: Arc::clone(&place.name),
            })
            .collect()
    }

    /// What the pool has done so far; nothing, in a forked copy of its process.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiproc::Pool::new(2)?;
    /// pool.map(|x: u64| x + 1, 0..100)?;
    /// let stats = pool.stats();
    /// assert_eq!((stats.queued, stats.done, stats.failed), (0, 100, 0));
    /// println!("{:?} of work", stats.busy);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> PoolStats {
        if kin::forked() {
            return PoolStats::default();
        }
        let restarts = lock(&self.engine.crew).restarts;
        let busy = self.engine.busy();
        let running = self.engine.at_work();
        let intake = lock(&self.engine.intake);
        PoolStats {
            queued: intake.queued().saturating_sub(running),
            running,
            done: intake.counts.done,
            failed: intake.counts.failed,
            restarts,
            busy,
        }
    }
}

/// A pool of as many workers as this process may use processors.
///
/// # Panics
///
/// Where [`PoolBuilder::build`] gives an error.
impl Default for Pool {
    fn default() -> Pool {
        Pool::builder()
            .build()
            .unwrap_or_else(|error| panic!("no pool: {error}"))
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if kin::forked() {
            // The workers and the thread are the parent's.
            std::mem::forget(self.supervisor.take());
            return;
        }
        self.engine.end_all(&Ending::Closed);
        self.engine.stop.store(true, Ordering::Release);
        self.engine.dismiss();
        if let Some(supervisor) = self.supervisor.take() {
            self.engine.call_supervisor();
            // A panic there was reported by its hook.
            let _ = supervisor.join();
        }
        // The supervisor may have filled a seat meanwhile.
        self.engine.dismiss();
        lock(&self.engine.callbacks).close();
    }
}
