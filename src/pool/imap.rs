//! Results one after another, while the items are still being read.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::vec;

use super::error::TaskError;
use super::feed::{Feed, Unfed};
use super::items::Source;
use super::shared::{PoolShared, Slot};
use super::step::Step;
use super::waited::Waited;
use crate::kin;

/// Jobs that are under way at once, for each worker.
const AHEAD: usize = 4;

/// In which order results come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    OfItems,
    OfCompletion,
}

/// The iterator of `imap` and `imap_unordered`.
pub(super) struct Imap<'p, S: Step, I> {
    shared: &'p Arc<PoolShared>,
    slot: Slot<'p>,
    feed: Option<Feed<'p, S, I>>,
    /// The items said that there are no more, which is asked once more after each result.
    is_dry: bool,
    order: Order,
    flying: VecDeque<Flight<'p>>,
    ready: vec::IntoIter<Result<S::Out, TaskError>>,
}

enum Flight<'p> {
    Job(Waited<'p>),
    /// An item that could not be sent.
    Failed(TaskError),
}

impl<'p, S: Step, I: Source<S::In>> Imap<'p, S, I> {
    pub(super) fn new(
        shared: &'p Arc<PoolShared>,
        feed: Result<Feed<'p, S, I>, TaskError>,
        order: Order,
    ) -> Self {
        let mut flying = VecDeque::new();
        let feed = feed
            .map_err(|error| flying.push_back(Flight::Failed(error)))
            .ok();
        Imap {
            shared,
            slot: shared.slot(),
            feed,
            is_dry: false,
            order,
            flying,
            ready: Vec::new().into_iter(),
        }
    }

    /// Reads an item and sends it; false if there is none, or no memory for it now.
    fn send_one(&mut self) -> bool {
        let Some(feed) = &mut self.feed else {
            return false;
        };
        let first = feed.next_index();
        let returns = self.shared.memory.returns();
        match feed.next(None, !self.flying.is_empty()) {
            Ok(Some(record)) => match Waited::submit(self.shared, record, &self.slot) {
                Ok(waited) => self.flying.push_back(Flight::Job(waited)),
                // The pool takes nothing more.
                Err(error) => {
                    self.flying.push_back(Flight::Failed(error));
                    self.feed = None;
                }
            },
            Ok(None) => {
                self.is_dry = true;
                return false;
            }
            Err(Unfed::Short(_)) if !self.flying.is_empty() => return false,
            Err(Unfed::Short(_)) if self.shared.wait_for_memory(returns) => {}
            Err(error) => {
                if matches!(error, Unfed::Short(_)) {
                    feed.pass_over();
                }
                let error = error.error();
                let items = first..feed.next_index();
                let failed = items.map(|item| Flight::Failed(error.clone().at(item)));
                self.flying.extend(failed);
            }
        }
        true
    }

    /// Ends it in a forked copy, which has no part in it: says so once, if anything would have come.
    #[cold]
    fn end_in_copy(&mut self) -> Option<Result<S::Out, TaskError>> {
        let is_over =
            self.feed.is_none() && self.flying.is_empty() && self.ready.as_slice().is_empty();
        self.feed = None;
        self.flying.clear();
        self.ready = Vec::new().into_iter();
        (!is_over).then_some(Err(TaskError::Forked))
    }

    /// The next whose results can be given now.
    fn next_ready(&self) -> Option<usize> {
        let is_over = |flight: &Flight<'_>| match flight {
            Flight::Job(waited) => self.shared.is_over(&waited.job),
            Flight::Failed(_) => true,
        };
        match self.order {
            Order::OfItems => self.flying.front().is_some_and(is_over).then_some(0),
            Order::OfCompletion => self.flying.iter().position(is_over),
        }
    }

    fn land(&mut self, at: usize) {
        let Some(flight) = self.flying.remove(at) else {
            return;
        };
        // Items may have been found in the results of others.
        if std::mem::take(&mut self.is_dry) {
            if let Some(feed) = &mut self.feed {
                feed.ask_again();
            }
        }
        match flight {
            Flight::Failed(error) => self.ready = vec![Err(error)].into_iter(),
            Flight::Job(waited) => {
                self.shared.wait_for(&waited.job, &self.slot, None);
                if let (Some(feed), Some(average)) = (&mut self.feed, waited.job.average()) {
                    feed.guess = average + average / 4 + 16;
                }
                self.ready = waited.job.each().into_iter();
            }
        }
    }
}

impl<S: Step, I: Source<S::In>> Iterator for Imap<'_, S, I> {
    type Item = Result<S::Out, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if kin::forked() {
            return self.end_in_copy();
        }
        let ahead = AHEAD * self.shared.workers();
        loop {
            if let Some(result) = self.ready.next() {
                return Some(result);
            }
            // What is ready is given before more items are read, which may take any time.
            if let Some(at) = self.next_ready() {
                self.land(at);
                continue;
            }
            if !self.is_dry && self.flying.len() < ahead && self.send_one() {
                continue;
            }
            if self.flying.is_empty() {
                self.feed = None;
                return None;
            }
            self.shared
                .wait_at(&self.slot, None, || self.next_ready().is_some());
        }
    }
}

impl<S: Step, I: Source<S::In>> FusedIterator for Imap<'_, S, I> {}

impl<S: Step, I> fmt::Debug for Imap<'_, S, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("order", &self.order)
            .field("under_way", &self.flying.len())
            .finish_non_exhaustive()
    }
}
