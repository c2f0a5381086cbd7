//! The pool's one segment, as the pool and its workers see it: where everything is.

use crate::error::{Corrupt, SegmentError};
use crate::layout::{CELLS, HEADER, PoolCell, PoolPage, PoolRow, SEATS};
use crate::segment::{Bytes, Commit, Segment, View};
use crate::sys;

/// Cells that have memory from the start, and by how many they grow.
pub(super) const CELL_STEP: usize = 8;

const SHAPE: &str = "pool, workers: ";
/// The bytes of items and results begin at a multiple of this in the file.
const ALIGN: u64 = 64 * 1024;
/// The least that a pool's segment must be able to hold.
const LEAST: u64 = 1 << 20;

/// Flags of a job, in the high half of a cell's shape.
pub(super) const FAIL_FAST: u64 = 1 << 32;

/// Views of all that stands in the pool's segment.
#[derive(Debug)]
pub(super) struct Wire {
    segment: Segment,
    pub(super) page: View<PoolPage>,
    pub(super) rows: Vec<View<PoolRow>>,
    cells: Vec<View<PoolCell>>,
    /// All of it, for copies of items and results.
    pub(super) bytes: Bytes,
}

impl Wire {
    /// A new one for so many workers: as long as the machine has memory, which it takes only when it is used.
    pub(super) fn create(workers: usize) -> Result<Wire, SegmentError> {
        let head = cell_at(workers, CELL_STEP);
        let least = arena_at(workers) + LEAST;
        let mut body = least.max(if cfg!(fuzzing) {
            least
        } else {
            sys::machine_memory()
        });
        let shape = format!("{SHAPE}{workers}");
        let segment = loop {
            match Segment::build(
                "pool",
                &shape,
                body,
                Commit::First {
                    bytes: head,
                    tail: 0,
                },
            ) {
                // Files, or the address space, of this process may not be that long; the memory itself is not
                // asked for here.
                Err(_) if body > least => body = least.max(body / 2),
                other => break other?,
            }
        };
        Wire::of(segment, workers)
    }

    /// That of a pool in another process.
    pub(super) fn attach(segment: Segment) -> Result<Wire, SegmentError> {
        let workers = segment
            .shape()
            .strip_prefix(SHAPE)
            .and_then(|workers| workers.parse().ok())
            .filter(|workers| *workers <= SEATS)
            .ok_or(Corrupt("a pool's segment does not say how many it is for"))?;
        segment.expect_allocated(cell_at(workers, CELL_STEP))?;
        Wire::of(segment, workers)
    }

    fn of(segment: Segment, workers: usize) -> Result<Wire, SegmentError> {
        segment.leave_out_of_dumps();
        let rows = (0..workers).map(|row| segment.view(row_at(row)));
        let cells = (0..CELLS).map(|cell| segment.view(cell_at(workers, cell)));
        Ok(Wire {
            page: segment.view(0)?,
            rows: rows.collect::<Result<_, _>>()?,
            cells: cells.collect::<Result<_, _>>()?,
            bytes: segment.bytes(0, segment.len() as u64)?,
            segment,
        })
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// A cell, by its number.
    #[inline]
    pub(super) fn cell(&self, number: usize) -> Option<&PoolCell> {
        self.cells.get(number).map(|cell| &**cell)
    }

    /// Where a cell's own room for arguments, and that for results, begins.
    pub(super) fn inline(&self, number: usize) -> [u64; 2] {
        let cell = cell_at(self.rows.len(), number);
        [
            cell + std::mem::offset_of!(PoolCell, input) as u64,
            cell + std::mem::offset_of!(PoolCell, output) as u64,
        ]
    }

    /// Gives the cells `number..number + CELL_STEP` memory.
    pub(super) fn commit_cells(&self, number: usize) -> Result<(), SegmentError> {
        let from = cell_at(self.rows.len(), number);
        let to = cell_at(self.rows.len(), (number + CELL_STEP).min(CELLS));
        self.segment.commit(from, to - from)
    }

    /// Where the bytes of items and results begin.
    pub(super) fn arena(&self) -> u64 {
        arena_at(self.rows.len())
    }
}

fn row_at(row: usize) -> u64 {
    (size_of::<PoolPage>() + row * size_of::<PoolRow>()) as u64
}

fn cell_at(workers: usize, cell: usize) -> u64 {
    row_at(workers) + (cell * size_of::<PoolCell>()) as u64
}

fn arena_at(workers: usize) -> u64 {
    (cell_at(workers, CELLS) + HEADER as u64).next_multiple_of(ALIGN) - HEADER as u64
}

/// What a worker asks of its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// So many bytes for the chunk it works on. The answer is their place, or 0.
    Room { bytes: u64 },
    /// It is ready to take tasks.
    Ready,
    /// Its initializer failed; where the report is, and how long. It ends itself.
    NotReady { place: u64, len: u64 },
}

impl Ask {
    pub(super) fn words(self) -> [u64; 3] {
        match self {
            Ask::Room { bytes } => [1, bytes, 0],
            Ask::Ready => [2, 0, 0],
            Ask::NotReady { place, len } => [3, place, len],
        }
    }

    /// `None` for what no worker asks.
    pub(super) fn from_words([kind, first, second]: [u64; 3]) -> Option<Ask> {
        match kind {
            1 => Some(Ask::Room { bytes: first }),
            2 => Some(Ask::Ready),
            3 => Some(Ask::NotReady {
                place: first,
                len: second,
            }),
            _ => None,
        }
    }
}
