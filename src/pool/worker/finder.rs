//! How a worker finds a chunk.

use std::cell::Cell;

use crate::chunk::{self, Lease, Naming};
use crate::layout::{CELLS, PoolCell, PoolRow};
use crate::pool::wire::Wire;
use crate::sync::Ordering;

/// Looks for chunks.
pub(super) struct Finder {
    pub(super) seat: u16,
    /// Items begun before.
    pub(super) turn: Cell<u32>,
}

/// A chunk that was leased.
pub(super) struct Found {
    pub(super) cell: usize,
    pub(super) lease: Lease,
}

/// What a look for work came to.
pub(super) enum Look {
    Work(Found),
    /// The pool is closing.
    Over,
}

impl Finder {
    /// A chunk, if there is one and I am the quickest.
    #[inline]
    pub(super) fn look(&self, wire: &Wire, row: &PoolRow) -> Option<Look> {
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
    pub(super) fn lease(&self, wire: &Wire, row: &PoolRow, number: usize) -> Option<Lease> {
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

    /// Whether somebody else could work beside me. Cells whose chunks are all taken are no reason to stop looking:
    /// behind them may be one that nobody was woken for.
    pub(super) fn sees_more(&self, wire: &Wire, cell: usize) -> bool {
        let mut open = chunk::around(&wire.page.open, cell);
        open.any(|number| wire.cell(number).is_some_and(has_work))
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
