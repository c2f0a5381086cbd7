//! What came of a job: where its results lie, and what failed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{Report, TaskError};
use super::memory::Block;
use super::record::wipe_records;
use crate::chunk::Span;
use crate::kin;
use crate::layout::INLINE_OUTPUT;
use crate::message;
use crate::segment::Bytes;

/// Why a job as a whole has ended without its results.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    Closed,
    Broken(Arc<str>),
    Cancelled,
    /// It was killed, with its worker.
    Killed(TaskError),
}

impl Ending {
    pub(super) fn error(&self, item: usize) -> TaskError {
        match self {
            Ending::Closed => TaskError::PoolClosed { item },
            Ending::Broken(why) => TaskError::PoolBroken {
                item,
                why: why.to_string(),
            },
            Ending::Cancelled => TaskError::Cancelled { item },
            Ending::Killed(error) => error.clone().at(item),
        }
    }
}

/// Results that lie together.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResultRange {
    pub(super) span: Span,
    pub(super) place: u64,
    pub(super) used: u64,
    /// Whether any of them names handles, behind which its worker looks for a wiped word.
    pub(super) carries: bool,
}

/// Why items have no result.
#[derive(Debug, Clone)]
pub(super) enum Reason {
    /// What a worker says, as it says it.
    Report(Vec<u8>),
    /// What the pool says.
    Error(TaskError),
    /// Nobody says why.
    Lost(&'static str),
}

impl Reason {
    pub(super) fn error(&self, item: usize) -> TaskError {
        match self {
            Reason::Error(error) => error.clone().at(item),
            Reason::Lost(why) => unexplained(item, why),
            Reason::Report(bytes) => match message::decode::<Report>(bytes) {
                Ok(report) => report.error(item),
                Err(_) => unexplained(item, "the worker's report cannot be read"),
            },
        }
    }
}

pub(super) fn unexplained(item: usize, why: &str) -> TaskError {
    TaskError::Unexplained {
        item,
        why: why.to_owned(),
    }
}

/// Why items have no result, by the first of each run of them.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<u32, (u32, Reason)>);

impl Failures {
    /// These items have none. The first reason that is given for one is what counts.
    pub(super) fn add(&mut self, span: Span, reason: Reason) {
        let mut start = span.start;
        while start < span.end() {
            if let Some((_, (end, _))) = self.run_of(start) {
                start = *end;
                continue;
            }
            let next = self.0.range(start..).next().map(|(next, _)| *next);
            let end = next.map_or(span.end(), |next| next.min(span.end()));
            self.0.insert(start, (end, reason.clone()));
            start = end;
        }
    }

    pub(super) fn has(&self, item: u32) -> bool {
        self.get(item).is_some()
    }

    pub(super) fn get(&self, item: u32) -> Option<&Reason> {
        self.run_of(item).map(|(_, (_, reason))| reason)
    }

    /// The run that an item is in.
    fn run_of(&self, item: u32) -> Option<(&u32, &(u32, Reason))> {
        let before = self.0.range(..=item).next_back();
        before.filter(|(_, (end, _))| item < *end)
    }

    pub(super) fn first(&self) -> Option<(u32, &Reason)> {
        let (item, (_, reason)) = self.0.first_key_value()?;
        Some((*item, reason))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many items before this one have none.
    fn count_before(&self, item: u32) -> u64 {
        self.0
            .iter()
            .map(|(start, (end, _))| u64::from(item.min(*end).saturating_sub(*start)))
            .sum()
    }
}

/// What came of a job; changes no more.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ending: Option<Ending>,
    pub(super) failures: Failures,
    /// Items from this one on were not begun, because one before ended the job.
    pub(super) stop: u32,
    /// Where the results lie, all together if their size is fixed.
    pub(super) output: u64,
    /// Where they lie if it is not, in the items' order.
    pub(super) pieces: Vec<ResultRange>,
    /// What lay in the cell itself, for results that did.
    pub(super) inline: Option<[u8; INLINE_OUTPUT]>,
    pub(super) bytes: Bytes,
    /// Given back with the outcome, when nobody can read the results any more.
    pub(super) _blocks: Vec<Block>,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        // The results are the parent's, in a forked copy.
        if kin::forked() {
            return;
        }
        // What the results' handles lead to is taken, or never will be.
        for piece in self.pieces.iter().filter(|piece| piece.carries) {
            wipe_records(&self.bytes, piece.place, piece.used);
        }
    }
}

impl Outcome {
    /// That of a job that never ran, or whose results nobody may have.
    pub(super) fn without(ending: Ending, bytes: Bytes, blocks: Vec<Block>) -> Outcome {
        Outcome {
            ending: Some(ending),
            failures: Failures::default(),
            stop: u32::MAX,
            output: 0,
            pieces: Vec::new(),
            inline: None,
            bytes,
            _blocks: blocks,
        }
    }

    /// How many items have no result.
    pub(super) fn failed(&self, items: u32) -> u64 {
        match self.ending {
            Some(_) => u64::from(items),
            None => {
                let not_begun = items.saturating_sub(self.stop.saturating_add(1));
                let failed = self.failures.count_before(items - not_begun);
                failed + u64::from(not_begun)
            }
        }
    }

    /// Bytes of results, if their size is not fixed.
    pub(super) fn used(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.used).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_of_an_item_counts() {
        let mut failures = Failures::default();
        let span = |start, count| Span { start, count };
        failures.add(span(2, 1), Reason::Lost("first"));
        failures.add(span(0, 5), Reason::Lost("second"));
        failures.add(span(4, 3), Reason::Lost("third"));
        let why = |item| match failures.get(item) {
            Some(Reason::Lost(why)) => *why,
            _ => "",
        };
        let all: Vec<_> = (0..8).map(why).collect();
        let (second, third) = ("second", "third");
        assert_eq!(
            all,
            [second, second, "first", second, second, third, third, ""]
        );
        assert_eq!(failures.count_before(8), 7);
    }
}
