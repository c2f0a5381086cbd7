//! The pool's own segment, as the pool and its workers see it.

use std::sync::atomic::AtomicU64;

use super::arena::Place;
use super::job::{SEATS, Ticket};
use crate::error::{Corrupt, SegmentError};
use crate::layout::{
    CHUNKS, Chunk, INLINE, Job, NOTICE_STRIDE, NOTICES, PoolPage, SINGLES, SMALL, Seat, Single,
    TABLES, TICKET_STRIDE, TICKETS, Table,
};
use crate::ring::Geometry;
use crate::segment::{Bytes, Commit, Segment, View};

/// The lane of tickets.
pub(super) const TICKET_LANE: Geometry = Geometry {
    capacity: TICKETS,
    stride: TICKET_STRIDE,
};
/// A lane of notices.
pub(super) const NOTICE_LANE: Geometry = Geometry {
    capacity: NOTICES,
    stride: NOTICE_STRIDE,
};
/// Cells below this are tables, from here on singles.
pub(super) const FIRST_SINGLE: u16 = TABLES as u16;
/// Cells of both kinds.
pub(super) const CELLS: usize = TABLES + SINGLES;

const KIND: &str = "pool, workers: ";
const SINGLES_AT: u64 = std::mem::offset_of!(PoolPage, singles) as u64;

/// A cell of either kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cell<'a> {
    /// One chunk, everything in place.
    Single(&'a Single),
    /// Many chunks.
    Many(&'a Table),
}

impl<'a> Cell<'a> {
    pub(super) fn job(self) -> &'a Job {
        match self {
            Cell::Single(single) => &single.job,
            Cell::Many(table) => &table.job,
        }
    }

    pub(super) fn chunks(self) -> &'a [Chunk] {
        match self {
            Cell::Single(single) => std::slice::from_ref(&single.chunk),
            Cell::Many(table) => &table.chunks,
        }
    }

    pub(super) fn cursor(self) -> Option<&'a AtomicU64> {
        match self {
            Cell::Single(_) => None,
            Cell::Many(table) => Some(&table.cursor),
        }
    }
}

/// Views of all that stands in the pool's segment.
#[derive(Debug)]
pub(super) struct Control {
    segment: Segment,
    pub(super) page: View<PoolPage>,
    pub(super) seats: Vec<View<Seat>>,
    tables: Vec<View<Table>>,
    /// What the cells hold inline.
    inline: Bytes,
}

impl Control {
    /// A new one for so many workers; no cell is in use and every lane is empty.
    pub(super) fn create(workers: usize) -> Result<Control, SegmentError> {
        let tables = tables_at(workers);
        let body = tables + (TABLES * size_of::<Table>()) as u64;
        let shape = format!("{KIND}{workers}");
        let segment = Segment::build("pool", &shape, body, Commit::First(tables))?;
        Control::of(segment, workers)
    }

    /// That of a pool in another process.
    pub(super) fn attach(segment: Segment) -> Result<Control, SegmentError> {
        let workers = segment
            .shape()
            .strip_prefix(KIND)
            .and_then(|workers| workers.parse().ok())
            .filter(|workers| *workers <= SEATS)
            .ok_or(Corrupt("a pool's segment does not say how many it is for"))?;
        Control::of(segment, workers)
    }

    fn of(segment: Segment, workers: usize) -> Result<Control, SegmentError> {
        let page: View<PoolPage> = segment.view(0)?;
        let seats = (0..workers)
            .map(|seat| segment.view(seat_at(seat)))
            .collect::<Result<_, _>>()?;
        let tables = (0..TABLES)
            .map(|table| segment.view(tables_at(workers) + (table * size_of::<Table>()) as u64))
            .collect::<Result<_, _>>()?;
        let inline = segment.bytes(0, size_of::<PoolPage>() as u64)?;
        Ok(Control {
            segment,
            page,
            seats,
            tables,
            inline,
        })
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// What the cells hold inline: extent 0.
    pub(super) fn inline(&self) -> &Bytes {
        &self.inline
    }

    /// Allocates the tables, which few pools need.
    pub(super) fn commit_tables(&self) -> Result<(), SegmentError> {
        let from = tables_at(self.seats.len());
        self.segment
            .commit(from, (TABLES * size_of::<Table>()) as u64)
    }

    /// The cell of that number; `None` if there is none.
    pub(super) fn cell(&self, cell: u16) -> Option<Cell<'_>> {
        match cell.checked_sub(FIRST_SINGLE) {
            None => Some(Cell::Many(&self.tables[usize::from(cell)])),
            Some(single) => self.page.singles.get(usize::from(single)).map(Cell::Single),
        }
    }

    /// Where a single holds up to [`SMALL`] bytes of arguments, up to [`INLINE`], and a result.
    pub(super) fn inline_places(cell: u16) -> [Place; 3] {
        let single = u64::from(cell.saturating_sub(FIRST_SINGLE)) * size_of::<Single>() as u64;
        let at = |field: usize| Place {
            extent: 0,
            offset: SINGLES_AT + single + field as u64,
        };
        [
            at(std::mem::offset_of!(Single, small)),
            at(std::mem::offset_of!(Single, input)),
            at(std::mem::offset_of!(Single, output)),
        ]
    }
}

const _: () = assert!(SMALL <= INLINE && CHUNKS <= 1 << 16 && CELLS <= 1 << 16);

fn seat_at(seat: usize) -> u64 {
    (size_of::<PoolPage>() + seat * size_of::<Seat>()) as u64
}

fn tables_at(workers: usize) -> u64 {
    seat_at(workers)
}

/// Bytes that a worker wrote for the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) len: u32,
}

/// What a worker tells the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// It has done with the ticket, and has committed so many chunks.
    Finished { ticket: Ticket, chunks: u32 },
    /// An item failed; why is written there. An empty record: there was no memory to say it.
    Failed {
        ticket: Ticket,
        item: u32,
        record: Record,
    },
    /// It needs so many bytes of memory, for the job of the ticket or (without one) for itself.
    Room { ticket: Option<Ticket>, bytes: u64 },
    /// It has begun, its initializer has run.
    Ready,
    /// Its initializer failed.
    NotReady { record: Record },
}

const NOTICE_SHIFT: u32 = 57;
const FINISHED: u64 = 1;
const FAILED: u64 = 2;
const ROOM: u64 = 3;
const IS_READY: u64 = 4;
const NOT_READY: u64 = 5;

impl Notice {
    pub(super) fn words(self) -> [u64; NOTICE_STRIDE - 1] {
        let head = |kind: u64, ticket: Option<Ticket>| {
            kind << NOTICE_SHIFT | ticket.map_or(0, Ticket::word)
        };
        match self {
            Notice::Finished { ticket, chunks } => {
                [head(FINISHED, Some(ticket)), u64::from(chunks), 0]
            }
            Notice::Failed {
                ticket,
                item,
                record,
            } => [
                head(FAILED, Some(ticket)),
                u64::from(item) | u64::from(record.len) << 32,
                record.place.word(),
            ],
            Notice::Room { ticket, bytes } => [head(ROOM, ticket), bytes, 0],
            Notice::Ready => [head(IS_READY, None), 0, 0],
            Notice::NotReady { record } => [
                head(NOT_READY, None),
                u64::from(record.len) << 32,
                record.place.word(),
            ],
        }
    }

    pub(super) fn from_words(words: [u64; NOTICE_STRIDE - 1]) -> Option<Notice> {
        let kind = words[0] >> NOTICE_SHIFT & 0xf;
        let ticket = Ticket::from_word(words[0] & !(0xf << NOTICE_SHIFT));
        let record = Record {
            place: Place::from_word(words[2]),
            len: (words[1] >> 32) as u32,
        };
        Some(match (kind, ticket) {
            (FINISHED, Some(ticket)) => Notice::Finished {
                ticket,
                chunks: words[1] as u32,
            },
            (FAILED, Some(ticket)) => Notice::Failed {
                ticket,
                item: words[1] as u32,
                record,
            },
            (ROOM, ticket) => Notice::Room {
                ticket,
                bytes: words[1],
            },
            (IS_READY, None) => Notice::Ready,
            (NOT_READY, None) => Notice::NotReady { record },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::job::Generation;

    #[test]
    fn notices_travel_as_words() {
        let ticket = Ticket {
            cell: CELLS as u16 - 1,
            generation: Generation::default().next(),
        };
        let record = Record {
            place: Place {
                extent: 3,
                offset: 128,
            },
            len: u32::MAX,
        };
        for notice in [
            Notice::Finished { ticket, chunks: 7 },
            Notice::Failed {
                ticket,
                item: 9,
                record,
            },
            Notice::Room {
                ticket: Some(ticket),
                bytes: 1 << 40,
            },
            Notice::Room {
                ticket: None,
                bytes: 1,
            },
            Notice::Ready,
            Notice::NotReady { record },
        ] {
            assert_eq!(Notice::from_words(notice.words()), Some(notice));
        }
        assert_eq!(Notice::from_words([0; 3]), None);
    }
}
