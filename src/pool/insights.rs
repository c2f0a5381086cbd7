//! What a pool says of itself.

use std::time::Duration;

use super::board::Times;
use super::seats::{Seats, Worker, busy};
use super::shared::PoolShared;
use crate::chunk::{self, Naming};
use crate::sync::Ordering;

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

/// Where a pool's time goes; stale at once. Made by [`Pool::insights`](super::Pool::insights).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Insights {
    /// Each living worker, by seat.
    pub workers: Vec<WorkerInsights>,
    /// The functions that took longest for a chunk of items (for a single call: that call), the slowest first; each
    /// once, by its name in Rust.
    pub slowest: Vec<SlowTask>,
    /// How long work waited until a worker began it.
    pub queue_wait: QueueWait,
}

/// What one worker has done since it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInsights {
    /// Which it is.
    pub worker: Worker,
    /// How long it took to be ready for tasks, its initializer included; `None` while it is not.
    pub start_up: Option<Duration>,
    /// How long it has worked.
    pub working: Duration,
    /// How long it has been ready and had nothing to do.
    pub waiting: Duration,
    /// Items that it has begun.
    pub items: u64,
}

/// The longest that a function took.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowTask {
    /// The function's name in Rust.
    pub function: &'static str,
    /// How long it took.
    pub time: Duration,
}

/// How long work waited for a worker.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueWait {
    /// On the average.
    pub mean: Duration,
    /// At most.
    pub longest: Duration,
}

impl PoolShared {
    pub(super) fn stats(&self) -> PoolStats {
        let (restarts, busy) = {
            let seats = self.seats();
            (seats.restarts, seats.busy(&self.wire))
        };
        let at_work = |activity: u64| activity == chunk::BUSY;
        let rows = self.wire.rows.iter();
        let running = rows
            .filter(|row| at_work(row.activity.load(Ordering::Relaxed)))
            .count() as u64;
        let counts = self.with_board(|board, _| board.counts);
        PoolStats {
            queued: counts.outstanding().saturating_sub(running),
            running,
            done: counts.done,
            failed: counts.failed,
            restarts,
            busy,
        }
    }

    pub(super) fn insights(&self) -> Insights {
        let times = self.with_board(|board, _| board.times.clone());
        let workers = self.worker_insights(&self.seats());
        Insights {
            workers,
            queue_wait: QueueWait {
                mean: times.mean_wait(),
                longest: times.longest_wait,
            },
            slowest: times.slowest(),
        }
    }

    fn worker_insights(&self, seats: &Seats) -> Vec<WorkerInsights> {
        let places = seats.places.iter().zip(&self.wire.rows).enumerate();
        places
            .filter_map(|(seat, (place, row))| {
                let worker = seats.worker(seat)?;
                let working = busy(row);
                let lived = place
                    .started
                    .map_or(Duration::ZERO, |since| since.elapsed());
                let ready = place
                    .start_up
                    .map(|start_up| lived.saturating_sub(start_up));
                Some(WorkerInsights {
                    worker,
                    start_up: place.start_up,
                    working,
                    waiting: ready.unwrap_or_default().saturating_sub(working),
                    items: u64::from(Naming::from_word(row.item.load(Ordering::Relaxed)).turn),
                })
            })
            .collect()
    }
}

impl Times {
    fn mean_wait(&self) -> Duration {
        match u32::try_from(self.jobs) {
            Ok(0) => Duration::ZERO,
            Ok(jobs) => self.waited / jobs,
            Err(_) => self.waited.div_f64(self.jobs as f64),
        }
    }

    fn slowest(mut self) -> Vec<SlowTask> {
        self.slowest
            .sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        let slowest = self.slowest.into_iter();
        slowest
            .map(|(function, time)| SlowTask { function, time })
            .collect()
    }
}
