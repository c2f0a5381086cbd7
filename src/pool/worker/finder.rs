//! How a worker finds chunks. Models and random schedules compile this file as it stands: of its pool it knows the
//! page and the cells, and nothing else.

use std::cell::Cell;

use super::super::wire::Wire;
use crate::chunk::{self, Lease, Naming};
use crate::layout::{CELLS, PoolCell, PoolRow};
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
    pub(super) fn new(seat: u16, turn: u32) -> Finder {
        Finder {
            seat,
            turn: Cell::new(turn),
        }
    }

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
        let lease = self.lease_at(cell);
        if lease.is_none() {
            self.leave(row);
        }
        lease
    }

    fn lease_at(&self, cell: &PoolCell) -> Option<Lease> {
        if cell.shape.load(Ordering::Relaxed) as u32 <= 1 {
            return chunk::lease(&cell.chunks, 0, self.seat);
        }
        while let Some(index) = chunk::claim(&cell.cursor) {
            let lease = chunk::lease(&cell.chunks, index, self.seat);
            if lease.is_some() || !chunk::may_claim(&cell.cursor) {
                return lease;
            }
        }
        None
    }

    /// I am at no cell any more: of what is leased and not done there, nothing is mine.
    pub(super) fn leave(&self, row: &PoolRow) {
        row.at.store(0, Ordering::Release);
    }

    /// Whether somebody else could work beside me. What lies between may be others' work, so all cells are looked at
    /// that are open.
    pub(super) fn sees_more(&self, wire: &Wire, cell: usize) -> bool {
        let has_work = |number| wire.cell(number).is_some_and(has_work);
        chunk::around(&wire.page.open, cell).any(has_work)
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
