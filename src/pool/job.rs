//! A job as the pool's own process knows it. No worker can touch any of this; words in shared memory are
//! only ever compared with it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use super::context::Context;
use super::memory::Block;
use super::outcome::{Ending, Failures, Outcome, ResultRange};
use crate::chunk::Span;
use crate::handle::Passed;
use crate::layout::INLINE_INPUT;
use crate::process::task::TaskName;

/// What is known of a job from the start, and what came of it. Shared by its caller and the board.
#[derive(Debug)]
pub(super) struct Job {
    /// Index of its first item in the call.
    pub(super) first: usize,
    pub(super) items: u32,
    pub(super) in_size: Option<u64>,
    pub(super) out_size: Option<u64>,
    pub(super) chunks: usize,
    /// The function's name, for people.
    pub(super) function: &'static str,
    /// How long an item may run, if the call says so.
    pub(super) limit: Option<Duration>,
    /// Its first failure ends it.
    pub(super) fails_fast: bool,
    pub(super) group: Option<Arc<Group>>,
    /// Its number among all jobs of the pool, given when it is submitted.
    pub(super) number: OnceLock<u64>,
    /// The cell where it stands, plus 1: a hint for those who look whether it is done.
    cell: AtomicUsize,
    outcome: OnceLock<Outcome>,
}

impl Job {
    #[allow(clippy::too_many_arguments, reason = "the fields of a job, once")]
    pub(super) fn new(
        first: usize,
        items: u32,
        (in_size, out_size): (Option<u64>, Option<u64>),
        chunks: usize,
        function: &'static str,
        limit: Option<Duration>,
        fails_fast: bool,
        group: Option<Arc<Group>>,
    ) -> Arc<Job> {
        Arc::new(Job {
            first,
            items,
            in_size,
            out_size,
            chunks,
            function,
            limit,
            fails_fast,
            group,
            number: OnceLock::new(),
            cell: AtomicUsize::new(0),
            outcome: OnceLock::new(),
        })
    }

    /// Whether it has ended: nothing of it will change any more.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.outcome.get().is_some()
    }

    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// Where it stands, or stood.
    #[inline]
    pub(super) fn cell(&self) -> Option<usize> {
        self.cell.load(Ordering::Acquire).checked_sub(1)
    }

    /// It stands in a cell, from now on.
    pub(super) fn stands_in(&self, cell: usize) {
        self.cell.store(cell + 1, Ordering::Release);
    }

    /// Ends it. What came of it first is what counts.
    pub(super) fn end(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
    }
}

/// The encoded items of a job.
#[derive(Debug)]
pub(super) enum Input {
    /// In a block of the job's, which begins here.
    Placed(u64),
    /// So few bytes that a cell holds them itself.
    Small([u8; INLINE_INPUT], u8),
    /// In an array: where its handle is, and which of its items is the job's first.
    InArray(u64, u64),
}

/// What the board keeps of a job until it has ended.
pub(super) struct Record {
    pub(super) job: Arc<Job>,
    pub(super) task: TaskName,
    pub(super) parts: Vec<Part>,
    pub(super) input: Input,
    /// Given back when the results have been read.
    pub(super) blocks: Vec<Block>,
    /// The context, and the handle of the array that the items lie in.
    pub(super) kept: [Option<Arc<Context>>; 2],
    /// What handles in its items lead to: workers may decode them as often as they must.
    pub(super) _passed: Vec<Passed>,
    /// Where the results lie, all together if their size is fixed; in the cell itself if `output_is_inline`.
    pub(super) output: u64,
    pub(super) output_is_inline: bool,
    /// Results that dead workers left.
    pub(super) pieces: Vec<ResultRange>,
    pub(super) failures: Failures,
    pub(super) cancelled: bool,
    /// A worker has died in one of its items.
    pub(super) was_begun: bool,
    /// Its workers are being killed, so that it ends.
    pub(super) is_killed: bool,
    /// What it ends in, once one of them has died of it.
    pub(super) killed: Option<Ending>,
    /// When it was submitted, by the system's clock.
    pub(super) submitted: Duration,
    /// The signal that its caller waits at; 0 if nobody does.
    pub(super) owner: u64,
    /// The signals of those who waited for it before, and may do so still; one bit each.
    pub(super) waiters: u64,
}

/// A chunk of a job.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) span: Span,
    /// Place and bytes of the arguments.
    pub(super) input: (u64, u64),
    /// Place and bytes of room for the results.
    pub(super) output: (u64, u64),
    /// Room that its worker asked for.
    pub(super) granted: Vec<(u64, u64)>,
    /// How many workers have died in its first item.
    pub(super) attempts: u32,
    /// How often in succession its words made no sense.
    pub(super) odd: u32,
}

impl Part {
    /// Whether these bytes are room that its worker was given.
    pub(super) fn owns(&self, place: u64, len: u64) -> bool {
        let Some(end) = place.checked_add(len) else {
            return false;
        };
        let mut rooms = std::iter::once(&self.output).chain(&self.granted);
        rooms.any(|(from, its)| *from <= place && end <= from + its)
    }

    /// Bytes that its worker was given in all.
    pub(super) fn owned(&self) -> u64 {
        let rooms = std::iter::once(&self.output).chain(&self.granted);
        rooms.fold(0, |all, (_, its)| all.saturating_add(*its))
    }

    /// How many bytes the room goes on, from this place in it.
    pub(super) fn room_at(&self, place: u64) -> Option<u64> {
        let rooms = std::iter::once(&self.output).chain(&self.granted);
        // One may begin where another ends.
        rooms
            .filter_map(|(from, its)| (from + its).checked_sub(place).filter(|_| *from <= place))
            .max()
    }
}

/// Several jobs of one task: what is told when all of them have ended.
#[derive(Debug)]
pub(super) struct Group {
    left: AtomicUsize,
    has_failed: AtomicBool,
    then: Mutex<Then>,
}

#[derive(Default)]
struct Then {
    ended: bool,
    waker: Option<Waker>,
    callback: Option<Callback>,
}

pub(super) type Callback = Box<dyn FnOnce() + Send>;

impl std::fmt::Debug for Then {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Then")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// What is to be told; never run under a lock, or on a thread that others wait for.
#[derive(Default)]
pub(super) struct News {
    pub(super) waker: Option<Waker>,
    pub(super) callback: Option<Callback>,
}

impl Group {
    /// One that waits for whoever submits, who says so by [`one_ended`](Group::one_ended) like a job.
    pub(super) fn new() -> Arc<Group> {
        Arc::new(Group {
            left: AtomicUsize::new(1),
            has_failed: AtomicBool::new(false),
            then: Mutex::default(),
        })
    }

    /// One of the jobs has failed: no more need be submitted.
    pub(super) fn fail(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// There is one job more.
    pub(super) fn add(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// One of the jobs has ended; what is to be told if it was the last.
    pub(super) fn one_ended(&self) -> Option<News> {
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        let mut then = self.then();
        then.ended = true;
        let news = News {
            waker: then.waker.take(),
            callback: then.callback.take(),
        };
        (news.waker.is_some() || news.callback.is_some()).then_some(news)
    }

    fn then(&self) -> std::sync::MutexGuard<'_, Then> {
        self.then.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes `waker` when all have ended; false if they have.
    pub(super) fn wake(&self, waker: &Waker) -> bool {
        // Cloned, and the one before dropped, outside the lock: both are the user's code.
        let waker = waker.clone();
        let mut then = self.then();
        if then.ended {
            return false;
        }
        let before = then.waker.replace(waker);
        drop(then);
        drop(before);
        true
    }

    /// Calls `callback` when all have ended, or gives it back if they have.
    pub(super) fn call(&self, callback: Callback) -> Option<Callback> {
        let mut then = self.then();
        if then.ended {
            return Some(callback);
        }
        then.callback = Some(callback);
        None
    }
}
