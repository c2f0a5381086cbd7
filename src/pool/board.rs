//! The pool's jobs: which stand in cells, which wait, and what becomes of them.
//!
//! All of this is under one lock, which is held for some hundred nanoseconds and under which nothing of the
//! user's runs. What is to be done when it is released (waking, telling, dropping) is gathered in an
//! [`After`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::job::{Group, Input, Job, News, Part, Record};
use super::memory::Memory;
use super::outcome::Ending;
use super::outcome::{Failures, Outcome, Reason, ResultRange};
use super::record::{CARRIES, REPORT_HEAD};
use super::wire::{CELL_STEP, FAIL_FAST, Wire};
use crate::chunk;
use crate::layout::{CELL_WORDS, CELLS, INLINE_OUTPUT, PoolCell, PoolChunk};
use crate::sync::Ordering;
use crate::sys;

/// How often in succession the words of a chunk may make no sense before it is given up: while a worker dies
/// or is between two steps they may, for a moment.
const ODD: u32 = 10;
/// The slowest tasks that are remembered.
const SLOWEST: usize = 8;

/// All jobs of a pool that have not ended.
pub(super) struct Board {
    wire: Arc<Wire>,
    memory: Arc<Memory>,
    cells: Vec<Option<Box<Record>>>,
    /// One bit a cell that has a job.
    taken: [u64; CELL_WORDS],
    /// Cells that have memory.
    committed: usize,
    /// The cell that the last job was placed in.
    newest: usize,
    pub(super) placed: usize,
    /// Jobs that wait for a cell, by their number.
    queue: BTreeMap<u64, Box<Record>>,
    numbers: u64,
    pub(super) closed: Option<Ending>,
    /// Jobs that have not ended.
    pub(super) outstanding: usize,
    pub(super) counts: Counts,
    pub(super) times: Times,
    /// Threads that wait for fewer jobs, or none.
    pub(super) waiters: usize,
}

/// Items, since the pool began.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) submitted: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
}

impl Counts {
    /// Items that have not ended.
    pub(super) fn outstanding(&self) -> u64 {
        self.submitted.saturating_sub(self.done + self.failed)
    }
}

/// How long jobs waited, and which took longest.
#[derive(Debug, Default, Clone)]
pub(super) struct Times {
    /// Jobs, and how long all of them together, and the longest, waited for a worker.
    pub(super) jobs: u64,
    pub(super) waited: Duration,
    pub(super) longest_wait: Duration,
    /// The function and the time, the slowest first; each function once.
    pub(super) slowest: Vec<(&'static str, Duration)>,
}

/// What is to be done when the board's lock is released.
#[derive(Default)]
pub(super) struct After {
    /// Chunks that were put on offer.
    pub(super) chunks: usize,
    /// The signals to wake, one bit each.
    pub(super) owners: u64,
    /// All workers are to look.
    pub(super) all_workers: bool,
    /// Somebody waits for fewer jobs.
    pub(super) has_waiters: bool,
    pub(super) news: Vec<News>,
    /// To be dropped.
    #[expect(
        clippy::vec_box,
        reason = "a record is large, and is moved here as it is"
    )]
    pub(super) over: Vec<Box<Record>>,
}

impl Board {
    pub(super) fn new(wire: &Arc<Wire>, memory: &Arc<Memory>) -> Board {
        Board {
            wire: Arc::clone(wire),
            memory: Arc::clone(memory),
            cells: std::iter::repeat_with(|| None).take(CELLS).collect(),
            taken: [0; CELL_WORDS],
            committed: CELL_STEP,
            newest: 0,
            placed: 0,
            queue: BTreeMap::new(),
            numbers: 0,
            closed: None,
            outstanding: 0,
            counts: Counts::default(),
            times: Times::default(),
            waiters: 0,
        }
    }

    /// Takes a job in; gives it back if the pool takes none.
    pub(super) fn submit(
        &mut self,
        record: Box<Record>,
        after: &mut After,
    ) -> Result<(), (Ending, Box<Record>)> {
        if let Some(ending) = &self.closed {
            return Err((ending.clone(), record));
        }
        self.numbers += 1;
        // Only here: a job is submitted once.
        let _ = record.job.number.set(self.numbers);
        self.outstanding += 1;
        self.counts.submitted += u64::from(record.job.items);
        let free = match self.queue.is_empty() {
            true => self.free_cell(),
            false => None,
        };
        match free {
            Some(number) => self.place(number, record, after),
            None => {
                self.queue.insert(self.numbers, record);
            }
        }
        Ok(())
    }

    /// A cell for another job: the next one behind the newest, so that jobs stand in the order in which they came;
    /// the first if there are none, whose lines are warm.
    fn free_cell(&mut self) -> Option<usize> {
        if self.placed == 0 {
            return Some(0);
        }
        // Twice as many as there are jobs, so that few jobs go around on few lines.
        let ring = (2 * self.placed + 2)
            .next_power_of_two()
            .clamp(CELL_STEP, CELLS);
        let from = (self.newest + 1) % ring;
        let cell = self
            .first_free(from..ring)
            .or_else(|| self.first_free(0..from))?;
        while self.committed <= cell {
            if self.wire.commit_cells(self.committed).is_err() {
                // There is no memory for more cells: those that there are go around.
                return self.first_free(0..self.committed);
            }
            self.committed += CELL_STEP;
        }
        Some(cell)
    }

    /// The first of these cells that has no job.
    fn first_free(&self, cells: Range<usize>) -> Option<usize> {
        let mut at = cells.start;
        while at < cells.end {
            let free = !self.taken[at / 64] >> (at % 64);
            at += match free {
                0 => 64 - at % 64,
                _ => return Some(at + free.trailing_zeros() as usize).filter(|at| *at < cells.end),
            };
        }
        None
    }

    /// Places a job in a cell that is free.
    fn place(&mut self, number: usize, mut record: Box<Record>, after: &mut After) {
        let wire = &self.wire;
        let Some(cell) = wire.cell(number) else {
            unreachable!("cells are counted by how many there are");
        };
        let [inline_in, inline_out] = wire.inline(number);
        let input = match &record.input {
            Input::Placed(place) | Input::InArray(place, _) => *place,
            Input::Small(bytes, len) => {
                let from = &bytes[..usize::from(*len)];
                wire.bytes.copy_in(inline_in as usize, from);
                inline_in
            }
        };
        if record.output_is_inline {
            record.output = inline_out;
        }
        for (chunk, part) in cell.chunks.iter().zip(&mut record.parts) {
            match record.input {
                Input::InArray(place, first) => part.input = (place, first),
                _ => part.input.0 += input,
            }
            part.output.0 += record.output;
            describe(chunk, part);
        }
        let chunks = record.job.chunks;
        for (word, value) in cell.task.iter().zip(record.task.words()) {
            set(word, value);
        }
        let context = record.kept[0].as_ref().map_or(0, |context| context.at());
        let flags = if record.job.fails_fast { FAIL_FAST } else { 0 };
        set(&cell.context, context);
        set(&cell.shape, chunks as u64 | flags);
        set(&cell.owner, record.owner);
        set(&cell.stop, u64::MAX);
        cell.begun.store(0, Ordering::Relaxed);
        cell.longest.store(0, Ordering::Relaxed);
        cell.has_failures.store(0, Ordering::Relaxed);
        cell.done.store(0, Ordering::Relaxed);
        for chunk in &cell.chunks[..chunks] {
            chunk::offer(chunk);
        }
        if chunks > 1 {
            chunk::set_cursor(&cell.cursor, chunks, 0);
        }
        if self.placed == 0 {
            wire.page.next.store(0, Ordering::Relaxed);
        }
        record.job.stands_in(number);
        self.cells[number] = Some(record);
        self.taken[number / 64] |= chunk::bit(number);
        self.newest = number;
        self.placed += 1;
        chunk::set(&wire.page.open, number);
        after.chunks += chunks;
    }

    /// Places jobs that wait, as far as there are cells.
    fn place_queued(&mut self, after: &mut After) {
        while !self.queue.is_empty() {
            let Some(number) = self.free_cell() else {
                return;
            };
            if let Some((_, record)) = self.queue.pop_first() {
                self.place(number, record, after);
            }
        }
    }

    /// The cell of a job, if it stands in one.
    fn cell_of(&self, job: &Arc<Job>) -> Option<usize> {
        let number = job.cell()?;
        let record = self.cells.get(number)?.as_ref()?;
        Arc::ptr_eq(&record.job, job).then_some(number)
    }

    pub(super) fn wire(&self) -> Arc<Wire> {
        Arc::clone(&self.wire)
    }

    pub(super) fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory)
    }

    pub(super) fn record_mut(&mut self, number: usize) -> Option<&mut Record> {
        self.cells.get_mut(number)?.as_deref_mut()
    }

    pub(super) fn record(&self, number: usize) -> Option<&Record> {
        self.cells.get(number)?.as_deref()
    }

    /// The job in a cell, and the chunk of it that a worker has and has not finished.
    pub(super) fn chunk_of(&mut self, number: usize, seat: u16) -> Option<(&mut Record, usize)> {
        let record = self.cells.get_mut(number)?.as_deref_mut()?;
        let cell = self.wire.cell(number)?;
        let chunks = cell.chunks[..record.job.chunks].iter().enumerate();
        let mut its =
            chunks.filter(|(index, chunk)| chunk::reclaim(chunk, &cell.done, *index, seat));
        let (index, _) = its.next()?;
        Some((record, index))
    }

    /// The cells in which jobs stand.
    pub(super) fn numbers(&self) -> Vec<usize> {
        let cells = self.cells.iter().enumerate();
        cells
            .filter_map(|(at, record)| record.as_ref().map(|_| at))
            .collect()
    }

    /// Settles a job whose chunks are all done.
    pub(super) fn settle_job(&mut self, job: &Arc<Job>, after: &mut After) {
        if let Some(number) = self.cell_of(job) {
            self.settle(number, after);
        }
    }

    /// Settles the job of a cell, if its chunks are all done: takes down what came of it, and gives the cell to the
    /// next.
    pub(super) fn settle(&mut self, number: usize, after: &mut After) {
        let is_done = |record: &Record| {
            let cell = self.wire.cell(number);
            cell.is_some_and(|cell| chunk::is_done(&cell.done, record.job.chunks))
        };
        if !self.record(number).is_some_and(is_done) {
            return;
        }
        let Some(mut record) = self.take(number) else {
            return;
        };
        let outcome = match self.wire.cell(number) {
            Some(cell) => {
                self.times.note(&record, cell);
                self.harvest(cell, &mut record)
            }
            None => Outcome::without(Ending::Closed, self.memory.bytes.clone(), Vec::new()),
        };
        self.finish(record, outcome, after);
        self.place_queued(after);
    }

    /// Takes a job out of its cell.
    fn take(&mut self, number: usize) -> Option<Box<Record>> {
        let record = self.cells.get_mut(number)?.take()?;
        chunk::clear(&self.wire.page.open, number);
        self.taken[number / 64] &= !chunk::bit(number);
        self.placed -= 1;
        Some(record)
    }

    fn harvest(&self, cell: &PoolCell, record: &mut Record) -> Outcome {
        let job = Arc::clone(&record.job);
        let mut pieces = std::mem::take(&mut record.pieces);
        let inline = record.output_is_inline.then(|| {
            let mut inline = [0; INLINE_OUTPUT];
            self.memory
                .bytes
                .copy_out(record.output as usize, &mut inline);
            inline
        });
        // The chunks' lines are with the workers: they are fetched only for what stands nowhere else.
        let has_failures = cell.has_failures.load(Ordering::Relaxed) != 0;
        for (part, chunk) in record.parts.iter().zip(&cell.chunks) {
            if has_failures {
                read_failures(&self.memory, part, chunk, &mut record.failures);
            }
            if job.out_size.is_some() || part.span.count == 0 {
                continue;
            }
            match results_of(part, chunk) {
                Some(piece) => pieces.push(piece),
                None => {
                    let why = "its results are not where its worker may write";
                    record.failures.add(part.span, Reason::Lost(why));
                }
            }
        }
        // Its items have been read; results that wait for their reader keep only what they lie in.
        let input = match record.input {
            Input::Placed(place) => Some(place),
            Input::Small(..) | Input::InArray(..) => None,
        };
        let blocks = std::mem::take(&mut record.blocks).into_iter();
        let (read, kept) = blocks.partition(|block| Some(block.place) == input);
        record.blocks = read;
        pieces.sort_unstable_by_key(|piece| piece.span.start);
        let stop = cell.stop.load(Ordering::Relaxed);
        Outcome {
            ending: record.ending(),
            failures: std::mem::take(&mut record.failures),
            stop: match job.fails_fast {
                true => u32::try_from(stop).unwrap_or(u32::MAX),
                false => u32::MAX,
            },
            output: record.output,
            pieces,
            inline,
            bytes: self.memory.bytes.clone(),
            _blocks: kept,
        }
    }

    /// A job has ended.
    fn finish(&mut self, record: Box<Record>, outcome: Outcome, after: &mut After) {
        let items = record.job.items;
        let failed = outcome.failed(items);
        let ends_others = record.job.fails_fast && failed > 0 && outcome.ending.is_none();
        self.counts.failed += failed;
        self.counts.done += u64::from(items) - failed;
        self.outstanding -= 1;
        after.has_waiters |= self.waiters > 0;
        record.job.end(outcome);
        after.owners |= record.to_wake();
        if let Some(group) = record.job.group.as_ref().filter(|_| ends_others) {
            self.cancel_behind(group, record.job.first, after);
        }
        if let Some(group) = &record.job.group {
            after.news.extend(group.one_ended());
        }
        after.over.push(record);
    }

    /// A job of this group has failed: those behind it need not be begun any more.
    fn cancel_behind(&mut self, group: &Arc<Group>, first: usize, after: &mut After) {
        group.fail();
        let placed = self.cells.iter().flatten();
        let is_behind = |job: &Arc<Job>| {
            let its = job.group.as_ref();
            its.is_some_and(|its| Arc::ptr_eq(its, group)) && job.first > first
        };
        let jobs = placed.chain(self.queue.values()).map(|record| &record.job);
        let behind: Vec<Arc<Job>> = jobs.filter(|job| is_behind(job)).cloned().collect();
        // The last first: none that waits takes the place of one that was cancelled.
        for job in behind.iter().rev() {
            self.cancel(job, after);
        }
    }

    /// Ends a job that was not begun, or whose results nobody may have any more.
    fn end(&mut self, mut record: Box<Record>, ending: Ending, after: &mut After) {
        let blocks = std::mem::take(&mut record.blocks);
        let outcome = Outcome::without(ending, self.memory.bytes.clone(), blocks);
        self.finish(record, outcome, after);
    }

    /// Withdraws all chunks of a job that no worker has begun. True if nothing of it was begun.
    pub(super) fn cancel(&mut self, job: &Arc<Job>, after: &mut After) -> bool {
        if job.has_ended() {
            return false;
        }
        let number = job.number.get();
        if let Some(record) = number.and_then(|number| self.queue.remove(number)) {
            self.end(record, Ending::Cancelled, after);
            return true;
        }
        let Some(number) = self.cell_of(job) else {
            return false;
        };
        let wire = self.wire();
        let (Some(cell), Some(record)) = (wire.cell(number), self.cells[number].as_mut()) else {
            return false;
        };
        let chunks = cell.chunks[..job.chunks].iter().enumerate();
        let withdrawn = chunks.filter(|(_, chunk)| chunk::withdraw(chunk));
        let bits = withdrawn.fold(0, |bits, (index, _)| bits | chunk::bit(index));
        record.cancelled |= bits != 0;
        chunk::give_up(&cell.done, bits);
        let was_begun = record.was_begun;
        self.settle(number, after);
        bits == chunk::all(job.chunks) && !was_begun
    }

    /// The workers that have a chunk of this job, by their seats. From here on it is killed.
    pub(super) fn kill(&mut self, job: &Arc<Job>) -> Vec<(u16, usize)> {
        let Some(number) = self.cell_of(job) else {
            return Vec::new();
        };
        let (Some(cell), Some(record)) = (self.wire.cell(number), self.cells[number].as_mut())
        else {
            return Vec::new();
        };
        record.is_killed = true;
        let done = cell.done.load(Ordering::Acquire);
        let chunks = cell.chunks[..job.chunks].iter().enumerate();
        let unfinished = chunks.filter(|(index, _)| done & chunk::bit(*index) == 0);
        unfinished
            .filter_map(|(_, chunk)| chunk::holder(chunk))
            .map(|seat| (seat, number))
            .collect()
    }

    /// The seat of a worker that is at this job.
    pub(super) fn holder_of(&self, job: &Arc<Job>) -> Option<u16> {
        let cell = self.wire.cell(self.cell_of(job)?)?;
        let done = cell.done.load(Ordering::Acquire);
        let chunks = cell.chunks[..job.chunks].iter().enumerate();
        let mut unfinished = chunks.filter(|(index, _)| done & chunk::bit(*index) == 0);
        unfinished.find_map(|(_, chunk)| chunk::holder(chunk))
    }

    /// Has another signal woken when a job ends; 0 for the supervisor.
    pub(super) fn own(&mut self, job: &Arc<Job>, owner: u64, after: &mut After) {
        let number = job.number.get();
        if let Some(record) = number.and_then(|number| self.queue.get_mut(number)) {
            record.is_owned_by(owner);
        }
        if let Some(number) = self.cell_of(job) {
            if let (Some(cell), Some(record)) =
                (self.wire.cell(number), self.cells[number].as_mut())
            {
                record.is_owned_by(owner);
                chunk::own(&cell.owner, owner);
            }
            // Edge O: its last worker may have looked before.
            self.settle(number, after);
        }
    }

    /// Ends everything that has not ended, and takes nothing more in.
    pub(super) fn end_all(&mut self, ending: &Ending, after: &mut After) {
        self.closed.get_or_insert_with(|| ending.clone());
        for number in self.numbers() {
            if let Some(record) = self.take(number) {
                self.end(record, ending.clone(), after);
            }
        }
        for record in std::mem::take(&mut self.queue).into_values() {
            self.end(record, ending.clone(), after);
        }
    }

    /// Whether any chunk waits for a worker. Mends hints that were lost or written over, and gives up chunks whose
    /// words make no sense: only a worker that writes where it may not can bring that about.
    pub(super) fn audit(&mut self, after: &mut After) -> bool {
        let wire = self.wire();
        if self.closed.is_none() {
            set(&wire.page.closing, 0);
        }
        let mut is_any_ready = false;
        for number in self.numbers() {
            let (Some(cell), Some(record)) = (wire.cell(number), self.cells[number].as_mut())
            else {
                continue;
            };
            let chunks = &cell.chunks[..record.job.chunks];
            let mut given_up = 0;
            let mut is_ready = false;
            for (index, (chunk, part)) in chunks.iter().zip(&mut record.parts).enumerate() {
                if cell.done.load(Ordering::Acquire) & chunk::bit(index) != 0 {
                    continue;
                }
                let is_worked_on = chunk::holder(chunk).is_some_and(|seat| {
                    let row = wire.rows.get(usize::from(seat));
                    row.is_some_and(|row| row.at.load(Ordering::Acquire) == number as u64 + 1)
                });
                is_ready |= chunk::is_ready(chunk);
                if is_worked_on || chunk::is_ready(chunk) {
                    part.odd = 0;
                    continue;
                }
                part.odd += 1;
                if part.odd > ODD {
                    let why = "a worker has written over the pool's memory";
                    record.failures.add(part.span, Reason::Lost(why));
                    given_up |= chunk::bit(index);
                }
            }
            if is_ready {
                is_any_ready = true;
                set(&cell.shape, record.shape());
                chunk::set(&wire.page.open, number);
                if chunks.len() > 1 && !chunk::may_claim_of(&cell.cursor, chunks.len()) {
                    let first = chunk::first_ready(chunks).unwrap_or(0);
                    chunk::set_cursor(&cell.cursor, record.job.chunks, first);
                }
            }
            chunk::give_up(&cell.done, given_up);
            self.settle(number, after);
        }
        is_any_ready
    }
}

impl Record {
    fn shape(&self) -> u64 {
        self.job.chunks as u64 | if self.job.fails_fast { FAIL_FAST } else { 0 }
    }

    /// A worker wakes one signal; whoever settles the job wakes those who waited before.
    fn is_owned_by(&mut self, owner: u64) {
        self.waiters = self.to_wake();
        self.owner = owner;
    }

    /// The signals of all who may wait for it, one bit each.
    pub(super) fn to_wake(&self) -> u64 {
        match self.owner {
            0 | chunk::NOBODY => self.waiters,
            owner => self.waiters | chunk::bit(owner as usize),
        }
    }

    /// Why it has no results at all.
    fn ending(&self) -> Option<Ending> {
        let cancelled = self.cancelled.then_some(Ending::Cancelled);
        self.killed.clone().or(cancelled)
    }
}

impl Times {
    fn note(&mut self, record: &Record, cell: &PoolCell) {
        // Hints of the workers': what cannot be counts as what is nearest. A worker that goes on with the next job of
        // a cell may have asked the clock before that was submitted.
        let now = sys::now().max(record.submitted);
        let begun = Duration::from_nanos(cell.begun.load(Ordering::Relaxed));
        let waited = begun.clamp(record.submitted, now) - record.submitted;
        self.jobs += 1;
        self.waited += waited;
        self.longest_wait = self.longest_wait.max(waited);
        let took = Duration::from_nanos(cell.longest.load(Ordering::Relaxed));
        let took = took.min(now - record.submitted);
        let function = record.job.function;
        if let Some(known) = self
            .slowest
            .iter_mut()
            .find(|(known, _)| *known == function)
        {
            known.1 = known.1.max(took);
        } else if self.slowest.len() < SLOWEST {
            self.slowest.push((function, took));
        } else if let Some(least) = self.slowest.iter_mut().min_by_key(|(_, took)| *took) {
            if least.1 < took {
                *least = (function, took);
            }
        }
    }
}

/// Stores a word only if it changes, so that the lines of a job like the last one stay where they are.
fn set(word: &crate::sync::AtomicU64, value: u64) {
    if word.load(Ordering::Relaxed) != value {
        word.store(value, Ordering::Relaxed);
    }
}

/// Says what a chunk is. Nobody can lease it meanwhile.
pub(super) fn describe(chunk: &PoolChunk, part: &Part) {
    set(&chunk.span, part.span.word());
    set(&chunk.input, part.input.0);
    set(&chunk.input_len, part.input.1);
    set(&chunk.output, part.output.0);
    set(&chunk.room, part.output.1);
    set(&chunk.used, 0);
    set(&chunk.failures, 0);
}

/// What a chunk says of its results, if they lie where its worker may write.
pub(super) fn results_of(part: &Part, chunk: &PoolChunk) -> Option<ResultRange> {
    let used = chunk.used.load(Ordering::Acquire);
    let piece = ResultRange {
        span: part.span,
        place: chunk.output.load(Ordering::Acquire),
        used: used & !CARRIES,
        carries: used & CARRIES != 0,
    };
    part.owns(piece.place, piece.used).then_some(piece)
}

/// Takes down what a worker says of items of a chunk that have failed.
pub(super) fn read_failures(
    memory: &Memory,
    part: &Part,
    chunk: &PoolChunk,
    failures: &mut Failures,
) {
    let mut place = chunk.failures.load(Ordering::Acquire);
    if place == u64::MAX {
        return failures.add(part.span, Reason::Lost("there was no memory for it"));
    }
    // A list that goes around, or whose reports lie over each other, ends too.
    let mut left = part.owned();
    for _ in 0..part.span.count {
        if place == 0 {
            return;
        }
        let mut head = [0; REPORT_HEAD as usize];
        if !part.owns(place, REPORT_HEAD) {
            break;
        }
        memory.bytes.copy_out(place as usize, &mut head);
        let [before, items, len] = bytemuck::cast::<_, [u64; 3]>(head);
        if len > left || !part.owns(place, len.saturating_add(REPORT_HEAD)) {
            break;
        }
        left -= len;
        let items = chunk::Span::from_word(items);
        let end = items.end().min(part.span.end());
        let mut items = items.from(part.span.start);
        items.count = end.saturating_sub(items.start);
        let reason = match len {
            0 => Reason::Lost("there was no memory for it"),
            _ => {
                let mut bytes = Vec::new();
                let at = (place + REPORT_HEAD) as usize;
                memory.bytes.append_to(at, len as usize, &mut bytes);
                Reason::Report(bytes)
            }
        };
        failures.add(items, reason);
        place = before;
    }
    if place != 0 {
        let why = "a report is not where its worker may write";
        failures.add(part.span, Reason::Lost(why));
    }
}
