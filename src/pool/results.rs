//! How a caller reads what came of a job.

use super::error::{Payload, TaskError};
use super::job::Job;
use super::outcome::{Ending, Outcome, Reason, ResultRange, unexplained};
use super::record::{self, CARRIES, NO_RESULT, inside, record_len, truncated};
use crate::message::{self, DecodeError, Message};
use crate::segment::Bytes;

/// Bytes of results of a fixed size that are copied out of shared memory at a time.
const BATCH: u64 = 16 * 1024;
/// From so many bytes on, on the average, results are copied out of shared memory one by one: to
/// where they stay.
const LARGE: u64 = 4096;

impl Outcome {
    /// Copies `len` bytes of results from a place.
    fn read(&self, place: u64, len: u64, to: &mut Vec<u8>) -> Result<(), Unreadable> {
        let missing = || Unreadable::new(0, truncated(len, 0));
        to.clear();
        let from = place.wrapping_sub(self.output);
        // Results that outgrew the cell lie elsewhere.
        if let Some(inline) = self
            .inline
            .as_ref()
            .filter(|inline| from < inline.len() as u64)
        {
            let part = inline
                .get(from as usize..)
                .and_then(|part| part.get(..len as usize));
            to.extend_from_slice(part.ok_or_else(missing)?);
            return Ok(());
        }
        let at = inside(&self.bytes, place, len).ok_or_else(missing)?;
        self.bytes.append_to(at, len as usize, to);
        Ok(())
    }
}

/// A result whose bytes are wrong.
#[derive(Debug, Clone)]
struct Unreadable {
    item: u32,
    error: DecodeError,
}

impl Unreadable {
    fn new(item: u32, error: DecodeError) -> Unreadable {
        Unreadable { item, error }
    }

    fn at(self, item: u32) -> Unreadable {
        Unreadable { item, ..self }
    }

    fn error(self, first: usize) -> TaskError {
        TaskError::Decode {
            item: first + self.item as usize,
            pid: None,
            name: None,
            what: Payload::Result,
            error: self.error,
        }
    }
}

impl Job {
    /// Bytes that a result took on the average.
    pub(super) fn average(&self) -> Option<u64> {
        let outcome = self.outcome()?;
        let is_known = self.out_size.is_none() && self.items > 0;
        is_known.then(|| outcome.used().div_ceil(u64::from(self.items)))
    }

    /// The result of a job of one item.
    pub(super) fn only<R: Message>(&self) -> Result<R, TaskError> {
        let closed = || Ending::Closed.error(self.first);
        let outcome = self.outcome().ok_or_else(closed)?;
        let is_simple = outcome.ending.is_none() && outcome.failures.is_empty();
        if let (true, Some(inline)) = (is_simple, &outcome.inline) {
            let is_whole = |piece: &ResultRange| piece.place == outcome.output;
            if outcome.pieces.iter().all(is_whole) {
                let result = match self.out_size {
                    Some(size) => fixed(inline, 0, size),
                    None => record(inline, &mut 0, 0),
                };
                return result.map_err(|unreadable| unreadable.error(self.first));
            }
        }
        self.each().pop().unwrap_or_else(|| Err(closed()))
    }

    /// The results, in order, if no item has failed; else the first error. Of a job that one of its own results
    /// has ended, those up to that one; true then.
    pub(super) fn append_to<R: Message>(&self, results: &mut Vec<R>) -> Result<bool, TaskError> {
        let Some(outcome) = self.outcome() else {
            return Err(Ending::Closed.error(self.first));
        };
        if let Some(ending) = &outcome.ending {
            return Err(ending.error(self.first));
        }
        let is_ended = outcome.stop < self.items;
        let items = if is_ended {
            outcome.stop + 1
        } else {
            self.items
        };
        if let Some((item, reason)) = outcome.failures.first().filter(|(item, _)| *item < items) {
            return Err(reason.error(self.first + item as usize));
        }
        let Some(size) = self.out_size else {
            results.reserve(items as usize);
            for result in self.records(outcome, items) {
                results.push(result?);
            }
            return Ok(is_ended);
        };
        let count = items as usize;
        let at = inside(&outcome.bytes, outcome.output, size * u64::from(items));
        if let (None, Some(at)) = (&outcome.inline, at) {
            if message::append_from(&outcome.bytes, at, count, results) {
                return Ok(is_ended);
            }
        }
        results.reserve(count);
        let batch = (BATCH / size.max(1)).clamp(1, u64::from(items).max(1)) as u32;
        let mut bytes = Vec::new();
        for item in (0..items).step_by(batch as usize) {
            let count = batch.min(items - item);
            let place = outcome.output + u64::from(item) * size;
            let read = outcome.read(place, u64::from(count) * size, &mut bytes);
            let read = read.and_then(|()| {
                message::append_vec(&bytes, count as usize, results).or_else(|_| {
                    // Which item it is, says the slow way.
                    let each = (0..count).map(|item| fixed(&bytes, item, size));
                    results.append(&mut each.collect::<Result<Vec<R>, _>>()?);
                    Ok(())
                })
            });
            read.map_err(|unreadable| unreadable.error(self.first + item as usize))?;
        }
        Ok(is_ended)
    }

    /// The results, in order, each for itself.
    pub(super) fn each<R: Message>(&self) -> Vec<Result<R, TaskError>> {
        let items = self.first..self.first + self.items as usize;
        let all = |ending: &Ending| items.map(|item| Err(ending.error(item))).collect();
        let outcome = match self.outcome() {
            Some(outcome) => outcome,
            None => return all(&Ending::Closed),
        };
        if let Some(ending) = &outcome.ending {
            return all(ending);
        }
        let Some(size) = self.out_size else {
            return self.records(outcome, self.items);
        };
        let mut bytes = Vec::new();
        let read = outcome.read(outcome.output, size * u64::from(self.items), &mut bytes);
        (0..self.items)
            .map(|item| {
                if let Some(error) = self.failure(outcome, item) {
                    return Err(error);
                }
                let read = read.clone().map_err(|unreadable| unreadable.at(item));
                read.and_then(|()| fixed(&bytes, item, size))
                    .map_err(|unreadable| unreadable.error(self.first))
            })
            .collect()
    }

    fn failure(&self, outcome: &Outcome, item: u32) -> Option<TaskError> {
        let error = |reason: &Reason| reason.error(self.first + item as usize);
        outcome.failures.get(item).map(error)
    }

    fn records<R: Message>(&self, outcome: &Outcome, items: u32) -> Vec<Result<R, TaskError>> {
        let mut results = Vec::with_capacity(items as usize);
        let mut pieces = outcome.pieces.iter().peekable();
        let mut item = 0;
        let mut bytes = Vec::new();
        while item < items {
            let Some(piece) = pieces.next_if(|piece| piece.span.start <= item) else {
                let missing = || unexplained(self.first + item as usize, "it is not there");
                results.push(Err(self.failure(outcome, item).unwrap_or_else(missing)));
                item += 1;
                continue;
            };
            let is_large = piece.used / u64::from(piece.span.count.max(1)) >= LARGE;
            let read = match is_large {
                true => Ok(()),
                false => outcome.read(piece.place, piece.used, &mut bytes),
            };
            let (mut at, mut read_to) = (0, 0);
            let end = piece.span.end().min(items);
            for item in item..end {
                let result = match &read {
                    Ok(()) if is_large => {
                        let rest = (piece.place + read_to, piece.used - read_to);
                        let (result, len) = large(&outcome.bytes, rest, item, &mut bytes);
                        read_to += len;
                        result
                    }
                    Ok(()) => record(&bytes, &mut at, item),
                    Err(unreadable) => Err(unreadable.clone().at(item)),
                };
                let result = result.map_err(|unreadable| unreadable.error(self.first));
                results.push(match self.failure(outcome, item) {
                    Some(error) => Err(error),
                    None => result,
                });
            }
            item = item.max(end);
        }
        results
    }
}

fn fixed<R: Message>(bytes: &[u8], item: u32, size: u64) -> Result<R, Unreadable> {
    let at = item as usize * size as usize;
    let missing = || Unreadable::new(item, truncated(size, 0));
    let bytes = bytes.get(at..at + size as usize).ok_or_else(missing)?;
    message::decode(bytes).map_err(|error| Unreadable::new(item, error))
}

/// The result that begins a rest of a piece, straight from shared memory, and how much of that it
/// takes.
fn large<R: Message>(
    bytes: &Bytes,
    (place, left): (u64, u64),
    item: u32,
    scratch: &mut Vec<u8>,
) -> (Result<R, Unreadable>, u64) {
    let wrong = |error| Unreadable::new(item, error);
    let head = match record::head(bytes, place, left) {
        Ok(NO_RESULT) => return (Err(wrong(truncated(0, 0))), 8),
        Ok(head) => head,
        Err(error) => return (Err(wrong(error)), 0),
    };
    let len = head & !CARRIES;
    match record::body(bytes, place, len, left, scratch) {
        Ok(owned) => {
            let value = owned.unwrap_or_else(|| message::decode(scratch));
            (value.map_err(wrong), record_len(head).min(left))
        }
        Err(error) => (Err(wrong(error)), 0),
    }
}

fn record<R: Message>(bytes: &[u8], at: &mut usize, item: u32) -> Result<R, Unreadable> {
    let missing = |needed: u64| Unreadable::new(item, truncated(needed, 0));
    let rest = bytes.get(*at..).ok_or_else(|| missing(8))?;
    let (head, rest) = rest.split_first_chunk().ok_or_else(|| missing(8))?;
    let head = u64::from_ne_bytes(*head);
    if head == NO_RESULT {
        *at += 8;
        return Err(missing(0));
    }
    let len = head & !CARRIES;
    let body = usize::try_from(len).ok().and_then(|len| rest.get(..len));
    let body = body.ok_or_else(|| missing(len))?;
    *at += record_len(head) as usize;
    message::decode(body).map_err(|error| Unreadable::new(item, error))
}
