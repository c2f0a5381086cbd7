//! The one value that all of a pool's threads share, and how they wait for each other.
//!
//! | field | guards | taken while holding |
//! |---|---|---|
//! | `board` | jobs, cells, counts | – |
//! | `seats` | the workers' processes | – |
//! | `ends` | the stopping of a worker that is to be ended; `board` and `seats` are taken in it | – |
//! | `memory` (its own lock) | which bytes are free | `board` |
//! | `notify` (its own locks) | the threads that run the user's code | – |
//!
//! No two of the first two are ever held at once. Under none of them runs code of the user's.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::board::{After, Board};
use super::error::{PoolError, TaskError};
use super::job::{Job, News, Record};
use super::memory::{Block, Memory, SHORTAGE, Short};
use super::notify::Notify;
use super::outcome::Ending;
use super::seats::{self, Seats};
use super::settings::Settings;
use super::wire::Wire;
use crate::chunk;
use crate::error::{SegmentError, whole};
use crate::kin::{self, Kin};
use crate::layout::SIGNALS;
use crate::signal::Patience;
use crate::{sync, sys, trace};

pub(super) struct PoolShared {
    pub(super) settings: Settings,
    pub(super) wire: Arc<Wire>,
    pub(super) memory: Arc<Memory>,
    pub(super) notify: Notify,
    board: Mutex<Board>,
    seats: Mutex<Seats>,
    ends: Mutex<()>,
    /// Something has ended: for those who wait for fewer jobs, or none.
    ended: Condvar,
    /// A worker is ready, or the pool is broken.
    ready: Condvar,
    /// Signals in use, one bit each.
    signals: AtomicU64,
    /// What callers have learned of how long to spin.
    patience: Mutex<Patience>,
    kin: &'static Kin,
    /// The millisecond, by the system's clock, in which it was last asked whether our descriptors are
    /// still ours.
    checked: AtomicU64,
    contexts: AtomicU64,
    /// The supervisor looks around from time to time; it sleeps when there has been nothing to do for a while.
    pub(super) is_awake: AtomicBool,
    /// The supervisor is called for something that stands in no shared word.
    pub(super) has_called: AtomicBool,
    /// The supervisor ends.
    pub(super) is_stopped: AtomicBool,
}

/// Locks, also after a panic elsewhere: nothing of the user's runs under a lock, so what it guards is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A signal that a caller waits at.
pub(super) struct Slot<P: Deref<Target = PoolShared>> {
    shared: P,
    pub(super) number: u64,
    is_shared: bool,
}

impl<P: Deref<Target = PoolShared>> Drop for Slot<P> {
    fn drop(&mut self) {
        if !self.is_shared {
            let bit = chunk::bit(self.number as usize);
            self.shared.signals.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

impl<P: Deref<Target = PoolShared>> Slot<P> {
    pub(super) fn of(shared: P) -> Slot<P> {
        let (number, is_shared) = shared.signal();
        Slot {
            shared,
            number,
            is_shared,
        }
    }
}

impl PoolShared {
    pub(super) fn new(settings: Settings) -> Result<Arc<PoolShared>, PoolError> {
        let kin = kin::kin().map_err(SegmentError::from)?;
        let wire = Arc::new(Wire::create(settings.workers)?);
        let memory = Memory::new(&wire);
        let shared = Arc::new(PoolShared {
            board: Mutex::new(Board::new(&wire, &memory)),
            seats: Mutex::new(Seats::new(settings.workers)),
            ends: Mutex::new(()),
            settings,
            wire,
            memory,
            notify: Notify::default(),
            ended: Condvar::new(),
            ready: Condvar::new(),
            // The first is no signal: a job that nobody waits for has its number.
            signals: AtomicU64::new(1),
            patience: Mutex::new(Patience::new()),
            kin,
            checked: AtomicU64::new(0),
            contexts: AtomicU64::new(0),
            is_awake: AtomicBool::new(false),
            has_called: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
        });
        let its = Arc::downgrade(&shared);
        shared.memory.watch(move || {
            if let Some(shared) = its.upgrade() {
                shared.keep_awake();
            }
        });
        Ok(shared)
    }

    pub(super) fn workers(&self) -> usize {
        self.wire.rows.len()
    }

    pub(super) fn kin(&self) -> &'static Kin {
        self.kin
    }

    /// Held by whoever stops a worker to end it.
    pub(super) fn one_ends(&self) -> MutexGuard<'_, ()> {
        lock(&self.ends)
    }

    pub(super) fn seats(&self) -> MutexGuard<'_, Seats> {
        lock(&self.seats)
    }

    /// Works on the board, and does afterwards what is to be done without its lock.
    pub(super) fn with_board<R>(&self, work: impl FnOnce(&mut Board, &mut After) -> R) -> R {
        let mut after = After::default();
        let result = work(&mut lock(&self.board), &mut after);
        self.conclude(after);
        result
    }

    fn conclude(&self, after: After) {
        let page = &self.wire.page;
        if after.all_workers {
            page.tasks.notify_all();
        } else if after.chunks > 0 {
            self.wake_workers(after.chunks);
        }
        let mut owners = after.owners;
        while owners != 0 {
            page.signals[owners.trailing_zeros() as usize]
                .words
                .notify_all();
            owners &= owners - 1;
        }
        self.notify.tell_all(after.news);
        // A call of the system even when nobody listens.
        if after.has_waiters {
            self.ended.notify_all();
        }
    }

    /// Wakes as many workers as there is something to do for, less those that look for work already.
    /// No more than can run at once: each that finds more than it takes wakes another.
    fn wake_workers(&self, chunks: usize) {
        let rows = &self.wire.rows;
        let needed = chunks.min(rows.len()).min(sync::processors());
        let searching = chunk::searching(rows.iter().map(|row| &row.activity), needed);
        self.wire
            .page
            .tasks
            .notify_some((needed - searching) as u32);
    }

    /// Wakes the supervisor for news.
    pub(super) fn call_supervisor(&self) {
        self.has_called.store(true, Ordering::Release);
        self.wire.page.supervisor.notify_one();
    }

    /// Has the supervisor look around from time to time.
    pub(super) fn keep_awake(&self) {
        if !self.is_awake.load(Ordering::Relaxed) {
            self.is_awake.store(true, Ordering::Relaxed);
            self.call_supervisor();
        }
    }

    /// A number that tells a context from any other.
    pub(super) fn next_context(&self) -> u64 {
        self.contexts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Memory, if there is some now.
    pub(super) fn take(&self, len: u64) -> Result<Block, Short> {
        let (block, has_grown) = self.memory.take(len)?;
        if has_grown {
            // It gives it back when it is used no more.
            self.keep_awake();
        }
        Ok(block)
    }

    /// The same; for what goes ahead of others only if at least half is left then.
    pub(super) fn take_beside(&self, len: u64, is_ahead: bool) -> Result<Block, Short> {
        match is_ahead && self.memory.would_be_half_full(len) {
            true => Err(Short::Now(format!(
                "{len} bytes were asked for, and half of this pool's memory is in use"
            ))),
            false => self.take(len),
        }
    }

    /// Memory, waited for as long as others give theirs back.
    pub(super) fn take_patiently(&self, len: u64) -> Result<Block, Short> {
        loop {
            let returns = self.memory.returns();
            match self.take(len) {
                Err(Short::Now(_)) if self.wait_for_memory(returns) => {}
                other => return other,
            }
        }
    }

    /// Waits a while for memory to come back; false if none did and no job is left that could give any back.
    pub(super) fn wait_for_memory(&self, returns: u64) -> bool {
        self.memory.wait(returns, SHORTAGE) || self.with_board(|board, _| board.outstanding > 0)
    }

    /// Takes a job in.
    pub(super) fn submit(&self, record: Box<Record>) -> Result<(), Ending> {
        let submitted = self.with_board(|board, after| board.submit(record, after));
        // What was refused is dropped here, without the lock.
        submitted.map_err(|(ending, _)| ending)?;
        self.keep_awake();
        Ok(())
    }

    /// A signal to wait at: one that nobody uses, if there is one.
    pub(super) fn slot(&self) -> Slot<&PoolShared> {
        Slot::of(self)
    }

    /// The number of a signal that nobody uses, if there is one; and whether others wait there too.
    fn signal(&self) -> (u64, bool) {
        loop {
            let seen = self.signals.load(Ordering::Relaxed);
            let number = (!seen).trailing_zeros() as usize;
            if number >= SIGNALS {
                // Others wait there too, and look once too often.
                let number = 1 + self.next_context() % (SIGNALS as u64 - 1);
                return (number, true);
            }
            let mine = seen | chunk::bit(number);
            let taken =
                self.signals
                    .compare_exchange(seen, mine, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() {
                return (number as u64, false);
            }
        }
    }

    /// Whether a job has ended, or can be settled.
    #[inline]
    pub(super) fn is_over(&self, job: &Job) -> bool {
        let is_done = || {
            let cell = job.cell().and_then(|cell| self.wire.cell(cell));
            cell.is_some_and(|cell| chunk::is_done(&cell.done, job.chunks))
        };
        job.has_ended() || is_done()
    }

    /// Waits at a signal until something is so; false if the deadline came first. A forked copy does not wait.
    pub(super) fn wait_at(
        &self,
        slot: &Slot<impl Deref<Target = PoolShared>>,
        deadline: Option<Instant>,
        is_so: impl Fn() -> bool,
    ) -> bool {
        if kin::forked() {
            return false;
        }
        if is_so() {
            return true;
        }
        let look = || Ok::<_, Evicted>(is_so().then_some(()));
        let check = |is_time| match is_time {
            true => self.kin.check().map_err(Evicted).and_then(|()| look()),
            false => look(),
        };
        let mut patience = lock(&self.patience).clone();
        let words = &self.wire.page.signals[slot.number as usize].words;
        let found = words.wait(&mut patience, deadline, self.kin.deaths(), look, check);
        *lock(&self.patience) = patience;
        match found {
            Ok(found) => found.is_some(),
            Err(Evicted(error)) => {
                // A worker that dies is not heard of any more: nothing is waited for.
                self.end_all(&Ending::Broken(whole(&error).into()));
                is_so()
            }
        }
    }

    /// Waits for a job whose signal this is, and settles it; false if the deadline came first.
    pub(super) fn wait_for(
        &self,
        job: &Arc<Job>,
        slot: &Slot<impl Deref<Target = PoolShared>>,
        deadline: Option<Instant>,
    ) -> bool {
        // Its outcome follows when it is done and nobody else settles it; another's job may be seen done in its
        // cell, before it has one of its own: so once more.
        while !job.has_ended() {
            if !self.wait_at(slot, deadline, || self.is_over(job)) {
                return false;
            }
            if !job.has_ended() {
                self.with_board(|board, after| board.settle_job(job, after));
            }
        }
        true
    }

    /// Nobody waits for a job any more: the supervisor settles it.
    pub(super) fn disown(&self, job: &Arc<Job>) {
        self.with_board(|board, after| board.own(job, 0, after));
    }

    /// Waits until something is so of the board, which is looked at whenever something has ended; false if the
    /// deadline came first.
    pub(super) fn wait_until(
        &self,
        deadline: Option<Instant>,
        is_so: impl Fn(&Board) -> bool,
    ) -> bool {
        let mut board = lock(&self.board);
        while !is_so(&board) {
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            board.waiters += 1;
            board = match left {
                Some(left) => {
                    let woken = self.ended.wait_timeout(board, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .ended
                    .wait(board)
                    .unwrap_or_else(PoisonError::into_inner),
            };
            board.waiters -= 1;
        }
        true
    }

    /// Waits until as many workers are ready as the pool has; why it is broken, if it is.
    pub(super) fn wait_ready(&self) -> Result<(), Ending> {
        let mut seats = self.seats();
        loop {
            let is_ready = |seat: &seats::Seat| seat.child.is_some() && !seat.is_starting();
            if seats.places.iter().all(is_ready) {
                return Ok(());
            }
            if seats.is_over {
                drop(seats);
                let closed = self.with_board(|board, _| board.closed.clone());
                return Err(closed.unwrap_or(Ending::Closed));
            }
            seats = self
                .ready
                .wait(seats)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A worker has become ready, or none will be.
    pub(super) fn tell_ready(&self) {
        self.ready.notify_all();
    }

    /// Ends everything that has not ended, takes nothing more in, and ends the workers.
    pub(super) fn end_all(&self, ending: &Ending) {
        self.with_board(|board, after| board.end_all(ending, after));
        let children = self.seats().take_children();
        seats::kill_all(children, self.settings.kill_tree);
        self.tell_ready();
        // Those who wait for room to submit hear of it.
        self.ended.notify_all();
    }

    /// Takes nothing more in. What was submitted is still done.
    pub(super) fn close(&self) {
        self.with_board(|board, _| {
            board.closed.get_or_insert(Ending::Closed);
        });
        self.ended.notify_all();
    }

    /// Has all workers end when they find nothing more to do, and waits for that; kills those that have not ended
    /// at the deadline.
    pub(super) fn send_home(&self, deadline: Instant) {
        let page = &self.wire.page;
        let children = self.seats().take_children();
        page.closing.store(1, sync::Ordering::Release);
        page.tasks.notify_all();
        seats::wait_for_all(children, deadline, self.settings.kill_tree);
    }

    /// Has something told on the thread for callbacks.
    pub(super) fn tell_later(&self, callback: trace::Later) {
        if callback.is_some() {
            self.notify.tell(News {
                callback,
                ..News::default()
            });
        }
    }

    /// Why nothing can be submitted now, if so.
    pub(super) fn usable(&self) -> Result<(), TaskError> {
        if kin::forked() {
            return Err(TaskError::Forked);
        }
        // To ask takes longer than a small task: not with each of many. Who waits asks too.
        let now = sys::now().as_millis() as u64;
        if self.checked.load(Ordering::Relaxed) == now {
            return Ok(());
        }
        // Where the program has closed our descriptors no worker can be made, ended or heard of any more.
        let checked = self.kin.check();
        checked.map_err(|error| Ending::Broken(whole(&error).into()).error(0))?;
        self.checked.store(now, Ordering::Relaxed);
        Ok(())
    }
}

/// The program has closed our descriptors.
struct Evicted(std::io::Error);

/// When so much time is over; never, if that is not a time.
pub(super) fn after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
