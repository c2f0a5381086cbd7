//! All that a task's body works on in a worker.

use std::fmt;
use std::rc::Rc;

use super::finder::Finder;
use super::mailbox::Mailbox;
use super::values::Values;
use crate::chunk::{Naming, Span};
use crate::error::SegmentError;
use crate::kin::{self, Kin};
use crate::layout::{PoolChunk, PoolRow};
use crate::pool::error::Failure;
use crate::pool::wire::Wire;
use crate::process::current_process;
use crate::process::task::{Entry, TaskName};
use crate::segment::View;
use crate::signal::Patience;
use crate::sync::Ordering;

/// The chunk a worker works on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Current {
    pub(super) cell: usize,
    pub(super) index: usize,
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
    pub(super) kin: &'static Kin,
    pub(super) wire: Rc<Wire>,
    pub(super) row: View<PoolRow>,
    pub(super) finder: Finder,
    pub(super) patience: Patience,
    pub(super) mailbox: Mailbox,
    /// Place and bytes that are left for reports of this chunk.
    pub(super) reports: (u64, u64),
    pub(super) values: Values,
    pub(super) last_task: Option<(TaskName, Entry<WorkerState>)>,
    /// Chunks that may still be leased; `None` for any number.
    pub(super) left: Option<u64>,
    pub(super) current: Current,
    /// Arguments of the initializer.
    pub(super) initial: Vec<u8>,
    pub(super) failed: Option<Failure>,
    pub(super) scratch: Vec<u8>,
    pub(super) pid: u32,
    pub(super) name: String,
}

impl fmt::Debug for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerState")
            .field("seat", &self.finder.seat)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl WorkerState {
    /// Takes the seat that the pool has prepared in its segment.
    pub(in crate::pool) fn new(
        segment: crate::segment::Segment,
        seat: u16,
        left: Option<u64>,
    ) -> Result<WorkerState, SegmentError> {
        let kin = kin::kin()?;
        let wire = Rc::new(Wire::attach(segment)?);
        let row = wire.rows.get(usize::from(seat)).cloned();
        let row = row.ok_or(crate::error::Corrupt("a pool has no such seat"))?;
        let turn = Naming::from_word(row.item.load(Ordering::Relaxed)).turn;
        Ok(WorkerState {
            kin,
            wire,
            finder: Finder::new(seat, turn),
            patience: Patience::new(),
            mailbox: Mailbox::new(seat, &row),
            reports: (0, 0),
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

    pub(super) fn chunk_at(&self, cell: usize, index: usize) -> Option<&PoolChunk> {
        self.wire.cell(cell)?.chunks.get(index)
    }

    /// The chunk being worked on.
    pub(super) fn chunk(&self) -> Option<&PoolChunk> {
        self.chunk_at(self.current.cell, self.current.index)
    }

    /// Whether an item of the job need not be begun any more, since one before it has failed.
    #[inline(always)]
    pub(super) fn is_stopped(&self, item: u32) -> bool {
        self.current.fails_fast
            && self
                .wire
                .cell(self.current.cell)
                .is_some_and(|cell| u64::from(item) > cell.stop.load(Ordering::Relaxed))
    }

    /// Items behind this one need not be begun any more.
    pub(super) fn stop_behind(&self, item: u32) {
        if let Some(cell) = self.wire.cell(self.current.cell) {
            cell.stop.fetch_min(u64::from(item), Ordering::Relaxed);
        }
    }

    /// Names the item that is about to run.
    #[inline(always)]
    pub(super) fn begin(&self, naming: Naming) {
        // Release: who finds this item named also finds the result of the one before.
        self.row.item.store(naming.word(), Ordering::Release);
    }
}
