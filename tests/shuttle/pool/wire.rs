//! What stands in a pool's segment, without one.

use crate::layout::{CELLS, PoolCell, PoolPage, PoolRow};

pub(crate) struct Wire {
    pub(crate) page: PoolPage,
    pub(crate) rows: Vec<PoolRow>,
    cells: Vec<PoolCell>,
}

impl Wire {
    pub(crate) fn new(workers: usize) -> Wire {
        Wire {
            page: PoolPage::default(),
            rows: (0..workers).map(|_| PoolRow::default()).collect(),
            cells: (0..CELLS).map(|_| PoolCell::default()).collect(),
        }
    }

    pub(crate) fn cell(&self, number: usize) -> Option<&PoolCell> {
        self.cells.get(number)
    }
}
