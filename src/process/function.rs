//! What may be run in another process: functions of no size, with a tuple of arguments.

use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use super::control::Report;
use super::task::{Body, function};
use crate::error::whole;
use crate::handle::{self, Passed, Transport};
use crate::message::{self, EncodeError, Message};

/// A function that another process can run: a `fn` item, or a closure that captures nothing.
///
/// `A` is the tuple of its arguments, at most eight. The function itself does not travel: the other
/// process runs the same program and finds the function in its own copy. Therefore it must have no size;
/// what a closure would capture is passed as an argument.
///
/// # Captured values
///
/// A closure that captures values of no size (`()`, `PhantomData`, a unit struct) has no size either, and
/// no compiler tells it from one that captures nothing. It is accepted, and **the other process makes the
/// captured values out of nothing**: no constructor of theirs runs there, and how many there may be is not
/// asked. This matters only to a type whose mere existence proves something, such as a token that a
/// function returns once it has set something up. Here that something has not happened. Such a type is
/// safe from this if it is not `Copy`, not `Send` or not `Sync`, or borrows something, for then no closure
/// that captures it is a `Function`; a type that is all of these must not let `unsafe` code rely on its
/// existence. Refused when compiling are captured values with a size, those of a type that has no values,
/// and those that ask for an alignment.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function that another process can call with the arguments `{A}`",
    label = "function and arguments do not fit",
    note = "arguments are a tuple of at most eight, also one, `(a,)`, and none, `()`: more go into a struct",
    note = "the function takes them by value and keeps no reference: `String` and not `&str`, `Vec<T>` and not `&[T]`",
    note = "it captures nothing: what it needs is one more argument"
)]
pub trait Function<A>: Copy + Send + Sync + 'static + closed::Closed<A> {
    /// What it returns.
    type Output;

    /// Calls it.
    fn call(self, arguments: A) -> Self::Output;
}

/// Nobody else can write what is not public.
mod closed {
    pub trait Closed<A> {}
}

macro_rules! functions {
    ($($argument:ident)*) => {
        impl<F, R, $($argument),*> closed::Closed<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Copy + Send + Sync + 'static,
        {
        }

        #[diagnostic::do_not_recommend]
        impl<F, R, $($argument),*> Function<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Copy + Send + Sync + 'static,
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn call(self, ($($argument,)*): ($($argument,)*)) -> R {
                self($($argument),*)
            }
        }
    };
}

functions!();
functions!(A);
functions!(A B);
functions!(A B C);
functions!(A B C D);
functions!(A B C D E);
functions!(A B C D E G);
functions!(A B C D E G H);
functions!(A B C D E G H I);

/// A function that a pool can call with each item `A`, and that returns `R`: a `fn` item, or a closure that
/// captures nothing.
///
/// Every such function is one. What is said of captured values at [`Function`] is true of these too.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function that a pool can call with items `{A}`",
    label = "not a function of one item that captures nothing",
    note = "it captures nothing: what all calls need is given by `pool.with(value)`, and comes as `|value: &V, item| ..`",
    note = "it takes one item by value (`String` and not `&str`); items that are tuples are for `starmap`"
)]
pub trait MapFunction<A, R>: Fn(A) -> R + Copy + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<F, A, R> MapFunction<A, R> for F where F: Fn(A) -> R + Copy + Send + Sync + 'static {}

/// A function that a pool can call with a context `C`, by reference, and each item `A`; see
/// [`Pool::with`](crate::Pool::with).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function that a pool can call with the context `&{C}` and items `{A}`",
    label = "not a function of a context and one item that captures nothing",
    note = "it takes the context by reference and one item by value, `|context: &C, item: A| ..`, and captures nothing"
)]
pub trait ContextFunction<C, A, R>: Fn(&C, A) -> R + Copy + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<F, C, A, R> ContextFunction<C, A, R> for F where
    F: Fn(&C, A) -> R + Copy + Send + Sync + 'static
{
}

/// A call of `F` with arguments `A`, as the other process makes it.
pub(crate) struct Call<F, A>(PhantomData<fn(A) -> F>);

/// What a call works on in the child.
pub(crate) struct Exchange {
    pub(crate) arguments: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Tells the parent that the handles among the arguments are taken.
    pub(crate) began: fn(),
    pub(crate) answer: Answer,
}

/// What comes of a call.
pub(crate) enum Answer {
    None,
    Returned(Vec<u8>, Passed),
    Failed(Report),
}

impl<F, A> Body for Call<F, A>
where
    F: Function<A>,
    A: Message,
    F::Output: Message,
{
    type Port = Exchange;

    fn run(exchange: &mut Exchange) {
        let descriptors = std::mem::take(&mut exchange.descriptors);
        let has_handles = !descriptors.is_empty();
        let bytes = std::mem::take(&mut exchange.arguments);
        let decoded = handle::with_descriptors(descriptors, || {
            // What its own parent gives it may have a name.
            handle::with_names(true, || message::decode::<A>(&bytes))
        });
        drop(bytes);
        let arguments = match decoded {
            Ok(Ok(arguments)) => arguments,
            Ok(Err(error)) => return exchange.fail(Report::BadArguments(whole(&error))),
            Err(error) => return exchange.fail(Report::BadArguments(whole(&error))),
        };
        if has_handles {
            (exchange.began)();
        }
        let result = function::<F>().call(arguments);
        exchange.answer = match encode(&result) {
            Ok((bytes, passed)) => Answer::Returned(bytes, passed),
            Err(error) => Answer::Failed(Report::BadResult(whole(&error))),
        };
    }
}

impl Exchange {
    fn fail(&mut self, report: Report) {
        self.answer = Answer::Failed(report);
    }
}

/// The bytes of a message for the socket, and the segments named in it.
pub(crate) fn encode<T: Message>(value: &T) -> Result<(Vec<u8>, Passed), EncodeError> {
    let mut bytes = Vec::new();
    let (encoded, passed) =
        handle::collect(Transport::Socket, || message::encode(value, &mut bytes));
    encoded.map(|_| (bytes, passed))
}
