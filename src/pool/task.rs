//! A task that runs while its caller does something else.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Cx, Poll};
use std::time::{Duration, Instant};

use super::error::TaskError;
use super::job::{Group, Job, News};
use super::recover::Cause;
use super::seats::Worker;
use super::shared::{PoolShared, after};
use super::supervisor::end_worker;
use crate::kin;

/// What becomes of the results.
type Finish<R> = fn(&[Arc<Job>]) -> Result<R, TaskError>;

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
    shared: Arc<PoolShared>,
    jobs: Vec<Arc<Job>>,
    group: Arc<Group>,
    /// Why nothing of it was submitted.
    refused: Option<TaskError>,
    finish: Finish<R>,
    is_cancelled_on_drop: bool,
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
        shared: Arc<PoolShared>,
        jobs: Vec<Arc<Job>>,
        group: Arc<Group>,
        refused: Option<TaskError>,
        finish: Finish<R>,
    ) -> Task<R> {
        Task {
            shared,
            jobs,
            group,
            refused,
            finish,
            is_cancelled_on_drop: false,
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
        self.wait_until(after(timeout))
    }

    /// Whether the task has ended. One that has not may end at once; one that has stays so.
    #[doc(alias = "ready")]
    pub fn is_ready(&self) -> bool {
        self.jobs.iter().all(|job| job.has_ended())
    }

    /// Takes back what no worker has begun; true if that is all of it, and nothing of it ever ran.
    ///
    /// If anything was taken back, the value is [`TaskError::Cancelled`], as soon as what had begun has ended.
    pub fn cancel(&self) -> bool {
        if kin::forked() {
            return false;
        }
        let cancel = |job| {
            self.shared
                .with_board(|board, after| board.cancel(job, after))
        };
        // The last first, so that none that waits takes the place of one that was cancelled.
        let cancelled: Vec<bool> = self.jobs.iter().rev().map(cancel).collect();
        !cancelled.is_empty() && cancelled.into_iter().all(|cancelled| cancelled)
    }

    /// Ends the task at once: what no worker has begun is taken back, and the workers that are at it are killed
    /// and replaced. The value is [`TaskError::Killed`] then. A task that has ended has its value still.
    pub fn kill(&self) {
        if kin::forked() {
            return;
        }
        for job in self.jobs.iter().rev() {
            let workers = self.shared.with_board(|board, after| {
                let workers = board.kill(job);
                board.cancel(job, after);
                workers
            });
            for (seat, cell) in workers {
                end_worker(&self.shared, usize::from(seat), Cause::Killed, |at, _| {
                    // It has been stopped: if it is at the job still, it stays there.
                    at == cell as u64 + 1
                        && self.shared.with_board(|board, _| {
                            let found = board.chunk_of(cell, seat);
                            found.is_some_and(|(record, _)| Arc::ptr_eq(&record.job, job))
                        })
                });
            }
        }
    }

    /// The worker that is at the task, or at a part of it; `None` before it has begun and after it has ended.
    pub fn worker(&self) -> Option<Worker> {
        if kin::forked() {
            return None;
        }
        let holder = |job| self.shared.with_board(|board, _| board.holder_of(job));
        let seat = self.jobs.iter().find_map(holder)?;
        self.shared.seats().worker(usize::from(seat))
    }

    /// The task is [cancelled](Task::cancel) when this is dropped before it has ended: for a caller that may go
    /// away.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiproc::Pool::new(1)?;
    /// let first = pool.apply_async(|| std::thread::sleep(std::time::Duration::from_millis(50)), ());
    /// let second = pool.apply_async(|x: u64| x, (1,)).cancel_on_drop();
    /// drop(second); // It never runs.
    /// first.get()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel_on_drop(mut self) -> Task<R> {
        self.is_cancelled_on_drop = true;
        self
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
        let shared = Arc::clone(&self.shared);
        let group = Arc::clone(&self.group);
        let call = Box::new(move || callback(self.take()));
        if let Some(callback) = group.call(call) {
            let callback = Some(callback);
            shared.notify.tell(News {
                callback,
                ..News::default()
            });
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        if kin::forked() {
            return false;
        }
        let slot = self.shared.slot();
        self.jobs.iter().filter(|job| !job.has_ended()).all(|job| {
            let shared = &self.shared;
            shared.with_board(|board, after| board.own(job, slot.number, after));
            let has_ended = shared.wait_for(job, &slot, deadline);
            if !has_ended {
                shared.disown(job);
            }
            has_ended
        })
    }

    /// The value of a task that has ended.
    fn take(&self) -> Result<R, TaskError> {
        if kin::forked() {
            return Err(TaskError::Forked);
        }
        match &self.refused {
            Some(refused) => Err(refused.clone()),
            None => (self.finish)(&self.jobs),
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
        if self.is_cancelled_on_drop && !self.is_ready() {
            self.cancel();
        }
    }
}
