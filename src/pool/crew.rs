//! The pool's workers as processes: started, watched, replaced; and what is done when one has died.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc::{SIGKILL, SIGTERM};

use super::arena::{Block, Place};
use super::control::Cell;
use super::engine::{Engine, Intake, describe, lock, piece};
use super::error::{Death, PoolError, TaskError};
use super::job::{self, Busy, Naming, Span, Ticket};
use super::receive::Ears;
use super::settings::OnDeath;
use super::work::{Ending, Piece, Work, records_len};
use super::worker::{Orders, work};
use crate::error::Corrupt;
use crate::handle::Travelling;
use crate::layout::{Chunk, Seat};
use crate::process::{Child, Process};
use crate::sync::Ordering;
use crate::sys::{self, Ended};

/// So many workers that die before they have begun anything, while nobody begins anything, all within
/// [`EARLY`], break the pool.
const EARLY_DEATHS: usize = 5;
/// The same for workers that somebody else has killed, which may be chance.
const EARLY_KILLS: usize = 50;
const EARLY: Duration = Duration::from_secs(10);

/// All workers of a pool.
pub(super) struct Crew {
    pub(super) places: Vec<Seated>,
    /// Workers that were ever started.
    hired: usize,
    /// Seats whose worker has ended and was seen to.
    vacant: Vec<usize>,
    /// Workers that have ended and are not seen to: seat, which worker of it, how.
    ended: Vec<(usize, u64, Ended)>,
    /// When workers died early, and whether by somebody else.
    early: VecDeque<(Instant, bool)>,
    /// Items begun by all workers when the last one died early.
    begun_then: u64,
    /// Items begun by workers that are gone.
    begun_before: u64,
    /// How long workers have worked that are gone.
    busy_before: Duration,
    pub(super) restarts: u64,
}

/// Who has a seat.
#[derive(Default)]
pub(super) struct Seated {
    pub(super) child: Option<Child<()>>,
    pub(super) pid: u32,
    pub(super) name: Arc<str>,
    /// Which worker of this seat it is.
    count: u64,
    /// Memory given to it outside of any job.
    blocks: Vec<Block>,
    /// What it was last seen at, and since when.
    seen: Option<(u64, Instant)>,
    /// What it was killed for.
    overdue: Option<u64>,
}

impl Crew {
    pub(super) fn new(workers: usize) -> Crew {
        Crew {
            places: (0..workers).map(|_| Seated::default()).collect(),
            hired: 0,
            vacant: Vec::new(),
            ended: Vec::new(),
            early: VecDeque::new(),
            begun_then: 0,
            begun_before: 0,
            busy_before: Duration::ZERO,
            restarts: 0,
        }
    }

    /// Keeps memory that was given to a worker for itself.
    pub(super) fn own(&mut self, seat: usize, block: Block) {
        self.places[seat].blocks.push(block);
    }

    /// Whether seats are to be filled.
    pub(super) fn has_vacancies(&self) -> bool {
        !self.vacant.is_empty()
    }
}

impl Engine {
    /// Starts a worker on a seat that nobody has.
    pub(super) fn hire(self: &Arc<Engine>, seat: usize) -> Result<(), PoolError> {
        let (count, name) = {
            let mut crew = lock(&self.crew);
            crew.hired += 1;
            let number = crew.hired;
            let place = &mut crew.places[seat];
            place.count += 1;
            let name = format!("{}-{number}", self.settings.name);
            (place.count, name)
        };
        let row = &self.control.seats[seat];
        let nothing = Naming {
            item: Naming::NONE,
            turn: 0,
        };
        row.now.store(job::ABSENT, Ordering::Relaxed);
        row.ticket.store(0, Ordering::Relaxed);
        row.item.store(nothing.word(), Ordering::Relaxed);
        row.grants.store(0, Ordering::Relaxed);
        row.busy.store(Busy::NEVER.word(), Ordering::Relaxed);
        let orders = Orders {
            initializer: self.settings.initializer.clone(),
            chunks: self.settings.max_tasks,
        };
        let segment = Travelling(self.control.segment().clone());
        let mut process = Process::builder().name(&name);
        if let Some(method) = self.settings.method {
            process = process.start_method(method);
        }
        let child = process.spawn(work, (segment, seat as u16, orders))?;
        {
            let mut crew = lock(&self.crew);
            let place = &mut crew.places[seat];
            place.pid = child.pid();
            place.name = name.into();
            place.seen = None;
            place.overdue = None;
        }
        let engine = Arc::clone(self);
        let told = move |how| {
            lock(&engine.crew).ended.push((seat, count, how));
            engine.alarm();
        };
        child.on_exit(told);
        lock(&self.crew).places[seat].child = Some(child);
        Ok(())
    }

    /// Fills all seats that are vacant. For the supervisor's thread: it takes a while.
    pub(super) fn fill_seats(self: &Arc<Engine>) {
        loop {
            let Some(seat) = lock(&self.crew).vacant.pop() else {
                return;
            };
            if lock(&self.intake).is_over() {
                return;
            }
            lock(&self.crew).restarts += 1;
            if let Err(error) = self.hire(seat) {
                self.break_down(&error.to_string());
            }
        }
    }

    /// Number and name of the worker on a seat.
    pub(super) fn worker_of(&self, seat: usize) -> (u32, Arc<str>) {
        let crew = lock(&self.crew);
        let place = &crew.places[seat];
        (place.pid, Arc::clone(&place.name))
    }

    /// How long all workers together have worked.
    pub(super) fn busy(&self) -> Duration {
        let crew = lock(&self.crew);
        let seats = self.control.seats.iter();
        crew.busy_before + seats.map(|row| busy(row)).sum::<Duration>()
    }

    /// Does what is to be done for all workers that have ended. For whoever has the role.
    pub(super) fn see_to_the_dead(&self, ears: &mut Ears) -> Result<(), Corrupt> {
        self.attention.store(false, Ordering::Release);
        loop {
            let (seat, how) = {
                let mut crew = lock(&self.crew);
                let Some((seat, count, how)) = crew.ended.pop() else {
                    return Ok(());
                };
                if crew.places[seat].count != count {
                    continue;
                }
                (seat, how)
            };
            // All it ever said comes first.
            ears.listen_to(seat, self)?;
            if let Some(ticket) = self.bury(seat, how)? {
                ears.recount(ticket);
            }
            // Whoever counted on it to look for tickets may have woken nobody.
            self.control.page.tasks.notify_all();
            self.call_supervisor();
        }
    }

    /// Gives what a dead worker leaves to others; the job it was at, if it has not ended.
    fn bury(&self, seat: usize, how: Ended) -> Result<Option<Ticket>, Corrupt> {
        let row = &self.control.seats[seat];
        let naming = row.item.load(Ordering::Acquire);
        let ticket = Ticket::from_word(row.ticket.load(Ordering::Acquire));
        let begun = u64::from(Naming::from_word(naming).turn);
        let (dead, blocks, is_broken) = {
            let mut crew = lock(&self.crew);
            let place = &mut crew.places[seat];
            let dead = Dead {
                seat: seat as u16,
                pid: place.pid,
                name: Arc::clone(&place.name),
                how,
                naming: Naming::from_word(naming),
                overdue: place.overdue == Some(naming),
            };
            let blocks = std::mem::take(&mut place.blocks);
            let is_broken = begun == 0 && how != Ended::Exited(0) && crew.died_early(self, how);
            crew.begun_before += begun;
            crew.busy_before += busy(row);
            row.busy.store(Busy::NEVER.word(), Ordering::Relaxed);
            (dead, blocks, is_broken)
        };
        // From here on its turn counts as begun before.
        row.item.store(
            Naming {
                item: Naming::NONE,
                turn: 0,
            }
            .word(),
            Ordering::Relaxed,
        );
        row.now.store(job::ABSENT, Ordering::Relaxed);
        row.ticket.store(0, Ordering::Relaxed);
        let ticket = self.with_intake(|intake| {
            for block in blocks {
                intake.give_back(&self.control, block);
            }
            match ticket {
                Some(ticket) => self.take_over(intake, ticket.cell, &dead),
                None => Ok(None),
            }
        })?;
        lock(&self.crew).vacant.push(seat);
        if is_broken {
            self.break_down(&format!(
                "workers die before they have begun anything; the last, {} (pid {}), {}",
                dead.name,
                dead.pid,
                dead.death()
            ));
        }
        Ok(ticket)
    }

    /// Sees to a cell whose ticket a dead worker had, or was about to take.
    fn take_over(
        &self,
        intake: &mut Intake,
        number: u16,
        dead: &Dead,
    ) -> Result<Option<Ticket>, Corrupt> {
        let (Some((generation, work)), Some(cell)) =
            (intake.work_in(number), self.control.cell(number))
        else {
            return Ok(None);
        };
        let ticket = Ticket {
            cell: number,
            generation,
        };
        let chunks = &cell.chunks()[..work.chunks()];
        for chunk in chunks {
            if let Some(attempt) = job::bury(&chunk.state, generation, dead.seat) {
                match self.remainder(intake, &work, chunk, attempt, dead)? {
                    Some(attempt) => job::offer(&chunk.state, generation, attempt),
                    None => job::settle(&chunk.state, generation),
                }
            }
        }
        self.offer_again(intake, ticket, cell, chunks);
        Ok(Some(ticket))
    }

    /// Pushes tickets for chunks that are on offer and that perhaps nobody is sent to.
    fn offer_again(&self, intake: &mut Intake, ticket: Ticket, cell: Cell<'_>, chunks: &[Chunk]) {
        let Some((first, count)) = job::left(chunks, ticket.generation) else {
            return;
        };
        if let Some(cursor) = cell.cursor() {
            job::rewind(cursor, ticket.generation, first);
        }
        for _ in 0..count.min(self.control.seats.len()) {
            intake.push(&self.control, ticket);
        }
    }

    /// Cuts a dead worker's chunk: what it had finished counts, the item it died in fails or is begun again,
    /// the rest is for others. The attempt at the first item that is left; `None` if none is.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the chunk says that it is of items which the job does not have: which ones it was of,
    /// nobody knows then.
    fn remainder(
        &self,
        intake: &Intake,
        work: &Work,
        chunk: &Chunk,
        attempt: u8,
        dead: &Dead,
    ) -> Result<Option<u8>, Corrupt> {
        let piece = piece(chunk);
        let span = piece.span;
        let end = span.start.checked_add(span.count);
        if end.is_none_or(|end| end > work.items) {
            return Err(Corrupt("a dead worker's chunk has items beyond its job's"));
        }
        let room = chunk.room.load(Ordering::Relaxed);
        let input = Place::from_word(chunk.input.load(Ordering::Relaxed));
        let input_len = chunk.input_len.load(Ordering::Relaxed);
        let Some(item) = dead.naming.begun(span) else {
            chunk.used.store(0, Ordering::Relaxed);
            return Ok(Some(attempt));
        };
        let attempts = if item == span.start {
            u32::from(attempt) + 1
        } else {
            1
        };
        let again = if work.has_failed(item) {
            // It had failed, and said so, before its worker died.
            false
        } else if let (true, Some(limit)) = (dead.overdue, self.settings.task_timeout) {
            work.fail(item, dead.timed_out(item, limit));
            false
        } else {
            let allowed = match self.settings.on_death {
                OnDeath::Fail => 0,
                OnDeath::Retry(times) => u32::from(times),
            };
            let again = attempts <= allowed;
            if !again {
                work.fail(item, dead.died(item, attempts));
            }
            again
        };
        let finished = item - span.start;
        let rest = if again {
            Span {
                start: item,
                count: span.count - finished,
            }
        } else {
            span.after(item)
        };
        let skipped = rest.start - span.start;
        let consumed = match work.in_size {
            Some(size) => Some(u64::from(skipped) * size),
            None => self
                .memory(intake, input)
                .and_then(|bytes| records_len(&bytes, input, input_len, skipped)),
        };
        let produced = match work.out_size {
            Some(size) => Some(u64::from(skipped) * size),
            None => self
                .memory(intake, piece.place)
                .and_then(|bytes| records_len(&bytes, piece.place, room, finished)),
        };
        let (Some(consumed), Some(produced)) = (consumed, produced) else {
            // The lengths it left make no sense: nothing of the chunk can be trusted.
            for item in span.start..span.start + span.count {
                if !work.has_failed(item) {
                    work.fail(item, dead.died(item, attempts));
                }
            }
            return Ok(None);
        };
        if work.out_size.is_none() {
            work.keep(Piece {
                span: Span {
                    start: span.start,
                    count: finished,
                },
                place: piece.place,
                used: produced,
                // Its worker holds nothing any more.
                carries: false,
            });
        }
        let input = (input.after(consumed), input_len.saturating_sub(consumed));
        let output = (piece.place.after(produced), room.saturating_sub(produced));
        describe(chunk, rest, input, output);
        Ok((rest.count > 0).then_some(if again {
            attempts.min(u32::from(u8::MAX)) as u8
        } else {
            0
        }))
    }

    fn memory(&self, intake: &Intake, place: Place) -> Option<crate::segment::Bytes> {
        if place.extent == 0 {
            return Some(self.control.inline().clone());
        }
        intake.bytes(place)
    }

    /// Kills workers that have been at one item for longer than the limit.
    pub(super) fn kill_the_overdue(&self, limit: Duration) {
        let now = Instant::now();
        let mut enders = Vec::new();
        let mut crew = lock(&self.crew);
        for (place, row) in crew.places.iter_mut().zip(&self.control.seats) {
            let word = row.item.load(Ordering::Acquire);
            let is_at_work = row.now.load(Ordering::Acquire) == job::AT_WORK
                && Naming::from_word(word).item != Naming::NONE;
            match place.seen {
                Some((seen, since)) if is_at_work && seen == word => {
                    if now.duration_since(since) >= limit && place.overdue != Some(word) {
                        place.overdue = Some(word);
                        let tree = self.settings.kill_tree;
                        enders.extend(place.child.as_ref().map(|child| child.ender(tree)));
                    }
                }
                _ => place.seen = is_at_work.then_some((word, now)),
            }
        }
        // Not under the lock: a whole tree takes a while.
        drop(crew);
        enders.into_iter().for_each(|end| end());
    }

    /// Kills all workers and waits until they are reaped.
    pub(super) fn dismiss(&self) {
        let children: Vec<_> = lock(&self.crew)
            .places
            .iter_mut()
            .filter_map(|place| place.child.take())
            .collect();
        for child in &children {
            child.ender(self.settings.kill_tree)();
        }
        // Dropped, each is reaped.
        drop(children);
    }

    /// Tells all workers to end, and waits; kills those that have not after `grace`.
    pub(super) fn send_home(&self, grace: Duration) {
        let page = &self.control.page;
        page.closing.store(1, Ordering::Release);
        page.tasks.notify_all();
        let deadline = Instant::now() + grace;
        let children: Vec<_> = lock(&self.crew)
            .places
            .iter_mut()
            .filter_map(|place| place.child.take())
            .collect();
        for child in children {
            let left = deadline.saturating_duration_since(Instant::now());
            // However it ended, it has nothing to say any more.
            if let Ok(None) = child.join_timeout(left) {
                child.ender(self.settings.kill_tree)();
            }
        }
    }

    /// Ends all tasks and all workers.
    pub(super) fn close_down(&self) {
        self.end_all(&Ending::Closed);
        self.dismiss();
    }
}

/// How long the worker on a seat has worked.
fn busy(row: &Seat) -> Duration {
    Busy::from_word(row.busy.load(Ordering::Relaxed)).until(sys::now())
}

impl Crew {
    /// A worker died before it had begun anything; whether the pool is to be given up.
    fn died_early(&mut self, engine: &Engine, how: Ended) -> bool {
        let living: u64 = engine
            .control
            .seats
            .iter()
            .map(|row| u64::from(Naming::from_word(row.item.load(Ordering::Relaxed)).turn))
            .sum();
        let begun = self.begun_before + living;
        if begun != self.begun_then {
            // Others do begin things: it is not the pool that is broken.
            self.begun_then = begun;
            self.early.clear();
        }
        let now = Instant::now();
        let killed = matches!(how, Ended::Signalled(SIGKILL | SIGTERM));
        self.early.push_back((now, killed));
        self.early.retain(|(at, _)| now.duration_since(*at) < EARLY);
        let of_itself = self.early.iter().filter(|(_, killed)| !killed).count();
        of_itself >= EARLY_DEATHS || self.early.len() >= EARLY_KILLS
    }
}

/// A worker that has ended, and what it was at.
struct Dead {
    seat: u16,
    pid: u32,
    name: Arc<str>,
    how: Ended,
    naming: Naming,
    /// It was killed for taking too long for what it was at.
    overdue: bool,
}

impl Dead {
    fn death(&self) -> Death {
        match self.how {
            Ended::Exited(code) => Death::Exited(code),
            Ended::Signalled(signal) => Death::Signalled(signal),
            Ended::Unknown => Death::Unknown,
        }
    }

    fn died(&self, item: u32, attempt: u32) -> TaskError {
        TaskError::WorkerDied {
            item: item as usize,
            pid: self.pid,
            name: self.name.to_string(),
            how: self.death(),
            attempt,
        }
    }

    fn timed_out(&self, item: u32, limit: Duration) -> TaskError {
        TaskError::TimedOut {
            item: item as usize,
            pid: Some(self.pid),
            name: Some(self.name.to_string()),
            limit,
        }
    }
}
