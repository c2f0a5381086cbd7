//! Jobs with a caller.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::TaskError;
use super::job::{Job, Record};
use super::shared::{PoolShared, Slot};
use crate::chunk;
use crate::kin;

/// A job that its caller waits for; given up when this is dropped: what was not begun never will be.
pub(super) struct Waited<P: Deref<Target = PoolShared>> {
    shared: P,
    pub(super) job: Arc<Job>,
}

impl<P: Deref<Target = PoolShared>> Drop for Waited<P> {
    fn drop(&mut self) {
        // A forked copy has no jobs, and the lock may have been held at the fork.
        if !kin::forked() && !self.job.has_ended() {
            self.shared.with_board(|board, after| {
                board.cancel(&self.job, after);
                board.own(&self.job, 0, after);
            });
        }
    }
}

impl<P: Deref<Target = PoolShared>> Waited<P> {
    pub(super) fn submit(
        shared: P,
        mut record: Box<Record>,
        owner: u64,
    ) -> Result<Waited<P>, TaskError> {
        record.owner = owner;
        let job = Arc::clone(&record.job);
        match shared.submit(record) {
            Ok(()) => Ok(Waited { shared, job }),
            Err(ending) => Err(ending.error(job.first)),
        }
    }
}

/// Jobs of one call that are under way at once, if they have many chunks.
const DEPTH: usize = 4;
/// The same, if they have few.
const MOST: usize = 64;
/// The same, if they are over soon and have few bytes.
const DEEP: usize = 16;
const FEW: u64 = 64 * 1024;
/// A job that is over so soon is not worth being woken for alone.
const SOON: Duration = Duration::from_micros(200);

/// The jobs of one call, in the order of its items.
pub(super) struct Flying<'p> {
    shared: &'p PoolShared,
    slot: Slot<&'p PoolShared>,
    jobs: VecDeque<Flight<'p>>,
    /// Chunks and bytes of all of them.
    chunks: usize,
    bytes: u64,
    /// The last one was over soon.
    is_quick: bool,
}

struct Flight<'p> {
    waited: Waited<&'p PoolShared>,
    bytes: u64,
    since: Instant,
}

impl<'p> Flying<'p> {
    pub(super) fn new(shared: &'p PoolShared) -> Flying<'p> {
        Flying {
            shared,
            slot: shared.slot(),
            jobs: VecDeque::new(),
            chunks: 0,
            bytes: 0,
            is_quick: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether another job would keep workers from having to wait for one.
    pub(super) fn has_room(&self) -> bool {
        let jobs = self.jobs.len();
        jobs < DEPTH
            || (jobs < MOST && self.chunks < 2 * self.shared.workers())
            || (jobs < DEEP && self.is_quick && self.bytes < FEW)
    }

    pub(super) fn submit(&mut self, record: Box<Record>) -> Result<(), TaskError> {
        let bytes = record.blocks.iter().map(|block| block.len).sum();
        let waited = Waited::submit(self.shared, record, chunk::NOBODY)?;
        self.chunks += waited.job.chunks;
        self.bytes += bytes;
        self.jobs.push_back(Flight {
            waited,
            bytes,
            since: Instant::now(),
        });
        Ok(())
    }

    /// Waits for the first; `None` if there is none.
    pub(super) fn land(&mut self) -> Option<Waited<&'p PoolShared>> {
        let shared = self.shared;
        let first = &self.jobs.front()?.waited.job;
        if self.is_quick {
            // To be woken takes longer than such a job: so rather once, for some.
            let some = &self.jobs[self.some()].waited.job;
            self.wait(some, || shared.is_over(first) || shared.is_over(some));
        }
        while !first.has_ended() && self.wait(first, || shared.is_over(first)) {
            shared.with_board(|board, after| board.settle_job(first, after));
        }
        let landed = self.jobs.pop_front()?;
        self.chunks -= landed.waited.job.chunks;
        self.bytes -= landed.bytes;
        self.is_quick = landed.since.elapsed() < SOON;
        Some(landed.waited)
    }

    /// Waits for what the end of this job may bring about; false in a forked copy.
    fn wait(&self, job: &Arc<Job>, is_so: impl Fn() -> bool) -> bool {
        if is_so() {
            return true;
        }
        let owner = self.slot.number;
        self.shared
            .with_board(|board, after| board.own(job, owner, after));
        self.shared.wait_at(&self.slot, None, is_so)
    }

    /// The last one behind which there is enough for all workers.
    fn some(&self) -> usize {
        let mut behind = 0;
        let is_enough = |flight: &Flight<'_>| {
            let is_enough = behind >= 2 * self.shared.workers();
            behind += flight.waited.job.chunks;
            is_enough
        };
        self.jobs.iter().rposition(is_enough).unwrap_or(0)
    }
}
