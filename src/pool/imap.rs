//! Results one after another, while the items are still being read.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::sync::Arc;
use std::vec;

use super::Pool;
use super::error::TaskError;
use super::feed::{Feed, Unfed};
use super::items::Source;
use super::job::{Group, Record};
use super::shared::{PoolShared, Slot};
use super::step::Step;
use super::waited::Waited;
use crate::kin;
use crate::message::Message;

/// Jobs that are under way at once, for each worker.
const AHEAD: usize = 4;

/// In which order results come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    OfItems,
    OfCompletion,
}

/// How the next job is made, of a function that the iterator's type does not name.
type Next<I, A> =
    fn(&mut Feed<A, I>, Option<&Arc<Group>>, bool) -> Result<Option<Box<Record>>, Unfed>;

/// The results of a pool's calls, one after another: made by [`Pool::imap`] and its like.
///
/// `I` is what gives the items, `A` one of them, `R` a result. What `I` is, [`Items::Source`](super::Items::Source)
/// says of a type of items, so that a struct can hold one. `'p` is how long the pool is borrowed:
/// [`Pool::into_imap`] keeps the pool itself.
///
/// # Examples
///
/// ```
/// use std::ops::Range;
/// use std::sync::Arc;
///
/// use multiproc::{Imap, Items, Pool, TaskError};
///
/// struct Squares {
///     results: Imap<'static, <Range<u64> as Items<u64>>::Source, u64, u64>,
/// }
///
/// impl Iterator for Squares {
///     type Item = Result<u64, TaskError>;
///
///     fn next(&mut self) -> Option<Self::Item> {
///         self.results.next()
///     }
/// }
///
/// let pool = Arc::new(Pool::new(2)?);
/// let squares = Squares { results: pool.into_imap(|x: u64| x * x, 0..4) };
/// assert_eq!(squares.collect::<Result<Vec<_>, _>>()?, [0, 1, 4, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "results come only when they are asked for"]
pub struct Imap<'p, I, A, R> {
    shared: Arc<PoolShared>,
    slot: Slot<Arc<PoolShared>>,
    feed: Option<Feed<A, I>>,
    next: Next<I, A>,
    /// The items said that there are no more, which is asked once more after each result.
    is_dry: bool,
    order: Order,
    flying: VecDeque<Flight>,
    ready: vec::IntoIter<Result<R, TaskError>>,
    /// After all else is given up.
    _pool: Option<Arc<Pool>>,
    borrows: PhantomData<&'p Pool>,
}

enum Flight {
    Job(Waited<Arc<PoolShared>>),
    /// An item that could not be sent.
    Failed(TaskError),
}

impl<'p, I: Source<A>, A: Message, R: Message> Imap<'p, I, A, R> {
    pub(super) fn new<S: Step<In = A, Out = R>>(
        shared: &Arc<PoolShared>,
        feed: Result<Feed<A, I>, TaskError>,
        order: Order,
    ) -> Self {
        let mut flying = VecDeque::new();
        let feed = feed
            .map_err(|error| flying.push_back(Flight::Failed(error)))
            .ok();
        Imap {
            shared: Arc::clone(shared),
            slot: Slot::of(Arc::clone(shared)),
            feed,
            next: Feed::next::<S>,
            is_dry: false,
            order,
            flying,
            ready: Vec::new().into_iter(),
            _pool: None,
            borrows: PhantomData,
        }
    }

    /// The same, which keeps its pool.
    pub(super) fn owning<'any>(self, pool: Arc<Pool>) -> Imap<'any, I, A, R> {
        Imap {
            shared: self.shared,
            slot: self.slot,
            feed: self.feed,
            next: self.next,
            is_dry: self.is_dry,
            order: self.order,
            flying: self.flying,
            ready: self.ready,
            _pool: Some(pool),
            borrows: PhantomData,
        }
    }

    /// Reads an item and sends it; false if there is none, or no memory for it now.
    fn send_one(&mut self) -> bool {
        let Some(feed) = &mut self.feed else {
            return false;
        };
        let first = feed.next_index();
        let returns = self.shared.memory.returns();
        match (self.next)(feed, None, !self.flying.is_empty()) {
            Ok(Some(record)) => {
                match Waited::submit(Arc::clone(&self.shared), record, self.slot.number) {
                    Ok(waited) => self.flying.push_back(Flight::Job(waited)),
                    // The pool takes nothing more.
                    Err(error) => {
                        self.flying.push_back(Flight::Failed(error));
                        self.feed = None;
                    }
                }
            }
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
    fn end_in_copy(&mut self) -> Option<Result<R, TaskError>> {
        let is_over =
            self.feed.is_none() && self.flying.is_empty() && self.ready.as_slice().is_empty();
        self.feed = None;
        self.flying.clear();
        self.ready = Vec::new().into_iter();
        (!is_over).then_some(Err(TaskError::Forked))
    }

    /// The next whose results can be given now.
    fn next_ready(&self) -> Option<usize> {
        let is_over = |flight: &Flight| match flight {
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

impl<I: Source<A>, A: Message, R: Message> Iterator for Imap<'_, I, A, R> {
    type Item = Result<R, TaskError>;

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

impl<I: Source<A>, A: Message, R: Message> FusedIterator for Imap<'_, I, A, R> {}

impl<I, A, R> fmt::Debug for Imap<'_, I, A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("order", &self.order)
            .field("under_way", &self.flying.len())
            .finish_non_exhaustive()
    }
}
