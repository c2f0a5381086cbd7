//! A worker's side of the pool: finds chunks, runs their items, says that they are done.
//!
//! Nothing in here belongs to the pool's own process, and nothing of that process is used here but the
//! words they share.

mod arguments;
mod room;
mod run;
mod values;

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

pub(super) use arguments::{Arguments, Encoded, InArray};
pub(super) use run::{ChunkRunner, Prepare};

use super::error::Failure;
use super::wire::Wire;
use crate::chunk::{self, Busy, Lease, Naming, Span};
use crate::error::SegmentError;
use crate::handle::Travelling;
use crate::kin::{self, Kin};
use crate::layout::{CELLS, CHUNKS, PoolCell, PoolChunk, PoolRow, SIGNALS};
use crate::process::current_process;
use crate::process::task::{self, Entry, TaskName};
use crate::segment::View;
use crate::signal::Patience;
use crate::sync::Ordering;
use crate::sys;
use room::Room;
use values::Values;

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
        .unwrap_or_else(|error| panic!("the pool's segment cannot be used: {error}"));
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
            Err(error) => panic!("the pool's segment cannot be used: {error}"),
        }
    }
}

/// The chunk a worker works on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Current {
    cell: usize,
    index: usize,
    pub(super) span: Span,
    pub(super) input: u64,
    pub(super) input_len: u64,
    pub(super) output: u64,
    pub(super) room: u64,
    /// Its first failure ends the job.
    pub(super) fails_fast: bool,
}

/// All that a task's body works on in a worker.
pub struct WorkerState {
    kin: &'static Kin,
    wire: Wire,
    row: View<PoolRow>,
    finder: Finder,
    patience: Patience,
    room: Room,
    values: Values,
    last_task: Option<(TaskName, Entry<WorkerState>)>,
    /// Chunks that may still be leased; `None` for any number.
    left: Option<u64>,
    current: Current,
    /// Arguments of the initializer.
    initial: Vec<u8>,
    failed: Option<Failure>,
    scratch: Vec<u8>,
    pid: u32,
    name: String,
}

impl fmt::Debug for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerState")
            .field("seat", &self.finder.seat)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

/// Looks for chunks.
struct Finder {
    seat: u16,
    /// Items begun before.
    turn: Cell<u32>,
}

/// A chunk that was leased.
struct Found {
    cell: usize,
    lease: Lease,
}

/// What a look for work came to.
enum Look {
    Work(Found),
    /// The pool is closing.
    Over,
}

impl WorkerState {
    /// Takes the seat that the pool has prepared in its segment.
    pub(super) fn new(
        segment: crate::segment::Segment,
        seat: u16,
        left: Option<u64>,
    ) -> Result<WorkerState, SegmentError> {
        let kin = kin::kin()?;
        let wire = Wire::attach(segment)?;
        let row = wire.rows.get(usize::from(seat)).cloned();
        let row = row.ok_or(crate::error::Corrupt("a pool has no such seat"))?;
        let turn = Naming::from_word(row.item.load(Ordering::Relaxed)).turn;
        Ok(WorkerState {
            kin,
            wire,
            finder: Finder {
                seat,
                turn: Cell::new(turn),
            },
            patience: Patience::new(),
            room: Room::new(&row),
            row,
            values: Values::new(),
            last_task: None,
            left,
            current: Current::default(),
            initial: Vec::new(),
            failed: None,
            scratch: Vec::new(),
            pid: std::process::id(),
            name: current_process().name().to_owned(),
        })
    }

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
        loop {
            let chunks = self.work(cell, &lease, now);
            let begun = now;
            now = sys::now();
            let Some(its) = self.wire.cell(cell) else {
                return;
            };
            let took = chunk::nanoseconds(now.saturating_sub(begun));
            if took > its.longest.load(Ordering::Relaxed) {
                its.longest.store(took, Ordering::Relaxed);
            }
            busy = busy.ended(now);
            let done = self.row.chunks.load(Ordering::Relaxed).wrapping_add(1);
            self.row.chunks.store(done, Ordering::Relaxed);
            if let Some(left) = &mut self.left {
                *left -= 1;
            }
            let may_go_on = self.left != Some(0) && chunks > 1;
            if !may_go_on {
                self.row.busy.store(busy.word(), Ordering::Relaxed);
                if self.left != Some(0) {
                    // Whoever is told may bring the next task at once, and need not wake anybody for it.
                    chunk::set_searching(&self.row.activity);
                }
            }
            if chunk::finish(&its.done, lease, chunks) {
                self.wake_owner(cell, its);
            }
            let next = match may_go_on {
                true => self.finder.lease(&self.wire, &self.row, cell),
                false => return,
            };
            let Some(next) = next else {
                self.row.busy.store(busy.word(), Ordering::Relaxed);
                return;
            };
            lease = next;
            busy = busy.begun(now);
        }
    }

    /// Runs the items of a leased chunk. How many chunks its job has.
    fn work(&mut self, cell: usize, lease: &Lease, now: std::time::Duration) -> usize {
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
        self.room.begin_chunk();
        match self.entry(TaskName::from_words(words)) {
            Ok(entry) => entry(self),
            Err(why) => self.fail(self.current.span, Failure::NoFunction(why)),
        }
        (shape as u32 as usize).clamp(1, CHUNKS)
    }

    /// The last chunk of a job is done.
    fn wake_owner(&self, number: usize, cell: &PoolCell) {
        let page = &self.wire.page;
        match chunk::owner(&cell.owner) as usize {
            owner @ 1..SIGNALS => page.signals[owner].words.notify_all(),
            _ => {
                chunk::set(&page.ended, number);
                page.supervisor.notify_one();
            }
        }
    }

    fn chunk_at(&self, cell: usize, index: usize) -> Option<&PoolChunk> {
        self.wire.cell(cell)?.chunks.get(index)
    }

    /// The chunk being worked on.
    pub(super) fn chunk(&self) -> Option<&PoolChunk> {
        self.chunk_at(self.current.cell, self.current.index)
    }

    /// Whether an item of the job need not be begun any more, since one before it has failed.
    #[inline(always)]
    fn is_stopped(&self, item: u32) -> bool {
        self.current.fails_fast
            && self
                .wire
                .cell(self.current.cell)
                .is_some_and(|cell| u64::from(item) > cell.stop.load(Ordering::Relaxed))
    }

    /// Items behind this one need not be begun any more.
    fn stop_behind(&self, item: u32) {
        if let Some(cell) = self.wire.cell(self.current.cell) {
            cell.stop.fetch_min(u64::from(item), Ordering::Relaxed);
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

    /// Names the item that is about to run.
    #[inline(always)]
    fn begin(&self, naming: Naming) {
        // Release: who finds this item named also finds the result of the one before.
        self.row.item.store(naming.word(), Ordering::Release);
    }

    /// Copies `len` bytes from a place into the scratch.
    fn load(&mut self, place: u64, len: u64) -> bool {
        let bytes = &self.wire.bytes;
        let Some(at) = super::record::inside(bytes, place, len) else {
            return false;
        };
        self.scratch.clear();
        bytes.append_to(at, len as usize, &mut self.scratch);
        true
    }
}

impl Finder {
    /// A chunk, if there is one and I am the quickest.
    #[inline]
    fn look(&self, wire: &Wire, row: &PoolRow) -> Option<Look> {
        let next = &wire.page.next;
        let from = next.load(Ordering::Relaxed) as usize % CELLS;
        for cell in chunk::around(&wire.page.open, from) {
            if let Some(lease) = self.lease(wire, row, cell) {
                // Jobs stand in the order in which they came. The next to look begins behind this one, or here
                // while it has more.
                if cell != from {
                    next.store(cell as u64, Ordering::Relaxed);
                }
                return Some(Look::Work(Found { cell, lease }));
            }
        }
        let closing = wire.page.closing.load(Ordering::Relaxed) != 0;
        closing.then_some(Look::Over)
    }

    /// The next chunk of a cell.
    #[inline]
    fn lease(&self, wire: &Wire, row: &PoolRow, number: usize) -> Option<Lease> {
        let cell = wire.cell(number)?;
        if !has_work(cell) {
            return None;
        }
        let nothing = Naming {
            item: Naming::NONE,
            turn: self.turn.get(),
        };
        row.item.store(nothing.word(), Ordering::Relaxed);
        // Named before anything is claimed: if I die in between, the pool looks there.
        row.at.store(number as u64 + 1, Ordering::Release);
        if cell.shape.load(Ordering::Relaxed) as u32 <= 1 {
            return chunk::lease(&cell.chunks, 0, self.seat);
        }
        loop {
            let index = chunk::claim(&cell.cursor)?;
            if let Some(lease) = chunk::lease(&cell.chunks, index, self.seat) {
                return Some(lease);
            }
            if !chunk::may_claim(&cell.cursor) {
                return None;
            }
        }
    }

    /// Whether somebody else could work beside me: at this cell, or at the next that is open.
    fn sees_more(&self, wire: &Wire, cell: usize) -> bool {
        let has_work = |number| wire.cell(number).is_some_and(has_work);
        has_work(cell)
            || chunk::around(&wire.page.open, cell + 1)
                .next()
                .is_some_and(has_work)
    }
}

/// Whether a cell seems to have a chunk that nobody has.
#[inline]
fn has_work(cell: &PoolCell) -> bool {
    match cell.shape.load(Ordering::Relaxed) as u32 {
        0 | 1 => chunk::is_ready(&cell.chunks[0]),
        _ => chunk::may_claim(&cell.cursor),
    }
}
