//! What the pool does when a worker has died: the same few steps, wherever it was.

use std::sync::Arc;
use std::time::Duration;

use super::board::{After, Board, describe, read_failures, results_of};
use super::error::TaskError;
use super::job::Record;
use super::memory::Memory;
use super::outcome::Ending;
use super::outcome::{Reason, ResultRange};
use super::record::records_len;
use crate::chunk::{self, Naming, Span};
use crate::error::{Death, WorkerExit};
use crate::layout::PoolChunk;
use crate::sync::{AtomicU64, Ordering};

/// Why a worker died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Of itself, or by somebody else.
    Itself,
    /// The pool has ended it, because an item took longer than this.
    TimedOut(Duration),
    /// The pool has ended it, because its task was killed.
    Killed,
    /// The pool has ended it, because it used more memory than this.
    OutOfMemory(u64),
}

/// A worker that has ended, and what it was at.
#[derive(Debug, Clone)]
pub(super) struct Dead {
    pub(super) seat: u16,
    pub(super) pid: u32,
    pub(super) name: Arc<str>,
    pub(super) how: WorkerExit,
    pub(super) naming: Naming,
    pub(super) cause: Cause,
}

impl Dead {
    /// Which one, and how, in the words of every death.
    pub(super) fn death(&self) -> Death {
        Death::new(self.pid, Some(&self.name), self.how)
    }

    /// What becomes of the item that it died in.
    fn error(&self, attempt: u32) -> TaskError {
        let (item, pid, name) = (0, self.pid, self.name.to_string());
        match self.cause {
            Cause::Itself => TaskError::WorkerDied {
                item,
                pid,
                name,
                how: self.how,
                attempt,
            },
            Cause::TimedOut(limit) => TaskError::TimedOut {
                item,
                pid: Some(pid),
                name: Some(name),
                limit,
            },
            Cause::Killed => TaskError::Killed { item, pid, name },
            Cause::OutOfMemory(limit) => TaskError::OutOfMemory {
                item,
                pid,
                name,
                limit,
            },
        }
    }
}

impl Board {
    /// Gives what a dead worker leaves to others. `at` is the cell that its row named, plus 1; an item that it died
    /// in is begun again so many times at most.
    pub(super) fn recover(&mut self, dead: &Dead, at: u64, retries: u32, after: &mut After) {
        // Whoever counted on it to look for work may have woken nobody.
        after.all_workers = true;
        let Some(number) = at.checked_sub(1).map(|cell| cell as usize) else {
            return;
        };
        let memory = self.memory();
        let wire = self.wire();
        let (Some(cell), Some(record)) = (wire.cell(number), self.record_mut(number)) else {
            return;
        };
        let chunks = &cell.chunks[..record.job.chunks];
        for (index, chunk) in chunks.iter().enumerate() {
            if !chunk::reclaim(chunk, &cell.done, index, dead.seat) {
                continue;
            }
            match remainder(&memory, record, index, (chunk, &cell.stop), dead, retries) {
                true => chunk::offer(chunk),
                false => chunk::give_up(&cell.done, chunk::bit(index)),
            }
        }
        // It may have claimed chunks that it did not lease.
        if let Some(first) = chunk::first_ready(chunks) {
            chunk::set_cursor(&cell.cursor, chunks.len(), first);
        }
        // Perhaps it finished the job, and woke nobody.
        after.owners |= record.to_wake();
        self.settle(number, after);
    }
}

/// Cuts a dead worker's chunk: what it had finished counts, the item it died in fails or is begun again, the
/// rest is for others. Whether anything is left.
fn remainder(
    memory: &Memory,
    record: &mut Record,
    index: usize,
    (chunk, stop): (&PoolChunk, &AtomicU64),
    dead: &Dead,
    retries: u32,
) -> bool {
    let (in_size, out_size) = (record.job.in_size, record.job.out_size);
    let part = &mut record.parts[index];
    let span = part.span;
    read_failures(memory, part, chunk, &mut record.failures);
    if record.is_killed {
        // It may have died of itself a moment before: the task was to end so.
        let killed = Dead {
            cause: Cause::Killed,
            ..dead.clone()
        };
        record.killed = Some(Ending::Killed(killed.error(part.attempts + 1)));
        return false;
    }
    let Some(item) = dead.naming.begun(span) else {
        // It had begun nothing of it.
        describe(chunk, part);
        return true;
    };
    record.was_begun = true;
    let attempt = match item == span.start {
        true => part.attempts + 1,
        false => 1,
    };
    // It may have failed, and said so, before its worker died.
    let has_failed = record.failures.has(item);
    let again = !has_failed && dead.cause == Cause::Itself && attempt <= retries;
    if !again && !has_failed {
        let one = Span {
            start: item,
            count: 1,
        };
        record.failures.add(one, Reason::Error(dead.error(attempt)));
        if record.job.fails_fast {
            stop.fetch_min(u64::from(item), Ordering::Relaxed);
        }
    }
    let rest = span.from(if again { item } else { item + 1 });
    let finished = item - span.start;
    let skipped = rest.start - span.start;
    let bytes = &memory.bytes;
    let consumed = match in_size {
        Some(size) => Some(u64::from(skipped) * size),
        None => records_len(bytes, part.input.0, part.input.1, skipped),
    };
    let output = match out_size {
        Some(size) => {
            let done = u64::from(skipped) * size;
            Some((part.output.0 + done, part.output.1 - done))
        }
        None => results_of(part, chunk).and_then(|found| {
            // Its room goes on to where the room ends that it was in.
            let room = part.room_at(found.place)?;
            let used = records_len(bytes, found.place, room, finished)?;
            if finished > 0 {
                record.pieces.push(ResultRange {
                    span: Span {
                        count: finished,
                        ..span
                    },
                    place: found.place,
                    used,
                    // Its worker holds nothing any more.
                    carries: false,
                });
            }
            Some((found.place + used, room - used))
        }),
    };
    let (Some(consumed), Some(output)) = (consumed, output) else {
        // The lengths it left make no sense: nothing of the chunk can be trusted.
        let why = "a dead worker has left lengths that make no sense";
        record.failures.add(span, Reason::Lost(why));
        return false;
    };
    part.span = rest;
    if !matches!(record.input, super::job::Input::InArray(..)) {
        part.input = (
            part.input.0 + consumed,
            part.input.1.saturating_sub(consumed),
        );
    }
    // What it was given stays its own: there are results in it.
    let before = std::mem::replace(&mut part.output, output);
    part.granted.push(before);
    part.attempts = if again { attempt } else { 0 };
    describe(chunk, part);
    rest.count > 0
}
