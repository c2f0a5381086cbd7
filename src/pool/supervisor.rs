//! The pool's own thread: answers what workers ask, sees to the dead, fills seats, watches the clock, settles
//! jobs that nobody waits for. No code of the user's runs on it.

use std::sync::Arc;
use std::sync::atomic::Ordering as Private;
use std::time::{Duration, Instant};

use super::board::After;
use super::error::Report;
use super::memory::SHORTAGE;
use super::outcome::Ending;
use super::record::REPORT_HEAD;
use super::recover::Cause;
use super::seats;
use super::shared::PoolShared;
use super::wire::Ask;
use crate::chunk::{self, Naming};
use crate::error::{SegmentError, whole};
use crate::message;
use crate::process::SpawnError;
use crate::signal::Patience;
use crate::sync::Ordering;
use crate::trace;

/// How often it looks around while there is something to look after.
const TICK: Duration = Duration::from_millis(20);
/// The shortest time between two looks at the clock of a limit.
const SHORTEST: Duration = Duration::from_millis(1);
/// How often it looks whether memory is idle: what was not used between two looks goes back to the system. And how long
/// a pool without work is watched.
const IDLE: Duration = Duration::from_millis(400);
/// The most bytes that a worker may have for the reasons of failures of one item.
const REASONS: u64 = 1 << 20;

/// Jobs that are settled without others having their turn at the board.
const SOME: usize = 16;

/// What it remembers between two looks.
struct Supervisor {
    shared: Arc<PoolShared>,
    patience: Patience,
    /// Requests for room that could not be met yet: the seat, the bytes, since when.
    waiting: Vec<(usize, u64, Instant)>,
    /// When it last looked around, and when whether memory is idle.
    looked: Instant,
    trimmed: Instant,
    /// There was memory to be looked at again.
    has_idle: bool,
    /// When there was last something to do.
    active: Instant,
}

/// The supervisor's life.
pub(super) fn supervise(shared: Arc<PoolShared>) {
    Supervisor::new(shared).run();
}

/// For fuzz targets: one look at everything.
#[cfg(fuzzing)]
pub(super) fn look_once(shared: &Arc<PoolShared>) {
    let mut supervisor = Supervisor::new(Arc::clone(shared));
    supervisor.read_mail();
    supervisor.settle_ended();
    supervisor.look_around();
}

impl Supervisor {
    fn new(shared: Arc<PoolShared>) -> Supervisor {
        let now = Instant::now();
        Supervisor {
            shared,
            patience: Patience::new(),
            waiting: Vec::new(),
            looked: now,
            trimmed: now,
            has_idle: true,
            active: now,
        }
    }

    fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let page = &shared.wire.page;
        loop {
            let deadline = self.next_look();
            // What it was called for, it sees below: so it only has to know that there is something.
            let has_news = || {
                shared.is_stopped.load(Private::Acquire)
                    || page
                        .mail
                        .iter()
                        .any(|word| word.load(Ordering::Relaxed) != 0)
                    || page
                        .ended
                        .iter()
                        .any(|word| word.load(Ordering::Relaxed) != 0)
                    || shared.has_called.load(Private::Relaxed)
            };
            let look = || Ok::<_, SegmentError>(has_news().then_some(()));
            let deaths = shared.kin().deaths();
            // Without news the deadline has come.
            let _ = page
                .supervisor
                .wait(&mut self.patience, deadline, deaths, look, |_| look());
            if shared.is_stopped.load(Private::Acquire) {
                return;
            }
            // Acquire: what this call is about is seen below; for any later one there is another round.
            shared.has_called.swap(false, Private::Acquire);
            self.read_mail();
            self.see_to_the_dead();
            self.fill_seats();
            self.settle_ended();
            if self.looked.elapsed() >= self.tick() {
                self.look_around();
            }
        }
    }

    /// When it has something to do of itself.
    fn next_look(&self) -> Option<Instant> {
        let vacant = self.shared.seats().next_try();
        let tick = self
            .shared
            .is_awake
            .load(Private::Relaxed)
            .then(|| self.looked + self.tick());
        vacant.into_iter().chain(tick).min()
    }

    fn tick(&self) -> Duration {
        let settings = &self.shared.settings;
        let limit = settings
            .task_timeout
            .map_or(TICK, |limit| (limit / 8).clamp(SHORTEST, TICK));
        match settings.memory_limit {
            // It can be used up fast.
            Some(_) => limit.min(TICK / 4),
            None => limit,
        }
    }

    /// Answers what workers have asked.
    fn read_mail(&mut self) {
        let shared = Arc::clone(&self.shared);
        for seat in chunk::take_all(&shared.wire.page.mail) {
            let Some(row) = shared.wire.rows.get(seat) else {
                continue;
            };
            // Acquire: the request; the worker's end is in `WorkerState::ask`.
            let asked = row.asked.load(Ordering::Acquire);
            let answered = row.answered.load(Ordering::Relaxed);
            let is_waiting = self.waiting.iter().any(|(waits, ..)| *waits == seat);
            if asked == answered || is_waiting {
                continue;
            }
            let words = row
                .request
                .each_ref()
                .map(|word| word.load(Ordering::Relaxed));
            match Ask::from_words(words) {
                Some(Ask::Room { bytes }) => {
                    self.waiting.push((seat, bytes, Instant::now()));
                    shared.keep_awake();
                    self.give_room();
                }
                Some(Ask::Ready) => {
                    let mut seats = shared.seats();
                    let place = &mut seats.places[seat];
                    place.start_up = place.started.map(|since| since.elapsed());
                    drop(seats);
                    shared.tell_ready();
                    self.answer(seat, 0);
                }
                Some(Ask::NotReady { place, len }) => {
                    let why = self.report(seat, place, len);
                    self.break_down(format!("an initializer failed: {why}"));
                    self.answer(seat, 0);
                }
                None => self.answer(seat, 0),
            }
        }
    }

    fn answer(&self, seat: usize, place: u64) {
        let row = &self.shared.wire.rows[seat];
        row.answer.store(place, Ordering::Relaxed);
        // As many as were asked: a worker that writes over its own count waits for nothing.
        row.answered
            .store(row.asked.load(Ordering::Relaxed), Ordering::Release);
        row.answers.notify_all();
    }

    /// Why a worker is not ready, as it says it.
    fn report(&self, seat: usize, place: u64, len: u64) -> String {
        let seats = self.shared.seats();
        let its = &seats.places[seat];
        let is_its = its.blocks.iter().any(|block| block.holds(place, len));
        let mut bytes = Vec::new();
        if is_its && len > REPORT_HEAD {
            let at = (place + REPORT_HEAD) as usize;
            let memory = &self.shared.memory.bytes;
            memory.append_to(at, (len - REPORT_HEAD) as usize, &mut bytes);
        }
        let (pid, name) = (its.pid, Arc::clone(&its.name));
        drop(seats);
        message::decode::<Report>(&bytes).map_or_else(
            |_| format!("{name} (pid {pid}) could not say why"),
            |report| report.failure.text(&name, pid),
        )
    }

    /// Gives room to those who wait for it, as far as there is memory.
    fn give_room(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|&(seat, bytes, since)| {
            match self.room(seat, bytes) {
                Ok(place) => self.answer(seat, place),
                Err(is_for_ever) if is_for_ever || since.elapsed() > SHORTAGE => {
                    self.answer(seat, 0);
                }
                Err(_) => return true,
            }
            false
        });
        self.waiting = waiting;
    }

    /// Room for the chunk that a worker is at; whether there will never be any if there is none.
    fn room(&self, seat: usize, bytes: u64) -> Result<u64, bool> {
        let shared = &self.shared;
        let at = shared.wire.rows[seat].at.load(Ordering::Acquire);
        let number = at.checked_sub(1).map(|cell| cell as usize);
        // Numbers have their room from the start: what is asked for is for the reasons of failures.
        let limit = shared.with_board(|board, _| {
            let (record, index) = board.chunk_of(number?, seat as u16)?;
            let part = &record.parts[index];
            let given: u64 = part.granted.iter().map(|(_, len)| len).sum();
            let most = REASONS.saturating_mul(u64::from(part.span.count) + 1);
            record.job.out_size.map(|_| most.saturating_sub(given))
        });
        if limit.is_some_and(|limit| bytes > limit) {
            return Err(true);
        }
        let block = shared.take(bytes).map_err(|short| short.is_for_ever())?;
        let place = block.place;
        let left = shared.with_board(|board, _| {
            match number.and_then(|number| board.chunk_of(number, seat as u16)) {
                Some((record, index)) => {
                    record.parts[index].granted.push((block.place, block.len));
                    record.blocks.push(block);
                    None
                }
                None => Some(block),
            }
        });
        // It is at no job: until it ends.
        shared.seats().places[seat].blocks.extend(left);
        Ok(place)
    }

    /// Does what is to be done for all workers that have ended.
    fn see_to_the_dead(&mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let next = shared.seats().next_dead(&shared.wire);
            let Some((dead, at, broken)) = next else {
                return;
            };
            self.waiting
                .retain(|(seat, ..)| *seat != usize::from(dead.seat));
            let retries = shared.settings.on_death.retries();
            shared.with_board(|board, after| board.recover(&dead, at, retries, after));
            shared.tell_later(trace::worker_ended(&dead.name, dead.pid, dead.how));
            if let Some(why) = broken {
                self.break_down(why);
            }
        }
    }

    /// Starts workers on the seats that nobody has.
    fn fill_seats(&mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let is_over =
                shared.with_board(|board, _| board.closed.is_some() && board.outstanding == 0);
            let seat = match shared.seats().next_vacant() {
                // A seat that nobody needs any more is not one to come back to.
                Some(_) if is_over => continue,
                Some(seat) => seat,
                None => return,
            };
            match start(&shared, seat) {
                Ok(()) => shared.seats().restarts += 1,
                Err(error) => {
                    let broken = shared.seats().not_seated(seat, &whole(&error));
                    if let Some(why) = broken {
                        self.break_down(why);
                    }
                }
            }
        }
    }

    /// The pool cannot go on.
    fn break_down(&self, why: String) {
        self.shared.end_all(&Ending::Broken(why.into()));
    }

    /// Settles jobs that nobody waits for, some at a time.
    fn settle_ended(&self) {
        let shared = &self.shared;
        let mut ended = chunk::take_all(&shared.wire.page.ended).peekable();
        while ended.peek().is_some() {
            shared.with_board(|board, after| {
                let some = ended.by_ref().take(SOME);
                some.for_each(|number| board.settle(number, after));
            });
        }
    }

    /// Looks whether anything was lost, is overdue, or is not used any more.
    fn look_around(&mut self) {
        let shared = Arc::clone(&self.shared);
        let elapsed = self.looked.elapsed();
        self.looked = Instant::now();
        let (is_any_ready, outstanding) =
            shared.with_board(|board, after: &mut After| (board.audit(after), board.outstanding));
        if is_any_ready {
            // One that was woken may have been stopped before it looked.
            shared.wire.page.tasks.notify_one();
        }
        self.give_room();
        self.look_at_clocks(elapsed);
        if let Some(limit) = shared.settings.memory_limit {
            self.look_at_memory(limit);
        }
        if self.trimmed.elapsed() >= IDLE {
            self.trimmed = Instant::now();
            self.has_idle = shared.memory.trim(true);
        }
        if outstanding > 0 || !self.waiting.is_empty() || self.has_idle {
            self.active = Instant::now();
        }
        let is_starting = shared.seats().places.iter().any(seats::Seat::is_starting);
        if self.active.elapsed() > IDLE && !is_starting {
            shared.is_awake.store(false, Private::Relaxed);
            // Who submits, or gives memory back, asks whether it is awake after that is seen here.
            if shared.with_board(|board, _| board.outstanding > 0) || shared.memory.is_active() {
                shared.is_awake.store(true, Private::Relaxed);
            }
        }
    }

    /// Ends workers that have been at one item, or at their initializer, for longer than the limit.
    fn look_at_clocks(&self, elapsed: Duration) {
        let shared = &self.shared;
        let rows = &shared.wire.rows;
        let limit_of_pool = shared.settings.task_timeout;
        let limits: Vec<Option<Duration>> = shared.with_board(|board, _| {
            let limit = |row: &crate::layout::PoolRow| {
                let at = row.at.load(Ordering::Acquire).checked_sub(1)?;
                board.record(at as usize)?.job.limit
            };
            rows.iter()
                .map(|row| limit(row).or(limit_of_pool))
                .collect()
        });
        let mut overdue = Vec::new();
        let mut seats = shared.seats();
        for (seat, (row, limit)) in rows.iter().zip(limits).enumerate() {
            let place = &mut seats.places[seat];
            let Some(limit) = limit else {
                place.seen = None;
                continue;
            };
            let word = row.item.load(Ordering::Acquire);
            let is_at_item = row.activity.load(Ordering::Acquire) == chunk::BUSY
                && Naming::from_word(word).item != Naming::NONE;
            let is_preparing = place.is_starting() && seats::busy(row) > Duration::ZERO;
            if !is_at_item && !is_preparing {
                place.seen = None;
                continue;
            }
            // While all of us were stopped nobody worked: so much is left out.
            let elapsed = elapsed.min(2 * self.tick());
            let since = match place.seen {
                Some((seen, since)) if seen == word => since + elapsed,
                _ => Duration::ZERO,
            };
            place.seen = Some((word, since));
            if since >= limit && place.cause.is_none() {
                overdue.push((seat, word, limit));
            }
        }
        drop(seats);
        for (seat, word, limit) in overdue {
            let is_at = |_: u64, now: u64| now == word;
            end_worker(shared, seat, Cause::TimedOut(limit), is_at);
        }
    }

    /// Ends workers that use more memory than they may.
    fn look_at_memory(&self, limit: u64) {
        let shared = &self.shared;
        let pids: Vec<_> = {
            let seats = shared.seats();
            let places = seats.places.iter().enumerate();
            let lives = places.filter(|(_, place)| place.child.is_some() && place.cause.is_none());
            lives.map(|(seat, place)| (seat, place.pid)).collect()
        };
        for (seat, pid) in pids {
            if crate::sys::private_memory(pid).is_some_and(|bytes| bytes > limit) {
                end_worker(shared, seat, Cause::OutOfMemory(limit), |_, _| true);
            }
        }
    }
}

/// Ends the worker of a seat if, stopped, it is still where it was thought to be: `is_at` is asked of its cell, plus
/// 1, and of its item. Otherwise it goes on.
pub(super) fn end_worker(
    shared: &PoolShared,
    seat: usize,
    cause: Cause,
    is_at: impl Fn(u64, u64) -> bool,
) -> bool {
    let row = &shared.wire.rows[seat];
    // One at a time: another would let the worker go on that this one has stopped.
    let _one = shared.one_ends();
    let (count, stopped) = {
        let seats = shared.seats();
        let place = &seats.places[seat];
        match place.child.as_ref() {
            Some(child) => (place.count, child.stopper()),
            None => return false,
        }
    };
    // Not under the lock: it takes a moment.
    stopped.stop();
    let word = row.item.load(Ordering::Acquire);
    if !is_at(row.at.load(Ordering::Acquire), word) {
        stopped.go_on();
        return false;
    }
    {
        let mut seats = shared.seats();
        let place = &mut seats.places[seat];
        // It may have died of itself meanwhile, and another may have its seat.
        if place.count != count || place.child.is_none() {
            return false;
        }
        place.cause = Some((word, cause));
    }
    stopped.end(shared.settings.kill_tree);
    true
}

/// Starts a worker on a seat that nobody has.
pub(super) fn start(shared: &Arc<PoolShared>, seat: usize) -> Result<(), SpawnError> {
    let (count, name) = shared.seats().prepare(seat, &shared.wire, &shared.settings);
    let child = seats::spawn(&shared.wire, &shared.settings, seat, &name)?;
    shared.tell_later(trace::worker_started(&name, child.pid()));
    let its = Arc::downgrade(shared);
    child.on_exit(move |how| {
        if let Some(shared) = its.upgrade() {
            shared.seats().has_ended(seat, count, how);
            shared.call_supervisor();
        }
    });
    let mut seats = shared.seats();
    if !seats.is_over {
        seats.seat(seat, child);
        return Ok(());
    }
    // The pool was ended meanwhile; and so is this one, without the lock.
    drop(seats);
    seats::kill_all(vec![child], shared.settings.kill_tree);
    Ok(())
}
