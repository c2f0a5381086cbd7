//! A pool as some calls see it: with the chunk size set, with a limit of time, with a context.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::calls::CallOptions;
use super::context::Context;
use super::error::{Full, TaskError};
use super::imap::{Imap, Order};
use super::items::{Closed, Items};
use super::step::{ContextStep, ContextTryStep, MapStep, StarmapStep, TryStep};
use super::task::Task;
use crate::message::Message;
use crate::process::task::refuse_captures;
use crate::process::{ContextFunction, Function, MapFunction};

/// A pool with settings for some calls: made by [`Pool::chunk_size`](super::Pool::chunk_size) and
/// [`Pool::with_timeout`](super::Pool::with_timeout), which may follow each other in any order.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let pool = multiproc::Pool::new(2)?;
/// let quick = pool.with_timeout(Duration::from_secs(5)).chunk_size(10);
/// assert_eq!(quick.map(|x: u64| x + 1, 0..3)?, [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PoolView<'p> {
    options: CallOptions<'p>,
}

impl fmt::Debug for PoolView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolView")
            .field("chunk", &self.options.chunk)
            .field("limit", &self.options.limit)
            .finish_non_exhaustive()
    }
}

impl<'p> PoolView<'p> {
    pub(super) fn new(options: CallOptions<'p>) -> PoolView<'p> {
        PoolView { options }
    }

    /// The same with the number of items in a chunk set by hand; 0 counts as 1.
    #[must_use]
    pub fn chunk_size(self, items: usize) -> PoolView<'p> {
        PoolView::new(self.options.with_chunk_size(items))
    }

    /// The same with a limit for each item, in place of the pool's; see
    /// [`Pool::with_timeout`](super::Pool::with_timeout).
    #[must_use]
    pub fn with_timeout(self, limit: Duration) -> PoolView<'p> {
        PoolView::new(self.options.with_timeout(limit))
    }

    /// The same with a value that every function is given; see [`Pool::with`](super::Pool::with).
    pub fn with<C: Message>(&self, context: C) -> WithContext<'p, C> {
        WithContext::new(self.options.clone(), &context)
    }

    /// As [`Pool::apply`](super::Pool::apply).
    ///
    /// # Errors
    ///
    /// [`TaskError`].
    pub fn apply<F, A>(&self, function: F, arguments: A) -> Result<F::Output, TaskError>
    where
        F: Function<A, Output: Message>,
        A: Message,
    {
        refuse_captures!(function: F);
        self.options.apply::<StarmapStep<F, A>>(&arguments)
    }

    /// As [`Pool::apply_async`](super::Pool::apply_async).
    pub fn apply_async<F, A>(&self, function: F, arguments: A) -> Task<F::Output>
    where
        F: Function<A, Output: Message>,
        A: Message,
    {
        refuse_captures!(function: F);
        self.options.apply_async::<StarmapStep<F, A>>(&arguments)
    }

    /// As [`Pool::try_apply_async`](super::Pool::try_apply_async).
    ///
    /// # Errors
    ///
    /// [`Full`], with the arguments.
    pub fn try_apply_async<F, A>(
        &self,
        function: F,
        arguments: A,
    ) -> Result<Task<F::Output>, Full<A>>
    where
        F: Function<A, Output: Message>,
        A: Message,
    {
        refuse_captures!(F);
        match self.options.full() {
            Some(limit) => Err(Full {
                value: arguments,
                limit,
            }),
            None => Ok(self.apply_async(function, arguments)),
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
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
    {
        refuse_captures!(function: F);
        self.options
            .map::<MapStep<F, A, R>, _>(items.source(Closed))
    }

    /// As [`Pool::map_async`](super::Pool::map_async).
    pub fn map_async<F, A, R, By>(&self, function: F, items: impl Items<A, By>) -> Task<Vec<R>>
    where
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
    {
        refuse_captures!(function: F);
        self.options
            .map_async::<MapStep<F, A, R>, _>(items.source(Closed))
    }

    /// As [`Pool::try_map_async`](super::Pool::try_map_async).
    ///
    /// # Errors
    ///
    /// [`Full`], with the items.
    pub fn try_map_async<F, A, R, By, I>(
        &self,
        function: F,
        items: I,
    ) -> Result<Task<Vec<R>>, Full<I>>
    where
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        refuse_captures!(F);
        match self.options.full() {
            Some(limit) => Err(Full {
                value: items,
                limit,
            }),
            None => Ok(self.map_async(function, items)),
        }
    }

    /// As [`Pool::try_map`](super::Pool::try_map).
    ///
    /// # Errors
    ///
    /// [`TaskError`] if an item before the first error failed.
    pub fn try_map<F, A, R, E, By>(
        &self,
        function: F,
        items: impl Items<A, By>,
    ) -> Result<Result<Vec<R>, E>, TaskError>
    where
        F: MapFunction<A, Result<R, E>>,
        A: Message,
        R: Message,
        E: Message,
    {
        refuse_captures!(function: F);
        let results = self
            .options
            .map::<TryStep<F, A, R, E>, _>(items.source(Closed))?;
        Ok(results.into_iter().collect())
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
        refuse_captures!(function: F);
        self.options
            .map::<StarmapStep<F, A>, _>(tuples.source(Closed))
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
        refuse_captures!(function: F);
        self.options
            .map_async::<StarmapStep<F, A>, _>(tuples.source(Closed))
    }

    /// As [`Pool::imap`](super::Pool::imap).
    pub fn imap<F, A, R, I, By>(&self, function: F, items: I) -> Imap<'p, I::Source, A, R>
    where
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        refuse_captures!(function: F);
        self.options
            .imap::<MapStep<F, A, R>, _>(items.source(Closed), Order::OfItems)
    }

    /// As [`Pool::imap_unordered`](super::Pool::imap_unordered).
    pub fn imap_unordered<F, A, R, I, By>(&self, function: F, items: I) -> Imap<'p, I::Source, A, R>
    where
        F: MapFunction<A, R>,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        refuse_captures!(function: F);
        self.options
            .imap::<MapStep<F, A, R>, _>(items.source(Closed), Order::OfCompletion)
    }
}

/// A pool with a value that every function is given before its item; made by [`Pool::with`](super::Pool::with).
///
/// A function of several arguments takes them as one tuple: `|context: &C, (a, b): (A, B)| ..`.
///
/// # Errors
///
/// Every call ends in [`TaskError::Encode`] or [`TaskError::NoMemory`] if the value could not be sent.
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
pub struct WithContext<'p, C> {
    options: CallOptions<'p>,
    context: PhantomData<fn(C)>,
}

impl<C> fmt::Debug for WithContext<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithContext")
            .field("chunk", &self.options.chunk)
            .field("limit", &self.options.limit)
            .field("refused", &self.options.refused)
            .finish_non_exhaustive()
    }
}

impl<'p, C: Message> WithContext<'p, C> {
    pub(super) fn new(options: CallOptions<'p>, context: &C) -> WithContext<'p, C> {
        let shared = options.shared;
        let place = || {
            let name = [0, shared.next_context()];
            let take = |len| shared.take_patiently(len);
            Context::place(&shared.memory, take, name, context)
        };
        let placed = shared.usable().and_then(|()| place());
        let (context, refused) = match placed {
            Ok(context) => (Some(context), None),
            Err(error) => (None, Some(error)),
        };
        WithContext {
            options: CallOptions {
                context,
                refused,
                ..options
            },
            context: PhantomData,
        }
    }

    /// The same with the number of items in a chunk set by hand; 0 counts as 1.
    #[must_use]
    pub fn chunk_size(self, items: usize) -> WithContext<'p, C> {
        WithContext {
            options: self.options.with_chunk_size(items),
            ..self
        }
    }

    /// The same with a limit for each item, in place of the pool's.
    #[must_use]
    pub fn with_timeout(self, limit: Duration) -> WithContext<'p, C> {
        WithContext {
            options: self.options.with_timeout(limit),
            ..self
        }
    }

    /// As [`Pool::apply`](super::Pool::apply); the function is given the context and the argument.
    ///
    /// # Errors
    ///
    /// [`TaskError`].
    pub fn apply<F, A, R>(&self, function: F, argument: A) -> Result<R, TaskError>
    where
        F: ContextFunction<C, A, R>,
        A: Message,
        R: Message,
    {
        refuse_captures!(function: F);
        self.options.apply::<ContextStep<F, C, A, R>>(&argument)
    }

    /// As [`Pool::apply_async`](super::Pool::apply_async); the function is given the context and the argument.
    pub fn apply_async<F, A, R>(&self, function: F, argument: A) -> Task<R>
    where
        F: ContextFunction<C, A, R>,
        A: Message,
        R: Message,
    {
        refuse_captures!(function: F);
        self.options
            .apply_async::<ContextStep<F, C, A, R>>(&argument)
    }

    /// As [`Pool::map`](super::Pool::map); the function is given the context first.
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
        F: ContextFunction<C, A, R>,
        A: Message,
        R: Message,
    {
        refuse_captures!(function: F);
        self.options
            .map::<ContextStep<F, C, A, R>, _>(items.source(Closed))
    }

    /// As [`Pool::map_async`](super::Pool::map_async); the function is given the context first.
    pub fn map_async<F, A, R, By>(&self, function: F, items: impl Items<A, By>) -> Task<Vec<R>>
    where
        F: ContextFunction<C, A, R>,
        A: Message,
        R: Message,
    {
        refuse_captures!(function: F);
        self.options
            .map_async::<ContextStep<F, C, A, R>, _>(items.source(Closed))
    }

    /// As [`Pool::try_map`](super::Pool::try_map); the function is given the context first.
    ///
    /// # Errors
    ///
    /// [`TaskError`] if an item before the first error failed.
    pub fn try_map<F, A, R, E, By>(
        &self,
        function: F,
        items: impl Items<A, By>,
    ) -> Result<Result<Vec<R>, E>, TaskError>
    where
        F: ContextFunction<C, A, Result<R, E>>,
        A: Message,
        R: Message,
        E: Message,
    {
        refuse_captures!(function: F);
        let results = self
            .options
            .map::<ContextTryStep<F, C, A, R, E>, _>(items.source(Closed))?;
        Ok(results.into_iter().collect())
    }

    /// As [`Pool::try_apply_async`](super::Pool::try_apply_async); the function is given the context and the argument.
    ///
    /// # Errors
    ///
    /// [`Full`], with the argument.
    pub fn try_apply_async<F, A, R>(&self, function: F, argument: A) -> Result<Task<R>, Full<A>>
    where
        F: ContextFunction<C, A, R>,
        A: Message,
        R: Message,
    {
        refuse_captures!(F);
        match self.options.full() {
            Some(limit) => Err(Full {
                value: argument,
                limit,
            }),
            None => Ok(self.apply_async(function, argument)),
        }
    }

    /// As [`Pool::try_map_async`](super::Pool::try_map_async); the function is given the context first.
    ///
    /// # Errors
    ///
    /// [`Full`], with the items.
    pub fn try_map_async<F, A, R, By, I>(
        &self,
        function: F,
        items: I,
    ) -> Result<Task<Vec<R>>, Full<I>>
    where
        F: ContextFunction<C, A, R>,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        refuse_captures!(F);
        match self.options.full() {
            Some(limit) => Err(Full {
                value: items,
                limit,
            }),
            None => Ok(self.map_async(function, items)),
        }
    }

    /// As [`Pool::imap`](super::Pool::imap); the function is given the context first.
    pub fn imap<F, A, R, I, By>(&self, function: F, items: I) -> Imap<'p, I::Source, A, R>
    where
        F: ContextFunction<C, A, R>,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        refuse_captures!(function: F);
        self.options
            .imap::<ContextStep<F, C, A, R>, _>(items.source(Closed), Order::OfItems)
    }

    /// As [`Pool::imap_unordered`](super::Pool::imap_unordered); the function is given the context first.
    pub fn imap_unordered<F, A, R, I, By>(&self, function: F, items: I) -> Imap<'p, I::Source, A, R>
    where
        F: ContextFunction<C, A, R>,
        A: Message,
        R: Message,
        I: Items<A, By>,
    {
        refuse_captures!(function: F);
        self.options
            .imap::<ContextStep<F, C, A, R>, _>(items.source(Closed), Order::OfCompletion)
    }
}
