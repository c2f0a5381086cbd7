//! The pool's side of its segment: jobs are placed in cells, their tickets pushed, their memory found.
//!
//! This is the seam below which work is only bytes: [`Engine::submit`] takes encoded items for a task, and
//! hands the finished ones back by reference in the [`Work`] that the caller keeps.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use super::arena::{Arena, Block, Place};
use super::control::{CELLS, Cell, Control, FIRST_SINGLE, TICKET_LANE};
use super::crew::Crew;
use super::error::PoolError;
use super::job::{self, Generation, Span, Ticket};
use super::receive::{Followers, Role};
use super::settings::Settings;
use super::station::{ARENA, handle_of};
use super::step::CARRIES;
use super::work::{Ending, Input, Parcel, Piece, Work};
use crate::handle::Passed;
use crate::kin::{self, Kin};
use crate::layout::{CHUNKS, Chunk, EXTENTS, INLINE, SMALL};
use crate::ring::Writer;
use crate::segment::{Bytes, Commit, Segment};
use crate::sync::Ordering;

/// The first extent; each further one is as large as all before, up to the largest. A fuzzer makes one for each
/// input, a small one.
const FIRST_EXTENT: u64 = if cfg!(fuzzing) { 16 } else { 256 } * 1024;
const LARGEST_EXTENT: u64 = 32 << 20;
/// An extent of which nothing is used any more is given back while the arena is larger than this.
const KEEP: u64 = 64 << 20;

/// A pool, as all threads that use it share it.
pub(super) struct Engine {
    pub(super) kin: &'static Kin,
    pub(super) control: Control,
    pub(super) settings: Settings,
    pub(super) intake: Mutex<Intake>,
    /// Held by whoever reads the workers' notices.
    pub(super) role: Mutex<Role>,
    pub(super) followers: Followers,
    pub(super) crew: Mutex<Crew>,
    /// A worker has ended, or something else has happened that whoever has the role must see to.
    pub(super) attention: AtomicBool,
    /// Tasks whose end nobody may be waiting for.
    pub(super) unwatched: AtomicUsize,
    /// Calls between whose waits the caller's own code runs.
    pub(super) loose: AtomicUsize,
    pub(super) supervisor: OnceLock<Thread>,
    /// The supervisor was called, and has not looked since.
    pub(super) called: AtomicBool,
    pub(super) callbacks: Mutex<super::task::Callbacks>,
    /// The supervisor is to end.
    pub(super) stop: AtomicBool,
}

/// What the threads that submit, and the one that receives, change under one lock.
pub(super) struct Intake {
    tickets: Writer,
    /// Tickets that found their lane full.
    waiting: VecDeque<Ticket>,
    /// Tickets pushed since somebody was last woken for them.
    pushed: usize,
    free_singles: Vec<u16>,
    free_tables: Vec<u16>,
    tables_ready: bool,
    cells: Vec<CellState>,
    memory: Memory,
    backlog: VecDeque<Parcel>,
    /// Why nothing more is taken in.
    pub(super) closed: Option<Ending>,
    /// Jobs that have not ended.
    pub(super) outstanding: usize,
    /// Jobs that have ended, whose groups are to be told when the lock is given back.
    ended: Vec<Arc<Work>>,
    /// How many of them nobody was waiting for.
    unwatched_ended: usize,
    /// What handles in the arguments of those led to; let go of when the lock is given back.
    over: Vec<Passed>,
    pub(super) counts: Counts,
    contexts: u64,
}

/// Items, as [`PoolStats`](super::PoolStats) counts them.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) submitted: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
}

#[derive(Default)]
struct CellState {
    generation: Generation,
    work: Option<Arc<Work>>,
}

/// The arena and its segments.
#[derive(Default)]
struct Memory {
    arena: Arena,
    extents: Vec<Option<(Segment, Bytes)>>,
    stamp: u64,
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    pub(super) fn new(settings: Settings) -> Result<Arc<Engine>, PoolError> {
        let kin = kin::kin().map_err(crate::error::SegmentError::from)?;
        let control = Control::create(settings.workers)?;
        let page = &control.page;
        let intake = Intake {
            tickets: Writer::attach(TICKET_LANE, &page.lane, &page.tickets),
            waiting: VecDeque::new(),
            pushed: 0,
            // The lowest first, and again as soon as it is free: it is warm.
            free_singles: (FIRST_SINGLE..CELLS as u16).rev().collect(),
            free_tables: (0..FIRST_SINGLE).rev().collect(),
            tables_ready: false,
            cells: (0..CELLS).map(|_| CellState::default()).collect(),
            memory: Memory::default(),
            backlog: VecDeque::new(),
            closed: None,
            outstanding: 0,
            ended: Vec::new(),
            unwatched_ended: 0,
            over: Vec::new(),
            counts: Counts::default(),
            contexts: 0,
        };
        let role = Role::new(&control);
        let crew = Crew::new(settings.workers);
        Ok(Arc::new(Engine {
            kin,
            control,
            settings,
            intake: Mutex::new(intake),
            role: Mutex::new(role),
            followers: Followers::default(),
            crew: Mutex::new(crew),
            attention: AtomicBool::new(false),
            unwatched: AtomicUsize::new(0),
            loose: AtomicUsize::new(0),
            supervisor: OnceLock::new(),
            called: AtomicBool::new(false),
            callbacks: Mutex::default(),
            stop: AtomicBool::new(false),
        }))
    }

    /// Does something to the intake; then, with the lock given back, wakes whom it concerns.
    pub(super) fn with_intake<R>(&self, change: impl FnOnce(&mut Intake) -> R) -> R {
        let mut intake = lock(&self.intake);
        let result = change(&mut intake);
        let pushed = std::mem::take(&mut intake.pushed);
        let ended = std::mem::take(&mut intake.ended);
        let unwatched = std::mem::take(&mut intake.unwatched_ended);
        let over = std::mem::take(&mut intake.over);
        drop(intake);
        drop(over);
        if pushed > 0 {
            self.wake(pushed);
        }
        if unwatched > 0 {
            self.unwatched.fetch_sub(unwatched, Ordering::SeqCst);
        }
        for work in ended {
            if work.group.as_ref().is_some_and(|group| group.one_ended()) {
                self.unwatched.fetch_sub(1, Ordering::SeqCst);
            }
        }
        result
    }

    /// Wakes workers for tickets just pushed, unless enough of them hunt anyway.
    fn wake(&self, pushed: usize) {
        let signal = &self.control.page.tasks;
        let hunting = job::hunters(self.control.seats.iter().map(|seat| &seat.now));
        match pushed.saturating_sub(hunting) {
            0 => {}
            1 => signal.notify_one(),
            _ => signal.notify_all(),
        }
    }

    /// Takes a job in, at once or when there is a place for it.
    pub(super) fn submit(&self, parcel: Parcel) -> Result<(), Ending> {
        self.with_intake(|intake| {
            if let Some(ending) = &intake.closed {
                return Err(ending.clone());
            }
            intake.outstanding += 1;
            intake.counts.submitted += u64::from(parcel.work.items);
            if !intake.backlog.is_empty() {
                intake.backlog.push_back(parcel);
            } else if let Some(parcel) = intake.launch(&self.control, parcel) {
                intake.backlog.push_back(parcel);
            }
            Ok(())
        })
    }

    /// Memory for a job's items.
    pub(super) fn take_block(&self, len: u64) -> Result<(Block, Bytes), String> {
        let mut intake = lock(&self.intake);
        let block = intake.memory.take(&self.control, len)?;
        let bytes = intake
            .memory
            .bytes(block.place)
            .ok_or("an extent is missing")?;
        Ok((block, bytes))
    }

    /// Gives a job's memory back.
    pub(super) fn give_back(&self, blocks: impl IntoIterator<Item = Block>) {
        // In a forked copy nothing is the copy's to give back, and the lock may have been held at the fork.
        if kin::forked() {
            return;
        }
        let mut blocks = blocks.into_iter().peekable();
        if blocks.peek().is_some() {
            let mut intake = lock(&self.intake);
            for block in blocks {
                intake.memory.give_back(&self.control, block);
            }
        }
    }

    /// The memory at a place of the arena, to read a job's results from.
    pub(super) fn bytes(&self, place: Place) -> Option<Bytes> {
        lock(&self.intake).memory.bytes(place)
    }

    /// A number that tells a context from any other.
    pub(super) fn next_context(&self) -> u64 {
        let mut intake = lock(&self.intake);
        intake.contexts += 1;
        intake.contexts
    }

    /// Withdraws all chunks of a job that no worker has begun. True if nothing of it was begun.
    pub(super) fn cancel(&self, work: &Arc<Work>) -> bool {
        if kin::forked() {
            return false;
        }
        let cancelled = self.with_intake(|intake| {
            let Some(ticket) = work.ticket() else {
                let before = intake.backlog.len();
                intake
                    .backlog
                    .retain(|parcel| !Arc::ptr_eq(&parcel.work, work));
                let was_waiting = intake.backlog.len() < before;
                if was_waiting {
                    intake.end(&self.control, work, Some(Ending::Cancelled));
                }
                return was_waiting;
            };
            if intake.work_of(ticket).is_none() {
                return false;
            }
            let Some(cell) = self.control.cell(ticket.cell) else {
                return false;
            };
            let chunks = &cell.chunks()[..work.chunks()];
            let withdrawn = chunks
                .iter()
                .filter(|chunk| job::withdraw(&chunk.state, ticket.generation))
                .count();
            if work.withdrawn(withdrawn as u32) {
                intake.end(&self.control, work, None);
            }
            withdrawn == chunks.len()
        });
        if !work.has_ended() {
            // If a worker has died in it, perhaps nothing will be said of it any more.
            self.alarm();
        }
        cancelled
    }

    /// Workers that are at an item.
    pub(super) fn at_work(&self) -> u64 {
        let seats = self.control.seats.iter();
        let busy = seats.filter(|seat| seat.now.load(Ordering::Relaxed) == job::AT_WORK);
        busy.count() as u64
    }

    /// Ends everything that has not ended, and takes nothing more in.
    pub(super) fn end_all(&self, ending: &Ending) {
        self.with_intake(|intake| {
            intake.closed.get_or_insert_with(|| ending.clone());
            let placed: Vec<_> = intake
                .cells
                .iter_mut()
                .filter_map(|cell| cell.work.take())
                .collect();
            let waiting = std::mem::take(&mut intake.backlog);
            let waiting = waiting.into_iter().map(|parcel| parcel.work);
            for work in placed.into_iter().chain(waiting) {
                intake.settle(&self.control, &work, Some(ending.clone()));
            }
        });
        self.followers.wake_all();
    }
}

impl Intake {
    /// Places a job in a cell and pushes its tickets; gives it back if no cell is free.
    fn launch(&mut self, control: &Control, mut parcel: Parcel) -> Option<Parcel> {
        let free = match parcel.work.chunks() {
            1 => &mut self.free_singles,
            _ => &mut self.free_tables,
        };
        let Some(number) = free.pop() else {
            return Some(parcel);
        };
        match self.place(control, number, &parcel) {
            Ok(ticket) => {
                if let Some(passed) = parcel.passed.take() {
                    parcel.work.hold(passed);
                }
                for _ in 0..parcel.work.chunks().min(control.seats.len()) {
                    self.push(control, ticket);
                }
            }
            Err(why) => {
                self.free(number);
                self.settle(control, &parcel.work, Some(Ending::NoMemory(why)));
            }
        }
        None
    }

    fn place(&mut self, control: &Control, number: u16, parcel: &Parcel) -> Result<Ticket, String> {
        if number < FIRST_SINGLE && !self.tables_ready {
            control.commit_tables().map_err(|error| error.to_string())?;
            self.tables_ready = true;
        }
        let work = &parcel.work;
        let cell = control.cell(number).ok_or("there is no such cell")?;
        let is_single = matches!(cell, Cell::Single(_));
        let [small, inline_in, inline_out] = Control::inline_places(number);

        let (input, its) = match &parcel.input {
            Input::Placed(place) | Input::InArray(place, _) => (*place, None),
            Input::Small(bytes, len) if is_single => {
                let len = usize::from(*len);
                let place = if len <= SMALL { small } else { inline_in };
                let to = control.inline();
                to.copy_in(place.offset as usize, &bytes[..len]);
                (place, None)
            }
            Input::Small(bytes, len) => {
                let block = self.memory.take(control, u64::from(*len))?;
                let to = self.memory.bytes(block.place);
                let to = to.ok_or("an extent is missing")?;
                to.copy_in(block.place.offset as usize, &bytes[..usize::from(*len)]);
                (block.place, Some(block))
            }
        };
        let each = work.out_size.unwrap_or_else(|| parcel.guess.max(16));
        let room = u64::from(work.items).saturating_mul(each);
        let is_inline = is_single && room <= INLINE as u64;
        let (output, room, its_too) = if is_inline {
            (inline_out, INLINE as u64, None)
        } else {
            match self.memory.take(control, room) {
                Ok(block) => (block.place, block.len, Some(block)),
                Err(why) => {
                    if let Some(block) = its {
                        self.memory.give_back(control, block);
                    }
                    return Err(why);
                }
            }
        };
        let state = &mut self.cells[usize::from(number)];
        state.generation = state.generation.next();
        state.work = Some(Arc::clone(work));
        let generation = state.generation;
        let ticket = Ticket {
            cell: number,
            generation,
        };
        work.placed(ticket, output, its.into_iter().chain(its_too));

        let words = cell.job();
        for (word, value) in words.task.iter().zip(parcel.task.words()) {
            word.store(value, Ordering::Relaxed);
        }
        let context = work.context().map_or(0, Place::word);
        words.context.store(context, Ordering::Relaxed);
        let part = |from: u64, to: u64| match parcel.input {
            Input::InArray(_, first) => (input, first),
            _ => (input.after(from), to - from),
        };
        if parcel.spans.is_empty() {
            let chunk = &cell.chunks()[0];
            let span = Span {
                start: 0,
                count: work.items,
            };
            describe(chunk, span, part(0, parcel.len), (output, room));
            job::offer(&chunk.state, generation, 0);
        }
        let ends = parcel.starts.iter().skip(1);
        let starts = parcel.starts.iter().zip(ends);
        let spans = parcel.spans.iter().zip(starts);
        for ((span, (from, to)), chunk) in spans.zip(cell.chunks()) {
            let output = output.after(u64::from(span.start) * each);
            let room = u64::from(span.count) * each;
            describe(chunk, *span, part(*from, *to), (output, room));
            job::offer(&chunk.state, generation, 0);
        }
        if let Some(cursor) = cell.cursor() {
            job::open(cursor, generation);
        }
        Ok(ticket)
    }

    /// Pushes a ticket, or keeps it until there is room.
    pub(super) fn push(&mut self, control: &Control, ticket: Ticket) {
        self.waiting.push_back(ticket);
        self.flush(control);
    }

    /// Pushes the tickets that are waiting, as far as there is room.
    pub(super) fn flush(&mut self, control: &Control) {
        let page = &control.page;
        while let Some(ticket) = self.waiting.front() {
            if self.tickets.room(&page.lane) == 0 {
                return;
            }
            self.tickets.payload(&page.tickets, 0)[0].store(ticket.word(), Ordering::Relaxed);
            self.tickets.publish(&page.tickets, 1);
            self.waiting.pop_front();
            self.pushed += 1;
        }
    }

    /// The job that a ticket is of, if it stands in its cell still.
    pub(super) fn work_of(&self, ticket: Ticket) -> Option<&Arc<Work>> {
        let cell = self.cells.get(usize::from(ticket.cell))?;
        cell.work
            .as_ref()
            .filter(|_| cell.generation == ticket.generation)
    }

    /// The job that stands in a cell, whichever it is.
    pub(super) fn work_in(&self, number: u16) -> Option<(Generation, Arc<Work>)> {
        let cell = self.cells.get(usize::from(number))?;
        Some((cell.generation, Arc::clone(cell.work.as_ref()?)))
    }

    /// A job has ended: takes its results, frees its cell, places those that wait, and tells its owner.
    pub(super) fn end(&mut self, control: &Control, work: &Arc<Work>, ending: Option<Ending>) {
        if let Some(ticket) = work.ticket() {
            if let Some(cell) = control.cell(ticket.cell) {
                harvest(control, cell, work);
            }
            self.cells[usize::from(ticket.cell)].work = None;
            self.free(ticket.cell);
        }
        self.settle(control, work, ending);
        self.flush(control);
        while let Some(parcel) = self.backlog.pop_front() {
            if let Some(parcel) = self.launch(control, parcel) {
                self.backlog.push_front(parcel);
                break;
            }
        }
    }

    fn free(&mut self, number: u16) {
        if number < FIRST_SINGLE {
            self.free_tables.push(number);
        } else {
            self.free_singles.push(number);
        }
    }

    /// Says that a job has ended.
    fn settle(&mut self, control: &Control, work: &Arc<Work>, ending: Option<Ending>) {
        let (failed, left_behind) = work.settle(ending);
        self.over.extend(work.held());
        self.outstanding -= 1;
        self.counts.failed += failed;
        self.counts.done += u64::from(work.items) - failed;
        if let Some(blocks) = left_behind {
            work.wipe(|place| self.memory.bytes(place));
            self.unwatched_ended += 1;
            for block in blocks {
                self.memory.give_back(control, block);
            }
        }
        if work.has_more_to_end() {
            // Not under the lock: a context that ends with it gives memory back.
            self.ended.push(Arc::clone(work));
        }
    }

    /// Memory that a worker has asked for; it is the job's from now on.
    pub(super) fn grant(&mut self, control: &Control, bytes: u64) -> Option<Block> {
        self.memory.take(control, bytes).ok()
    }

    pub(super) fn bytes(&self, place: Place) -> Option<Bytes> {
        self.memory.bytes(place)
    }

    pub(super) fn give_back(&mut self, control: &Control, block: Block) {
        self.memory.give_back(control, block);
    }

    /// Whether the workers are not needed any more.
    pub(super) fn is_over(&self) -> bool {
        self.closed.is_some() && self.outstanding == 0
    }

    /// Items that are in no worker's hands yet or still are.
    pub(super) fn queued(&self) -> u64 {
        self.counts.submitted - self.counts.done - self.counts.failed
    }
}

/// Says what a chunk is. Nobody can lease it meanwhile.
pub(super) fn describe(chunk: &Chunk, span: Span, input: (Place, u64), output: (Place, u64)) {
    chunk.span.store(span.word(), Ordering::Relaxed);
    chunk.input.store(input.0.word(), Ordering::Relaxed);
    chunk.input_len.store(input.1, Ordering::Relaxed);
    chunk.output.store(output.0.word(), Ordering::Relaxed);
    chunk.room.store(output.1, Ordering::Relaxed);
    chunk.used.store(0, Ordering::Relaxed);
}

/// What stands in a chunk when its worker has committed it, or is dead.
pub(super) fn piece(chunk: &Chunk) -> Piece {
    let used = chunk.used.load(Ordering::Acquire);
    Piece {
        span: Span::from_word(chunk.span.load(Ordering::Relaxed)),
        place: Place::from_word(chunk.output.load(Ordering::Acquire)),
        used: used & !CARRIES,
        carries: used & CARRIES != 0,
    }
}

fn harvest(control: &Control, cell: Cell<'_>, work: &Work) {
    let chunks = &cell.chunks()[..work.chunks().min(CHUNKS)];
    work.harvest(control.inline(), chunks.iter().map(piece));
}

impl Memory {
    fn take(&mut self, control: &Control, len: u64) -> Result<Block, String> {
        if let Some(block) = self.arena.take(len) {
            return Ok(block);
        }
        let size = Arena::rounded(len).max(self.arena.len().clamp(FIRST_EXTENT, LARGEST_EXTENT));
        let segment = Segment::build("pool arena", ARENA, size, Commit::All)
            .map_err(|error| error.to_string())?;
        let bytes = segment.bytes(0, size).map_err(|error| error.to_string())?;
        let handle = handle_of(&segment).ok_or("an extent has no handle")?;
        let number = self
            .arena
            .add(size, EXTENTS)
            .ok_or_else(|| format!("{EXTENTS} extents are in use"))?;
        let index = usize::from(number) - 1;
        if self.extents.len() <= index {
            self.extents.resize_with(index + 1, || None);
        }
        self.extents[index] = Some((segment, bytes));
        self.stamp += 1;
        let extent = &control.page.extents[index];
        for (word, value) in extent.handle.iter().zip(handle) {
            word.store(value, Ordering::Relaxed);
        }
        extent.stamp.store(self.stamp, Ordering::Release);
        self.arena
            .take(len)
            .ok_or_else(|| format!("{len} bytes are not to be had"))
    }

    fn give_back(&mut self, control: &Control, block: Block) {
        let Some(number) = self.arena.give_back(block) else {
            return;
        };
        if self.arena.len() > KEEP {
            let index = usize::from(number) - 1;
            self.arena.remove(number);
            self.extents[index] = None;
            self.stamp += 1;
            let page = &control.page;
            page.extents[index]
                .stamp
                .store(self.stamp, Ordering::Release);
            page.epoch.fetch_add(1, Ordering::Release);
        }
    }

    fn bytes(&self, place: Place) -> Option<Bytes> {
        let (_, bytes) = self
            .extents
            .get(usize::from(place.extent).checked_sub(1)?)?
            .as_ref()?;
        Some(bytes.clone())
    }
}

/// How long a wait may be before whoever waits looks whether there is something else to do.
pub(super) const GLANCE: Duration = Duration::from_millis(20);
