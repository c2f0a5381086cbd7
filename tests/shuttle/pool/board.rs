//! The pool's private records, as in `src/pool/board.rs` and `src/pool/recover.rs`, without memory.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Arc, Weak};

use super::worker::result;
use super::{Bug, Pool};
use crate::chunk::{self, Naming, Span};
use crate::layout::{CELLS, CHUNKS};
use crate::sync::Ordering;

/// Items of a chunk at most.
const ITEMS: u32 = 2;

pub(super) struct Job {
    number: u64,
    spans: Vec<Span>,
    /// The cell where it stands, plus 1.
    cell: AtomicUsize,
    ended: OnceLock<()>,
}

impl Job {
    pub(super) fn new(number: u64) -> Arc<Job> {
        let mut start = 0;
        let spans = (0..thread_rng().gen_range(1..=CHUNKS)).map(|_| {
            let count = thread_rng().gen_range(1..=ITEMS);
            start += count;
            Span {
                start: start - count,
                count,
            }
        });
        Arc::new(Job {
            number,
            spans: spans.collect(),
            cell: AtomicUsize::new(0),
            ended: OnceLock::new(),
        })
    }

    /// One of a single item.
    pub(super) fn single(number: u64) -> Arc<Job> {
        let spans = vec![Span { start: 0, count: 1 }];
        Arc::new(Job {
            number,
            spans,
            cell: AtomicUsize::new(0),
            ended: OnceLock::new(),
        })
    }

    pub(super) fn chunks(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    pub(super) fn cell(&self) -> Option<usize> {
        self.cell.load(Ordering::Acquire).checked_sub(1)
    }
}

struct Record {
    job: Arc<Job>,
    owner: u64,
    /// What is left of each chunk.
    spans: Vec<Span>,
    withdrawn: u64,
    /// Items that a worker died in, once for each.
    died_in: Vec<u32>,
}

/// What is to be done when the board's lock is released.
#[derive(Default)]
pub(super) struct After {
    pub(super) chunks: usize,
    pub(super) owners: u64,
    pub(super) all_workers: bool,
}

pub(super) struct Board {
    pub(super) pool: Weak<Pool>,
    bug: Bug,
    cells: [Option<Record>; CELLS],
    newest: usize,
    queue: VecDeque<Record>,
    pub(super) ended: u64,
    outstanding: u64,
}

impl Board {
    pub(super) fn new(bug: Bug) -> Board {
        Board {
            pool: Weak::new(),
            bug,
            cells: [const { None }; CELLS],
            newest: 0,
            queue: VecDeque::new(),
            ended: 0,
            outstanding: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.outstanding == 0
    }

    fn pool(&self) -> Arc<Pool> {
        self.pool.upgrade().expect("a board has a pool")
    }

    pub(super) fn submit(&mut self, job: &Arc<Job>, owner: u64, after: &mut After) {
        self.outstanding += 1;
        self.queue.push_back(Record {
            job: job.clone(),
            owner,
            spans: job.spans.clone(),
            withdrawn: 0,
            died_in: Vec::new(),
        });
        self.place_queued(after);
    }

    fn place_queued(&mut self, after: &mut After) {
        while let Some(record) = self.queue.pop_front() {
            let from = match self.cells.iter().all(Option::is_none) {
                true => 0,
                false => self.newest + 1,
            };
            let mut cells = (0..CELLS).map(|step| (from + step) % CELLS);
            match cells.find(|cell| self.cells[*cell].is_none()) {
                Some(number) => self.place(number, record, after),
                None => return self.queue.push_front(record),
            }
        }
    }

    fn place(&mut self, number: usize, record: Record, after: &mut After) {
        let pool = self.pool();
        let cell = pool.wire.cell(number).unwrap();
        let chunks = record.spans.len();
        for (chunk, span) in cell.chunks.iter().zip(&record.spans) {
            chunk.span.store(span.word(), Ordering::Relaxed);
        }
        cell.context.store(record.job.number, Ordering::Relaxed);
        cell.shape.store(chunks as u64, Ordering::Relaxed);
        cell.owner.store(record.owner, Ordering::Relaxed);
        cell.done.store(0, Ordering::Relaxed);
        cell.chunks[..chunks].iter().for_each(chunk::offer);
        if chunks > 1 {
            chunk::set_cursor(&cell.cursor, chunks, 0);
        }
        record.job.cell.store(number + 1, Ordering::Release);
        self.cells[number] = Some(record);
        self.newest = number;
        chunk::set(&pool.wire.page.open, number);
        after.chunks += chunks;
    }

    fn cell_of(&self, job: &Arc<Job>) -> Option<usize> {
        let number = job.cell()?;
        let record = self.cells[number].as_ref()?;
        Arc::ptr_eq(&record.job, job).then_some(number)
    }

    pub(super) fn settle_job(&mut self, job: &Arc<Job>, after: &mut After) {
        if let Some(number) = self.cell_of(job) {
            self.settle(number, after);
        }
    }

    pub(super) fn settle(&mut self, number: usize, after: &mut After) {
        let pool = self.pool();
        let cell = pool.wire.cell(number).unwrap();
        let is_done = |record: &Record| chunk::is_done(&cell.done, record.spans.len());
        if !self.cells[number].as_ref().is_some_and(is_done) {
            return;
        }
        let record = self.cells[number].take().unwrap();
        if self.bug != Bug::WorkerClearsOpen {
            chunk::clear(&pool.wire.page.open, number);
        }
        let job = &record.job;
        for (index, span) in job.spans.iter().enumerate() {
            let is_withdrawn = record.withdrawn & chunk::bit(index) != 0;
            for item in span.start..span.end() {
                let died = record.died_in.iter().filter(|died| **died == item).count();
                let runs = pool.runs(job.number, item);
                // What a worker finished before it died in the chunk stays finished.
                if is_withdrawn && record.spans[index].contains(item) {
                    assert!(runs <= died, "item {item} ran {runs} times, withdrawn");
                    continue;
                }
                assert!(
                    (1..=1 + died).contains(&runs),
                    "item {item} ran {runs} times"
                );
                let found = cell.output[item as usize].load(Ordering::Relaxed);
                assert_eq!(found, result(job.number, item), "item {item}");
            }
        }
        self.end(&record, after);
        self.place_queued(after);
    }

    fn end(&mut self, record: &Record, after: &mut After) {
        record.job.ended.set(()).expect("a job ends once");
        self.ended += 1;
        self.outstanding -= 1;
        if ![0, chunk::NOBODY].contains(&record.owner) {
            after.owners |= 1 << record.owner;
        }
    }

    pub(super) fn cancel(&mut self, job: &Arc<Job>, after: &mut After) {
        if let Some(at) = self
            .queue
            .iter()
            .position(|record| Arc::ptr_eq(&record.job, job))
        {
            let record = self.queue.remove(at).unwrap();
            return self.end(&record, after);
        }
        let Some(number) = self.cell_of(job) else {
            return;
        };
        let pool = self.pool();
        let cell = pool.wire.cell(number).unwrap();
        let record = self.cells[number].as_mut().unwrap();
        let chunks = cell.chunks[..record.spans.len()].iter().enumerate();
        let withdrawn = chunks.filter(|(_, chunk)| chunk::withdraw(chunk));
        let bits = withdrawn.fold(0, |bits, (index, _)| bits | chunk::bit(index));
        record.withdrawn |= bits;
        chunk::give_up(&cell.done, bits);
        self.settle(number, after);
    }

    pub(super) fn own(&mut self, job: &Arc<Job>, owner: u64, after: &mut After) {
        let mut queue = self.queue.iter_mut();
        if let Some(record) = queue.find(|record| Arc::ptr_eq(&record.job, job)) {
            record.owner = owner;
        }
        if let Some(number) = self.cell_of(job) {
            let pool = self.pool();
            self.cells[number].as_mut().unwrap().owner = owner;
            chunk::own(&pool.wire.cell(number).unwrap().owner, owner);
            if self.bug != Bug::NoLookWhenOwning {
                self.settle(number, after);
            }
        }
    }

    /// Gives what a dead worker leaves to others.
    pub(super) fn recover(&mut self, seat: u16, at: u64, item: u64, after: &mut After) {
        after.all_workers = self.bug != Bug::WorkersNotWoken;
        let Some(number) = at.checked_sub(1).map(|cell| cell as usize) else {
            return;
        };
        let bug = self.bug;
        let pool = self.pool();
        let cell = pool.wire.cell(number).unwrap();
        let Some(record) = self.cells[number].as_mut() else {
            return;
        };
        let chunks = &cell.chunks[..record.spans.len()];
        for (index, chunk) in chunks.iter().enumerate() {
            let is_left = match bug {
                Bug::ReclaimOfDone => chunk::holder(chunk) == Some(seat),
                _ => chunk::reclaim(chunk, &cell.done, index, seat),
            };
            if !is_left {
                continue;
            }
            let span = &mut record.spans[index];
            if let Some(item) = Naming::from_word(item).begun(*span) {
                // What was finished counts; the one it died in is begun again.
                record.died_in.push(item);
                *span = span.from(item);
                chunk.span.store(span.word(), Ordering::Relaxed);
            }
            chunk::offer(chunk);
        }
        if let Some(first) = chunk::first_ready(chunks).filter(|_| bug != Bug::NoRewind) {
            chunk::set_cursor(&cell.cursor, chunks.len(), first);
        }
        if bug == Bug::OwnerNotWoken {
            return;
        }
        if ![0, chunk::NOBODY].contains(&record.owner) {
            after.owners |= 1 << record.owner;
        }
        self.settle(number, after);
    }
}
