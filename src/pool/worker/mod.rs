//! A worker's side of the pool: finds chunks, runs their items, says that they are done.
//!
//! Nothing in here belongs to the pool's own process, and nothing of that process is used here but the
//! words they share.

mod arguments;
mod finder;
mod mailbox;
mod report;
mod run;
mod state;
mod values;

use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

pub(super) use arguments::{Arguments, Encoded, InArray};
pub(super) use run::{ChunkRunner, Prepare};

use super::error::Failure;
use crate::chunk::{self, Busy, Lease, Span};
use crate::error::{SegmentError, whole};
use crate::handle::Travelling;
use crate::layout::{CHUNKS, PoolCell};
use crate::process::current_process;
use crate::process::task::{self, Entry, TaskName};
use crate::sync::Ordering;
use crate::sys;
use finder::{Found, Look};
use state::Current;
pub(super) use state::WorkerState;

/// What a worker is told when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Orders {
    /// The initializer's name and its arguments.
    pub(super) initializer: Option<(TaskName, Vec<u8>)>,
    /// How many chunks it may do before it ends.
    pub(super) chunks: Option<u64>,
    /// What the pool's workers are called.
    pub(super) pool: String,
    /// SIGTERM and SIGINT end it.
    pub(super) ends_by_signals: bool,
}

/// Which worker of which pool this process is; made by [`current_worker`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CurrentWorker {
    pool: String,
    seat: usize,
}

static CURRENT: OnceLock<CurrentWorker> = OnceLock::new();

/// Which worker of which pool this process is; `None` if it is none.
///
/// # Examples
///
/// ```
/// let pool = multiproc::Pool::new(2)?;
/// let seat = pool.apply(|| multiproc::current_worker().map(|worker| worker.seat()), ())?;
/// assert!(seat.is_some_and(|seat| seat < 2));
/// assert!(multiproc::current_worker().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn current_worker() -> Option<CurrentWorker> {
    CURRENT.get().cloned()
}

impl CurrentWorker {
    /// The [name](super::PoolBuilder::name) of the pool's workers.
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// Its place in the pool, from 0 on: for one device each, say. A worker that takes the place of another has its
    /// seat.
    pub fn seat(&self) -> usize {
        self.seat
    }

    /// The name of this process.
    pub fn name(&self) -> String {
        current_process().name().to_owned()
    }

    /// The process ID.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }
}

const SIGNALS: u64 = crate::layout::SIGNALS as u64;

/// Chunks that take less than this are not timed one by one: the clock takes as long as a small one.
const WORTH: Duration = Duration::from_micros(10);
/// After so many of those the clock is asked again.
const LOOKS: u32 = 8;

/// What runs in a worker's process: its whole life, from its seat being prepared to the pool's closing.
pub(super) fn work(segment: Travelling, seat: u16, orders: Orders) {
    // Refused nowhere: these are signals that can be handled.
    let _ = match orders.ends_by_signals {
        true => sys::heed(Signal::SIGINT),
        false => sys::leave_to_parent(Signal::SIGTERM),
    };
    // Only here: a process has one life.
    let _ = CURRENT.set(CurrentWorker {
        pool: orders.pool,
        seat: usize::from(seat),
    });
    let mut worker = WorkerState::new(segment.0, seat, orders.chunks)
        .unwrap_or_else(|error| panic!("the pool's segment cannot be used: {}", whole(&error)));
    if let Some((name, arguments)) = orders.initializer {
        // Its time is counted, for the limit of it.
        let begun = Busy::NEVER.begun(sys::now());
        worker.row.busy.store(begun.word(), Ordering::Relaxed);
        worker.initial = arguments;
        match task::resolve::<WorkerState>(name) {
            Ok(initializer) => initializer(&mut worker),
            Err(error) => panic!("the initializer cannot be found: {error}"),
        }
        if let Some(failure) = worker.failed.take() {
            return worker.report_not_ready(failure);
        }
        worker.initial = Vec::new();
        worker.row.busy.store(Busy::NEVER.word(), Ordering::Relaxed);
    }
    worker.report_ready();
    while worker.left != Some(0) {
        match worker.find() {
            Ok(Some(found)) => worker.serve(found),
            Ok(None) => break,
            Err(error) => panic!("the pool's segment cannot be used: {}", whole(&error)),
        }
    }
}

impl WorkerState {
    /// Waits for a chunk; `None` when the pool is closing.
    fn find(&mut self) -> Result<Option<Found>, SegmentError> {
        loop {
            chunk::set_searching(&self.row.activity);
            let look = || Ok::<_, SegmentError>(self.finder.look(&self.wire, &self.row));
            let check = |_| {
                chunk::set_idle(&self.row.activity);
                Ok(self.finder.look(&self.wire, &self.row))
            };
            let deadline = self.values.look_again_at();
            let found = self.wire.page.tasks.wait(
                &mut self.patience,
                deadline,
                self.kin.deaths(),
                look,
                check,
            )?;
            match found {
                Some(Look::Work(found)) => return Ok(Some(found)),
                Some(Look::Over) => return Ok(None),
                // Idle for a while: what its pool has let go of is not kept any longer.
                None => self.values.forget_dead(&self.wire.bytes),
            }
        }
    }

    /// For fuzz targets: serves the next cell, if there is one.
    #[cfg(fuzzing)]
    pub(super) fn serve_one(&mut self) {
        if let Some(Look::Work(found)) = self.finder.look(&self.wire, &self.row) {
            self.serve(found);
        }
    }

    /// Works on a chunk, and on others of its cell until none is left.
    fn serve(&mut self, found: Found) {
        let Found { cell, mut lease } = found;
        chunk::set_busy(&self.row.activity);
        // Edge S: whoever published more may have counted on this worker.
        if self.finder.sees_more(&self.wire, cell) {
            self.wire.page.tasks.notify_one();
        }
        let mut now = sys::now();
        let mut busy = Busy::from_word(self.row.busy.load(Ordering::Relaxed)).begun(now);
        self.row.busy.store(busy.word(), Ordering::Relaxed);
        let mut until_look = 1;
        loop {
            let chunks = self.work(cell, &lease, now);
            let Some(its) = self.wire.cell(cell) else {
                return;
            };
            until_look -= 1;
            if until_look == 0 {
                let begun = std::mem::replace(&mut now, sys::now());
                until_look = note_time(its, now.saturating_sub(begun));
            }
            if let Some(left) = &mut self.left {
                *left -= 1;
            }
            let may_go_on = self.left != Some(0) && chunks > 1;
            if !may_go_on {
                // A single chunk was looked at just now.
                now = if chunks == 1 { now } else { sys::now() };
                busy = busy.ended(now);
                self.row.busy.store(busy.word(), Ordering::Relaxed);
                if self.left != Some(0) {
                    // Whoever is told may bring the next task at once, and need not wake anybody for it.
                    chunk::set_searching(&self.row.activity);
                }
            }
            if chunk::finish(&its.done, lease, chunks) {
                self.wake_owner(cell, its);
            }
            if !may_go_on {
                return self.finder.leave(&self.row);
            }
            let Some(next) = self.finder.lease(&self.wire, &self.row, cell) else {
                busy = busy.ended(sys::now());
                self.row.busy.store(busy.word(), Ordering::Relaxed);
                return self.finder.leave(&self.row);
            };
            lease = next;
        }
    }

    /// Runs the items of a leased chunk. How many chunks its job has.
    fn work(&mut self, cell: usize, lease: &Lease, now: Duration) -> usize {
        let (Some(its), Some(chunk)) = (self.wire.cell(cell), self.chunk_at(cell, lease.index()))
        else {
            return 1;
        };
        if its.begun.load(Ordering::Relaxed) == 0 {
            its.begun.store(chunk::nanoseconds(now), Ordering::Relaxed);
        }
        let read = |word: &crate::sync::AtomicU64| word.load(Ordering::Relaxed);
        let shape = read(&its.shape);
        let words = its.task.each_ref().map(read);
        self.current = Current {
            cell,
            index: lease.index(),
            span: Span::from_word(read(&chunk.span)),
            input: read(&chunk.input),
            input_len: read(&chunk.input_len),
            output: read(&chunk.output),
            room: read(&chunk.room),
            fails_fast: shape & super::wire::FAIL_FAST != 0,
        };
        // What was given for the chunk before belongs to that.
        self.reports = (0, 0);
        match self.entry(TaskName::from_words(words)) {
            Ok(entry) => entry(self),
            Err(why) => self.fail(self.current.span, Failure::NoFunction(why)),
        }
        (shape as u32 as usize).clamp(1, CHUNKS)
    }

    /// The last chunk of a job is done.
    fn wake_owner(&self, number: usize, cell: &PoolCell) {
        let page = &self.wire.page;
        match chunk::owner(&cell.owner) {
            chunk::NOBODY => {}
            owner @ 1..SIGNALS => page.signals[owner as usize].words.notify_all(),
            // Whoever was the first since they were last taken has woken it, or will: with its death, or
            // when it has been stopped for a while, the supervisor looks of itself.
            _ if chunk::set(&page.ended, number) => page.supervisor.notify_one(),
            _ => {}
        }
    }

    fn entry(&mut self, name: TaskName) -> Result<Entry<WorkerState>, String> {
        match self.last_task {
            Some((last, entry)) if last == name => Ok(entry),
            _ => {
                let entry = task::resolve(name).map_err(|error| error.to_string())?;
                self.last_task = Some((name, entry));
                Ok(entry)
            }
        }
    }
}

/// Remembers how long a chunk, or some small ones together, took, if it is the longest of its job. After how many more
/// to ask again.
fn note_time(cell: &PoolCell, took: Duration) -> u32 {
    let nanoseconds = chunk::nanoseconds(took);
    if nanoseconds > cell.longest.load(Ordering::Relaxed) {
        cell.longest.store(nanoseconds, Ordering::Relaxed);
    }
    if took < WORTH { LOOKS } else { 1 }
}
