//! A pool as one call sees it: with the chunk size set, or with a context.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;

use super::calls::{How, not_forked};
use super::context::Context;
use super::error::TaskError;
use super::imap::Order;
use super::items::Items;
use super::step::{Each, Spread, Within};
use super::task::Task;
use crate::message::Message;
use crate::process::Function;

/// A pool with the number of items in a chunk set by hand; made by [`Pool::chunk_size`](super::Pool::chunk_size).
#[derive(Clone)]
pub struct Chunked<'p> {
    how: How<'p>,
}

impl fmt::Debug for Chunked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunked")
            .field("chunk", &self.how.chunk)
            .finish_non_exhaustive()
    }
}

impl<'p> Chunked<'p> {
    pub(super) fn new(how: How<'p>, items: usize) -> Chunked<'p> {
        let chunk = Some(NonZeroUsize::new(items).unwrap_or(NonZeroUsize::MIN));
        Chunked {
            how: How { chunk, ..how },
        }
    }

    /// As [`Pool::map`](super::Pool::map).
    ///
    /// # Errors
    ///
    /// That of the first item that failed.
    pub fn map<F, A, R, By>(
        &self,
        function: F,
        items: impl Items<A, By>,
    ) -> Result<Vec<R>, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Message,
    {
        // Its type says all; so below.
        let _: F = function;
        self.how.map::<Each<F, A, R>, _>(items.source())
    }

    /// As [`Pool::map_async`](super::Pool::map_async).
    pub fn map_async<F, A, R, By>(&self, function: F, items: impl Items<A, By>) -> Task<Vec<R>>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Message,
    {
        let _: F = function;
        self.how.map_async::<Each<F, A, R>, _>(items.source())
    }

    /// As [`Pool::starmap`](super::Pool::starmap).
    ///
    /// # Errors
    ///
    /// That of the first item that failed.
    pub fn starmap<F, A, By>(
        &self,
        function: F,
        tuples: impl Items<A, By>,
    ) -> Result<Vec<F::Output>, TaskError>
    where
        F: Function<A, Output: Message>,
        A: Message,
    {
        let _: F = function;
        self.how.map::<Spread<F, A>, _>(tuples.source())
    }

    /// As [`Pool::starmap_async`](super::Pool::starmap_async).
    pub fn starmap_async<F, A, By>(
        &self,
        function: F,
        tuples: impl Items<A, By>,
    ) -> Task<Vec<F::Output>>
    where
        F: Function<A, Output: Message>,
        A: Message,
    {
        let _: F = function;
        self.how.map_async::<Spread<F, A>, _>(tuples.source())
    }

    /// As [`Pool::imap`](super::Pool::imap).
    pub fn imap<F, A, R, I, By>(
        &self,
        function: F,
        items: I,
    ) -> impl Iterator<Item = Result<R, TaskError>> + use<'p, F, A, R, I, By>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        let _: F = function;
        self.how
            .imap::<Each<F, A, R>, _>(items.source(), Order::OfItems)
    }

    /// As [`Pool::imap_unordered`](super::Pool::imap_unordered).
    pub fn imap_unordered<F, A, R, I, By>(
        &self,
        function: F,
        items: I,
    ) -> impl Iterator<Item = Result<R, TaskError>> + use<'p, F, A, R, I, By>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        let _: F = function;
        self.how
            .imap::<Each<F, A, R>, _>(items.source(), Order::OfCompletion)
    }
}

/// A pool with a value that every function is given beside its item; made by [`Pool::with`](super::Pool::with).
///
/// # Examples
///
/// ```
/// let pool = multiproc::Pool::new(2)?;
/// let words = vec!["zero".to_owned(), "one".to_owned(), "two".to_owned()];
/// let found = pool.with(words).map(|words: &Vec<String>, i: usize| words[i].clone(), [2, 0])?;
/// assert_eq!(found, ["two", "zero"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct With<'p, C> {
    how: How<'p>,
    /// Why the context cannot be sent.
    unsent: Option<TaskError>,
    context: PhantomData<fn(C)>,
}

impl<C> fmt::Debug for With<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("With")
            .field("unsent", &self.unsent)
            .finish_non_exhaustive()
    }
}

impl<'p, C: Message> With<'p, C> {
    pub(super) fn new(how: How<'p>, context: &C) -> With<'p, C> {
        let name = [0, how.engine.next_context()];
        let placed = not_forked().and_then(|()| Context::place(how.engine, name, context));
        let (context, unsent) = match placed {
            Ok(context) => (Some(context), None),
            Err(error) => (None, Some(error)),
        };
        With {
            how: How { context, ..how },
            unsent,
            context: PhantomData,
        }
    }

    /// The same with the number of items in a chunk set by hand; 0 counts as 1.
    #[must_use]
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.how.chunk = Some(NonZeroUsize::new(items).unwrap_or(NonZeroUsize::MIN));
        self
    }

    /// As [`Pool::map`](super::Pool::map); the function is given the context first.
    ///
    /// # Errors
    ///
    /// That of the first item that failed; [`TaskError::Encode`] if the context cannot be sent.
    pub fn map<F, A, R, By>(
        &self,
        function: F,
        items: impl Items<A, By>,
    ) -> Result<Vec<R>, TaskError>
    where
        F: Fn(&C, A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Message,
    {
        let _: F = function;
        match &self.unsent {
            Some(unsent) => Err(unsent.clone()),
            None => self.how.map::<Within<F, C, A, R>, _>(items.source()),
        }
    }

    /// As [`Pool::imap`](super::Pool::imap); the function is given the context first.
    ///
    /// # Errors
    ///
    /// [`TaskError::Encode`] if the context cannot be sent.
    pub fn imap<F, A, R, I, By>(
        &self,
        function: F,
        items: I,
    ) -> Result<impl Iterator<Item = Result<R, TaskError>> + use<'p, C, F, A, R, I, By>, TaskError>
    where
        F: Fn(&C, A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        let _: F = function;
        match &self.unsent {
            Some(unsent) => Err(unsent.clone()),
            None => Ok(self
                .how
                .imap::<Within<F, C, A, R>, _>(items.source(), Order::OfItems)),
        }
    }
}
