//! What is done with each item.

use std::marker::PhantomData;

use crate::message::Message;
use crate::process::{ContextFunction, Function, MapFunction, task};

/// What is done with each item.
pub(super) trait Step: 'static {
    type Context: Message;
    type In: Message;
    type Out: Message;

    fn step(context: &Self::Context, item: Self::In) -> Self::Out;

    /// Whether this result ends the call: no later item need be begun.
    #[inline(always)]
    fn is_last(_: &Self::Out) -> bool {
        false
    }

    /// The name of the function, for people.
    fn function() -> &'static str;
}

/// A function of one argument.
pub(super) struct MapStep<F, A, R>(PhantomData<(F, A, R)>);

impl<F, A, R> Step for MapStep<F, A, R>
where
    F: MapFunction<A, R>,
    A: Message,
    R: Message,
{
    type Context = ();
    type In = A;
    type Out = R;

    #[inline(always)]
    fn step(_: &(), item: A) -> R {
        task::function::<F>()(item)
    }

    fn function() -> &'static str {
        std::any::type_name::<F>()
    }
}

/// A function of one argument whose first error ends the call.
pub(super) struct TryStep<F, A, R, E>(PhantomData<(F, A, R, E)>);

impl<F, A, R, E> Step for TryStep<F, A, R, E>
where
    F: MapFunction<A, Result<R, E>>,
    A: Message,
    R: Message,
    E: Message,
{
    type Context = ();
    type In = A;
    type Out = Result<R, E>;

    #[inline(always)]
    fn step(_: &(), item: A) -> Result<R, E> {
        task::function::<F>()(item)
    }

    #[inline(always)]
    fn is_last(result: &Result<R, E>) -> bool {
        result.is_err()
    }

    fn function() -> &'static str {
        std::any::type_name::<F>()
    }
}

/// A function of a tuple of arguments.
pub(super) struct StarmapStep<F, A>(PhantomData<fn(A) -> F>);

impl<F, A> Step for StarmapStep<F, A>
where
    F: Function<A, Output: Message>,
    A: Message,
{
    type Context = ();
    type In = A;
    type Out = F::Output;

    #[inline(always)]
    fn step(_: &(), item: A) -> F::Output {
        task::function::<F>().call(item)
    }

    fn function() -> &'static str {
        std::any::type_name::<F>()
    }
}

/// A function of a context and one argument.
pub(super) struct ContextStep<F, C, A, R>(PhantomData<(F, C, A, R)>);

impl<F, C, A, R> Step for ContextStep<F, C, A, R>
where
    F: ContextFunction<C, A, R>,
    C: Message,
    A: Message,
    R: Message,
{
    type Context = C;
    type In = A;
    type Out = R;

    #[inline(always)]
    fn step(context: &C, item: A) -> R {
        task::function::<F>()(context, item)
    }

    fn function() -> &'static str {
        std::any::type_name::<F>()
    }
}

/// The same, of a function whose first error ends the call.
pub(super) struct ContextTryStep<F, C, A, R, E>(PhantomData<(F, C, A, R, E)>);

impl<F, C, A, R, E> Step for ContextTryStep<F, C, A, R, E>
where
    F: ContextFunction<C, A, Result<R, E>>,
    C: Message,
    A: Message,
    R: Message,
    E: Message,
{
    type Context = C;
    type In = A;
    type Out = Result<R, E>;

    #[inline(always)]
    fn step(context: &C, item: A) -> Result<R, E> {
        task::function::<F>()(context, item)
    }

    #[inline(always)]
    fn is_last(result: &Result<R, E>) -> bool {
        result.is_err()
    }

    fn function() -> &'static str {
        std::any::type_name::<F>()
    }
}
