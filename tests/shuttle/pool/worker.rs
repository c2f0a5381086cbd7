//! A worker's life, as in `src/pool/worker/mod.rs`; every atomic step of it may be its last.

#[path = "../../../src/pool/worker/finder.rs"]
mod finder;

use super::{Bug, Pool};
use crate::chunk::{self, Naming, Span};
use crate::death::tick;
use crate::error::Corrupt;
use crate::layout::{CHUNKS, PoolCell, PoolRow};
use crate::signal::Patience;
use crate::sync::Ordering;
use finder::{Finder, Found, Look};

const SIGNALS: u64 = crate::layout::SIGNALS as u64;

/// What comes of an item of a job; every third fails.
pub(super) fn result(job: u64, item: u32) -> u64 {
    let has_failed = (job + u64::from(item)).is_multiple_of(3);
    1 + job * 1_000 + u64::from(item) * 2 + u64::from(has_failed)
}

pub(super) fn work(pool: &Pool, seat: u16) {
    let wire = &pool.wire;
    let row = &wire.rows[usize::from(seat)];
    let finder = Finder::new(seat, 0);
    let mut patience = Patience::new();
    loop {
        chunk::set_searching(&row.activity);
        let look = || Ok::<_, Corrupt>(finder.look(wire, row));
        let check = |_| {
            chunk::set_idle(&row.activity);
            Ok(finder.look(wire, row))
        };
        let tasks = &wire.page.tasks;
        let found = tasks.wait(&mut patience, None, &pool.no_deaths, look, check);
        match found.unwrap() {
            Some(Look::Work(found)) => serve(pool, &finder, row, found),
            Some(Look::Over) | None => return,
        }
    }
}

fn serve(pool: &Pool, finder: &Finder, row: &PoolRow, found: Found) {
    let wire = &pool.wire;
    let Found { cell, mut lease } = found;
    chunk::set_busy(&row.activity);
    if pool.bug != Bug::NoLookWhenBusy && finder.sees_more(wire, cell) {
        wire.page.tasks.notify_one();
    }
    let number = cell;
    let cell = wire.cell(number).unwrap();
    loop {
        let chunks = (cell.shape.load(Ordering::Relaxed) as u32 as usize).clamp(1, CHUNKS);
        let owner = cell.owner.load(Ordering::Relaxed);
        if pool.bug == Bug::BitBeforeResults {
            cell.done
                .fetch_or(chunk::bit(lease.index()), Ordering::Release);
        }
        run_items(pool, row, cell, lease.index());
        let may_go_on = chunks > 1;
        if !may_go_on {
            chunk::set_searching(&row.activity);
        }
        if chunk::finish(&cell.done, lease, chunks) {
            if pool.bug == Bug::WorkerClearsOpen {
                chunk::clear(&wire.page.open, number);
            }
            let now = chunk::owner(&cell.owner);
            let owner = if pool.bug == Bug::OwnerReadEarly {
                owner
            } else {
                now
            };
            match owner {
                chunk::NOBODY => {}
                owner @ 1..SIGNALS => wire.page.signals[owner as usize].words.notify_all(),
                _ if chunk::set(&wire.page.ended, number) => wire.page.supervisor.notify_one(),
                _ => {}
            }
        }
        let next = match may_go_on {
            true => finder.lease(wire, row, number),
            false => None,
        };
        let Some(next) = next else {
            return finder.leave(row);
        };
        lease = next;
    }
}

fn run_items(pool: &Pool, row: &PoolRow, cell: &PoolCell, index: usize) {
    let chunk = &cell.chunks[index];
    let span = Span::from_word(chunk.span.load(Ordering::Relaxed));
    // In this model the arguments are the job's number.
    let job = cell.context.load(Ordering::Relaxed);
    for item in span.start..span.end() {
        let naming = Naming { item, turn: 0 };
        if pool.bug != Bug::ItemNamedLate {
            row.item.store(naming.word(), Ordering::Release);
        }
        // It may die before the item has run, and behind it.
        pool.begins(job, item);
        tick();
        if let Some(meeting) = &pool.meeting {
            meeting.wait();
        }
        if pool.bug == Bug::ItemNamedLate {
            row.item.store(naming.word(), Ordering::Release);
        }
        cell.output[item as usize].store(result(job, item), Ordering::Relaxed);
    }
}
