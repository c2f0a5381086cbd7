//! A pool of processes: a small layer over shared memory.
//!
//! See `README.md` in this folder for how it works, what stands in shared memory, and which file does what.

mod board;
mod builder;
mod calls;
mod context;
mod error;
mod feed;
#[cfg(fuzzing)]
#[path = "../../fuzz/inside/pool.rs"]
pub(crate) mod fuzzing;
mod imap;
mod insights;
mod items;
mod job;
mod memory;
mod notify;
mod outcome;
mod plan;
mod record;
mod recover;
mod results;
mod seats;
mod settings;
mod shared;
mod step;
mod supervisor;
mod task;
mod views;
mod waited;
mod wire;
mod worker;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use builder::PoolBuilder;
pub use error::{Full, Payload, PoolError, TaskError};
pub use imap::Imap;
pub use insights::{Insights, PoolStats, QueueWait, SlowTask, WorkerInsights};
pub use items::Items;
pub use seats::Worker;
pub use settings::OnDeath;
pub use task::Task;
pub use views::{PoolView, WithContext};
pub use worker::{CurrentWorker, current_worker};

use calls::CallOptions;
use outcome::Ending;
use settings::Settings;
use shared::{PoolShared, lock};

use crate::error::{SegmentError, whole};
use crate::kin;
use crate::message::Message;
use crate::process::task::refuse_captures;
use crate::process::{Function, MapFunction};

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
    shared: Arc<PoolShared>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
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
        let shared = PoolShared::new(settings)?;
        let pool = Pool {
            shared: Arc::clone(&shared),
            supervisor: Mutex::new(None),
        };
        for seat in 0..shared.workers() {
            // Dropped when this fails, the pool ends those that it has.
            supervisor::start(&shared, seat)?;
        }
        let supervised = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("multiproc-pool".into())
            .spawn(move || supervisor::supervise(supervised))
            .map_err(PoolError::Thread)?;
        *lock(&pool.supervisor) = Some(thread);
        shared.keep_awake();
        Ok(pool)
    }

    fn view(&self) -> PoolView<'_> {
        PoolView::new(CallOptions::of(&self.shared))
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
        refuse_captures!(F);
        self.view().apply(function, arguments)
    }

    /// As [`apply`](Pool::apply), but does not wait.
    ///
    /// # Blocking
    ///
    /// While the pool's [queue](PoolBuilder::queue_limit) is full.
    pub fn apply_async<F, A>(&self, function: F, arguments: A) -> Task<F::Output>
    where
        F: Function<A, Output: Message>,
        A: Message,
    {
        refuse_captures!(F);
        self.view().apply_async(function, arguments)
    }

    /// As [`apply_async`](Pool::apply_async), but never waits.
    ///
    /// # Errors
    ///
    /// [`Full`], with the arguments, while the pool's [queue](PoolBuilder::queue_limit) is full.
    pub fn try_apply_async<F, A>(
        &self,
        function: F,
        arguments: A,
    ) -> Result<Task<F::Output>, Full<A>>
    where
        F: Function<A, Output: Message>,
        A: Message,
    {
        refuse_captures!(F);
        self.view().try_apply_async(function, arguments)
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
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
    {
        refuse_captures!(F);
        self.view().map(function, items)
    }

    /// As [`map`](Pool::map), but does not wait: all items are read and sent at once.
    pub fn map_async<F, A, R, By>(&self, function: F, items: impl Items<A, By>) -> Task<Vec<R>>
    where
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
    {
        refuse_captures!(F);
        self.view().map_async(function, items)
    }

    /// As [`map_async`](Pool::map_async), but refuses items instead of waiting; those that it takes may be more than
    /// there is room for.
    ///
    /// # Errors
    ///
    /// [`Full`], with the items, while the pool's [queue](PoolBuilder::queue_limit) is full.
    pub fn try_map_async<F, A, R, By, I>(
        &self,
        function: F,
        items: I,
    ) -> Result<Task<Vec<R>>, Full<I>>
    where
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        refuse_captures!(F);
        self.view().try_map_async(function, items)
    }

    /// As [`map`](Pool::map), for a function whose own errors end the call: the results, or the error of the first
    /// item that has one. Items that were not begun then are not begun any more.
    ///
    /// # Errors
    ///
    /// [`TaskError`] if an item before the first error failed.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiproc::Pool::new(2)?;
    /// let parse = |text: String| text.parse::<u32>().map_err(|error| error.to_string());
    /// let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    /// assert_eq!(pool.try_map(parse, words(&["1", "2"]))?, Ok(vec![1, 2]));
    /// assert!(pool.try_map(parse, words(&["1", "two"]))?.is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_map<F, A, R, E, By>(
        &self,
        function: F,
        items: impl Items<A, By>,
    ) -> Result<Result<Vec<R>, E>, TaskError>
    where
        F: MapFunction<A, Result<R, E>>,
        A: Message,
        R: Message,
        E: Message,
    {
        refuse_captures!(F);
        self.view().try_map(function, items)
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
        refuse_captures!(F);
        self.view().starmap(function, tuples)
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
        refuse_captures!(F);
        self.view().starmap_async(function, tuples)
    }

    /// Calls `function` with each item and gives the results one after another, in the items' order.
    ///
    /// Items are read as results are taken, four for each worker ahead, so there may be infinitely many. A result
    /// that is ready is given before another item is read, which may take any time. An item that fails is an error
    /// in its place; the others go on. Dropped early, the iterator takes back what has not begun.
    ///
    /// Items may be found in the results of others: when the items have said that there are no more, they are asked
    /// once more after each result, and it is over when there are none and nothing is under way. They must not wait
    /// for a result themselves, for that nobody could give then.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cell::RefCell;
    ///
    /// let pool = multiproc::Pool::new(2)?;
    /// let to_do = RefCell::new(vec![1_u64]);
    /// let items = std::iter::from_fn(|| to_do.borrow_mut().pop());
    /// let children = |x: u64| if x < 4 { vec![2 * x, 2 * x + 1] } else { vec![] };
    /// let mut seen = 0;
    /// for found in pool.imap_unordered(children, items) {
    ///     to_do.borrow_mut().extend(found?);
    ///     seen += 1;
    /// }
    /// assert_eq!(seen, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn imap<F, A, R, I, By>(&self, function: F, items: I) -> Imap<'_, I::Source, A, R>
    where
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        refuse_captures!(F);
        self.view().imap(function, items)
    }

    /// As [`imap`](Pool::imap), but gives each result as soon as there is one.
    pub fn imap_unordered<F, A, R, I, By>(&self, function: F, items: I) -> Imap<'_, I::Source, A, R>
    where
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        refuse_captures!(F);
        self.view().imap_unordered(function, items)
    }

    /// As [`imap`](Pool::imap), and keeps the pool as long as there are results to come: for an iterator that is
    /// returned, or kept in a struct.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use multiproc::{Pool, PoolError, TaskError};
    ///
    /// fn squares() -> Result<impl Iterator<Item = Result<u64, TaskError>>, PoolError> {
    ///     Ok(Arc::new(Pool::new(2)?).into_imap(|x: u64| x * x, 1..))
    /// }
    ///
    /// assert_eq!(squares()?.take(3).collect::<Result<Vec<_>, _>>()?, [1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_imap<'a, F, A, R, I, By>(
        self: Arc<Self>,
        function: F,
        items: I,
    ) -> Imap<'a, I::Source, A, R>
    where
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        refuse_captures!(F);
        self.view().imap(function, items).owning(Arc::clone(&self))
    }

    /// As [`into_imap`](Pool::into_imap), but gives each result as soon as there is one.
    pub fn into_imap_unordered<'a, F, A, R, I, By>(
        self: Arc<Self>,
        function: F,
        items: I,
    ) -> Imap<'a, I::Source, A, R>
    where
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        refuse_captures!(F);
        let results = self.view().imap_unordered(function, items);
        results.owning(Arc::clone(&self))
    }

    /// The pool with the number of items in a chunk set by hand: `pool.chunk_size(64).map(..)`. 0 counts as 1.
    #[doc(alias = "chunksize")]
    pub fn chunk_size(&self, items: usize) -> PoolView<'_> {
        self.view().chunk_size(items)
    }

    /// The pool with a limit for each item, in place of its [own](PoolBuilder::task_timeout): an item that runs longer
    /// ends in [`TaskError::TimedOut`], and its worker is killed and replaced.
    pub fn with_timeout(&self, limit: Duration) -> PoolView<'_> {
        self.view().with_timeout(limit)
    }

    /// The pool with a value that every function is given beside its item: `pool.with(table).map(..)`.
    ///
    /// The value is sent once and decoded once by each worker, however many items there are.
    pub fn with<C: Message>(&self, context: C) -> WithContext<'_, C> {
        self.view().with(context)
    }

    /// Waits until all workers have run their initializers and take tasks.
    ///
    /// # Errors
    ///
    /// [`PoolError::Broken`] if the pool broke, or was ended, meanwhile; it says how an initializer failed.
    pub fn ready(&self) -> Result<(), PoolError> {
        not_forked()?;
        self.shared.wait_ready().map_err(|ending| broken(&ending))
    }

    /// Waits until nothing that was submitted is left to be done, at most for `timeout`; whether that is so.
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        let deadline = shared::after(timeout);
        !kin::forked()
            && self
                .shared
                .wait_until(deadline, |board| board.outstanding == 0)
    }

    /// Takes nothing more in. What was submitted is still done.
    pub fn close(&self) {
        if !kin::forked() {
            self.shared.close();
        }
    }

    /// [Closes](Pool::close) the pool, waits until all that was submitted has ended and all
    /// [callbacks](Task::on_done) are done, then ends the workers.
    ///
    /// # Errors
    ///
    /// [`PoolError::Broken`] if the pool broke before.
    pub fn join(&self) -> Result<(), PoolError> {
        not_forked()?;
        self.end_by(None)
    }

    /// As [`join`](Pool::join), for so long at most: what has not ended then is [terminated](Pool::terminate).
    ///
    /// # Errors
    ///
    /// [`PoolError::Broken`] if the pool broke before; [`PoolError::Terminated`] if something was left.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), PoolError> {
        not_forked()?;
        self.end_by(shared::after(timeout))
    }

    fn end_by(&self, deadline: Option<Instant>) -> Result<(), PoolError> {
        let shared = &self.shared;
        shared.close();
        let is_done = shared.wait_until(deadline, |board| board.outstanding == 0);
        if !(is_done && shared.notify.wait(deadline)) {
            self.terminate();
            return Err(PoolError::Terminated);
        }
        match shared.with_board(|board, _| board.closed.clone()) {
            Some(ending @ Ending::Broken(_)) => Err(broken(&ending)),
            _ => {
                let grace = Instant::now() + GRACE;
                shared.send_home(deadline.map_or(grace, |deadline| deadline.min(grace)));
                Ok(())
            }
        }
    }

    /// Ends all tasks and all workers at once. Tasks that have not ended end with [`TaskError::PoolClosed`].
    pub fn terminate(&self) {
        if !kin::forked() {
            self.shared.end_all(&Ending::Closed);
        }
    }

    /// The workers that live, by seat. Any of them may end, and be replaced, at once. None in a forked copy.
    pub fn workers(&self) -> Vec<Worker> {
        // A forked copy has none, and the lock may have been held at the fork.
        if kin::forked() {
            return Vec::new();
        }
        let seats = self.shared.seats();
        (0..seats.places.len())
            .filter_map(|seat| seats.worker(seat))
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
        self.shared.stats()
    }

    /// Where the pool's time goes: what each worker does, how long work waits, which functions are slow. Always
    /// counted; nothing, in a forked copy of its process.
    pub fn insights(&self) -> Insights {
        if kin::forked() {
            return Insights::default();
        }
        self.shared.insights()
    }
}

fn not_forked() -> Result<(), PoolError> {
    match kin::forked() {
        true => Err(SegmentError::Forked.into()),
        false => Ok(()),
    }
}

fn broken(ending: &Ending) -> PoolError {
    PoolError::Broken {
        why: match ending {
            Ending::Broken(why) => why.to_string(),
            _ => "it was closed".to_owned(),
        },
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
            .unwrap_or_else(|error| panic!("no pool: {}", whole(&error)))
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
        let supervisor = lock(&self.supervisor).take();
        if kin::forked() {
            // The workers and the thread are the parent's.
            std::mem::forget(supervisor);
            return;
        }
        let shared = &self.shared;
        shared.is_stopped.store(true, Ordering::Release);
        shared.end_all(&Ending::Closed);
        shared.call_supervisor();
        if let Some(supervisor) = supervisor {
            if supervisor.thread().id() != thread::current().id() {
                // A panic there was reported by its hook.
                let _ = supervisor.join();
            }
        }
        shared.notify.close();
        // Results that nobody has read stay; all other memory goes back at once.
        shared.memory.trim(false);
    }
}
