//! What a panic may be caught over: all of it, as with the standard library's locks, channels and threads.
//!
//! A panic may unwind from any call that runs code of the user's: an iterator, a `Serialize`, a `Deserialize`, a
//! closure that builds. Each of those calls leaves what it works on as if it had not been made, or as after a death
//! (which may come at any instruction, so there is no moment at which these are half changed for those who come
//! after): a batch publishes what was taken, a message that panics while it is read is consumed, a guard that is
//! dropped by a panic leaves its lock abandoned. The `panic` rows in the tests of each part look at that.
//!
//! They are stated here because most hold a `dyn` of this crate or a cell, for which the compiler assumes the worst.

use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::frozen::Frozen;
use crate::lock::{Guard, Lock};
use crate::pipe::{Listener, PipeEnd};
use crate::pool::{Imap, Pool, PoolBuilder, PoolView, Task, WithContext};
use crate::process::Child;
use crate::queue::{InPlace, Iter, Lease, Loan, Receiver, Sender};
use crate::segment::Segment;

macro_rules! whole_after_a_panic {
    ($([$($generics:tt)*] $type:ty;)*) => {
        $(
            impl<$($generics)*> UnwindSafe for $type {}
            impl<$($generics)*> RefUnwindSafe for $type {}
        )*
    };
}

// What gives the items is the user's.
impl<I: UnwindSafe, A, R> UnwindSafe for Imap<'_, I, A, R> {}
impl<I: RefUnwindSafe, A, R> RefUnwindSafe for Imap<'_, I, A, R> {}

whole_after_a_panic! {
    [T] Sender<T>;
    [T] Receiver<T>;
    [T] Iter<'_, T>;
    [T: InPlace] Loan<'_, T>;
    [T] Lease<T>;
    [Up, Down] PipeEnd<Up, Down>;
    [Up, Down] Listener<Up, Down>;
    [T] Lock<T>;
    [T] Guard<'_, T>;
    [T] Frozen<T>;
    [] Segment;
    [R] Child<R>;
    [] Pool;
    [] PoolBuilder;
    [] PoolView<'_>;
    [C] WithContext<'_, C>;
    [R] Task<R>;
}
