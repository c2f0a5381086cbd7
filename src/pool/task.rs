//! A task that runs while its caller does something else.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context as Cx, Poll};
use std::thread;
use std::time::{Duration, Instant};

use super::engine::{Engine, lock};
use super::error::TaskError;
use super::work::{Group, Work};
use crate::kin;

/// What becomes of the results.
type Finish<R> = fn(&Engine, &[Arc<Work>]) -> Result<R, TaskError>;

/// A call that was submitted to a pool and may be running.
///
/// Its value is asked for with [`get`](Task::get), or awaited. Dropped, it runs on and its value is thrown
/// away.
///
/// # If a process dies
///
/// A worker's death ends the task it was in, with [`TaskError::WorkerDied`], and no other.
///
/// # Examples
///
/// ```
/// let pool = multiproc::Pool::new(2)?;
/// let task = pool.apply_async(|a: u64, b: u64| a * b, (6, 7));
/// assert_eq!(task.get()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "AsyncResult")]
#[must_use = "a task that is dropped runs on, and its value is lost"]
pub struct Task<R> {
    engine: Arc<Engine>,
    works: Vec<Arc<Work>>,
    group: Arc<Group>,
    /// Why nothing of it was submitted.
    refused: Option<TaskError>,
    finish: Finish<R>,
    result: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for Task<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("is_ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}

impl<R> Task<R> {
    pub(super) fn new(
        engine: &Arc<Engine>,
        works: Vec<Arc<Work>>,
        group: Arc<Group>,
        refused: Option<TaskError>,
        finish: Finish<R>,
    ) -> Task<R> {
        Task {
            engine: Arc::clone(engine),
            works,
            group,
            refused,
            finish,
            result: PhantomData,
        }
    }

    /// Waits for the value.
    ///
    /// # Errors
    ///
    /// [`TaskError`], that of the first item which has none.
    pub fn get(self) -> Result<R, TaskError> {
        self.wait_until(None);
        self.take()
    }

    /// As [`get`](Task::get), waiting at most for `timeout`; the task goes on if that was too short.
    ///
    /// # Errors
    ///
    /// [`TaskError::TimedOut`], with no worker named, when there is no value after `timeout`; else as
    /// [`get`](Task::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<R, TaskError> {
        if self.wait(timeout) || kin::forked() {
            return self.take();
        }
        Err(TaskError::TimedOut {
            item: 0,
            pid: None,
            name: None,
            limit: timeout,
        })
    }

    /// Waits until the task has ended, at most for `timeout`; whether it has. In a forked copy it does not wait.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// Whether the task has ended. One that has not may end at once; one that has stays so.
    #[doc(alias = "ready")]
    pub fn is_ready(&self) -> bool {
        self.works.iter().all(|work| work.has_ended())
    }

    /// Takes back what no worker has begun; true if that is all of it, and nothing of it ever ran.
    ///
    /// If anything was taken back, the value is [`TaskError::Cancelled`], as soon as what had begun has ended.
    pub fn cancel(&self) -> bool {
        let cancelled: Vec<_> = self
            .works
            .iter()
            .map(|work| self.engine.cancel(work))
            .collect();
        !cancelled.is_empty() && cancelled.into_iter().all(|cancelled| cancelled)
    }

    /// Calls `callback` with the value when there is one.
    ///
    /// All callbacks of a pool run on one thread of their own, one after another; they may use the pool.
    #[doc(alias = "callback")]
    pub fn on_done(self, callback: impl FnOnce(Result<R, TaskError>) + Send + 'static)
    where
        R: 'static,
    {
        if kin::forked() {
            return callback(Err(TaskError::Forked));
        }
        let engine = Arc::clone(&self.engine);
        let group = Arc::clone(&self.group);
        let call = Box::new(move || {
            let engine = Arc::clone(&self.engine);
            engine.call_back(Box::new(move || callback(self.take())));
        });
        let _keep = engine;
        if let Some(now) = group.call(call) {
            now();
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        self.works
            .iter()
            .all(|work| self.engine.wait_for(work, deadline))
    }

    /// The value of a task that has ended.
    fn take(&self) -> Result<R, TaskError> {
        if kin::forked() {
            return Err(TaskError::Forked);
        }
        match &self.refused {
            Some(refused) => Err(refused.clone()),
            None => (self.finish)(&self.engine, &self.works),
        }
    }
}

impl<R> Future for Task<R> {
    type Output = Result<R, TaskError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Self::Output> {
        if !kin::forked() && self.group.wake(cx.waker()) {
            Poll::Pending
        } else {
            Poll::Ready(self.take())
        }
    }
}

impl<R> Drop for Task<R> {
    fn drop(&mut self) {
        for work in &self.works {
            work.let_go(&self.engine);
        }
    }
}

type Callback = Box<dyn FnOnce() + Send>;

/// The thread that runs callbacks; started with the first.
#[derive(Default)]
pub(super) struct Callbacks(Option<Sender<Callback>>);

impl Callbacks {
    /// None is taken any more; the thread ends after the last.
    pub(super) fn close(&mut self) {
        self.0 = None;
    }
}

impl Engine {
    /// Runs `callback` on the thread for that.
    fn call_back(&self, callback: Callback) {
        let mut callbacks = lock(&self.callbacks);
        if callbacks.0.is_none() {
            let (give, take) = channel::<Callback>();
            let started = thread::Builder::new()
                .name("multiproc-callback".into())
                .spawn(move || {
                    for callback in take {
                        // A panic has been reported by its hook; it concerns no other callback.
                        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(callback));
                    }
                });
            match started {
                Ok(_) => callbacks.0 = Some(give),
                Err(_) => {
                    drop(callbacks);
                    // No thread is to be had: late is better than never.
                    return callback();
                }
            }
        }
        if let Some(give) = &callbacks.0 {
            // The thread lives as long as this end of its channel.
            let _ = give.send(callback);
        }
    }
}
