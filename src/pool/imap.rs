//! Results one after another, while the items are still being read.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::vec;

use super::engine::Engine;
use super::error::TaskError;
use super::feed::Feed;
use super::held::Held;
use super::items::Source;
use super::step::Step;
use super::supervise::Loose;
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
    engine: &'p Arc<Engine>,
    feed: Option<Feed<'p, S, I>>,
    order: Order,
    flying: VecDeque<Flight<'p>>,
    ready: vec::IntoIter<Result<S::Out, TaskError>>,
    _loose: Loose<'p>,
}

enum Flight<'p> {
    Work(Held<'p>),
    /// An item that could not be sent.
    Failed(TaskError),
}

impl Flight<'_> {
    fn has_ended(&self) -> bool {
        match self {
            Flight::Work(held) => held.work.has_ended(),
            Flight::Failed(_) => true,
        }
    }
}

impl<'p, S: Step, I: Source<S::In>> Imap<'p, S, I> {
    pub(super) fn new(
        engine: &'p Arc<Engine>,
        feed: Result<Feed<'p, S, I>, TaskError>,
        order: Order,
    ) -> Self {
        let mut flying = VecDeque::new();
        let feed = feed
            .map_err(|error| flying.push_back(Flight::Failed(error)))
            .ok();
        Imap {
            engine,
            feed,
            order,
            flying,
            ready: Vec::new().into_iter(),
            _loose: Loose::new(engine),
        }
    }

    fn fill(&mut self) {
        let ahead = AHEAD * self.engine.control.seats.len();
        while self.flying.len() < ahead {
            let Some(feed) = &mut self.feed else { return };
            let next = feed.next(None).and_then(|parcel| {
                parcel
                    .map(|parcel| Held::submit(self.engine, parcel))
                    .transpose()
            });
            match next {
                Ok(Some(held)) => self.flying.push_back(Flight::Work(held)),
                Ok(None) => self.feed = None,
                Err(error) => {
                    let is_over = matches!(
                        error,
                        TaskError::PoolClosed { .. } | TaskError::PoolBroken { .. }
                    );
                    self.flying.push_back(Flight::Failed(error));
                    if is_over {
                        self.feed = None;
                    }
                }
            }
        }
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

    /// The next that has ended, or is the next in order.
    fn land(&mut self) -> Option<Flight<'p>> {
        if self.order == Order::OfItems {
            return self.flying.pop_front();
        }
        let flying = &self.flying;
        if flying.is_empty() {
            return None;
        }
        self.engine.wait(
            || flying.iter().any(Flight::has_ended),
            |thread| {
                flying.iter().all(|flight| match flight {
                    Flight::Work(held) => held.work.call(thread.clone()),
                    Flight::Failed(_) => false,
                })
            },
            None,
        );
        let at = flying.iter().position(Flight::has_ended)?;
        self.flying.remove(at)
    }
}

impl<S: Step, I: Source<S::In>> Iterator for Imap<'_, S, I> {
    type Item = Result<S::Out, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if kin::forked() {
            return self.end_in_copy();
        }
        loop {
            if let Some(result) = self.ready.next() {
                return Some(result);
            }
            self.fill();
            match self.land()? {
                Flight::Failed(error) => return Some(Err(error)),
                Flight::Work(held) => {
                    self.engine.wait_for(&held.work, None);
                    if let (Some(feed), Some(average)) = (&mut self.feed, held.work.average()) {
                        feed.guess = average + average / 4 + 16;
                    }
                    self.ready = held.work.each(self.engine).into_iter();
                }
            }
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
