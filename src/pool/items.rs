//! What a pool's calls take their items from.

use std::fmt;

use super::worker::{Arguments, Encoded, InArray};
use crate::frozen::Frozen;
use crate::message::{Message, PlainData};
use crate::segment::Segment;

/// Items for a pool's calls: anything that can be iterated over; and, by reference, a slice, a `Vec`, an array or
/// a [`Frozen`] of them.
///
/// Items are copied once, from where they are to where workers find them. Those of a [`Frozen`] are not copied at
/// all: workers read them from the array itself. Each keeps the last one mapped.
///
/// `By` is found by the compiler: whether items are given or lent.
///
/// # Examples
///
/// ```
/// let pool = multiproc::Pool::new(2)?;
/// let words = ["one".to_owned(), "three".to_owned()];
/// assert_eq!(pool.map(|word: String| word.len(), &words)?, [3, 5]);
/// let numbers = multiproc::Frozen::from_iter(0..1000_u64)?;
/// assert_eq!(pool.map(|x: u64| x * x, &numbers)?[30], 900);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not give items `{A}` that a pool can send",
    label = "not items for this function",
    note = "items are a `Vec`, a range or any other iterator of what the function takes (tuples, for `starmap`), or `&[T]`, `&Vec<T>`, `&Frozen<T>`",
    note = "the function takes its items by value: `String` and not `&str`",
    note = "each item is sent: a type of your own needs `#[derive(serde::Serialize, serde::Deserialize)]`"
)]
pub trait Items<A, By = Value> {
    /// What gives them a few at a time: names the type of [`Imap`](crate::Imap).
    type Source: Source<A>;

    /// Gives them a few at a time.
    #[doc(hidden)]
    fn source(self, _: Closed) -> Self::Source;
}

/// Gives items a few at a time, in order.
pub trait Source<A> {
    /// How workers get them.
    type Arguments: Arguments<A>;

    /// The next items: at most so many, and fewer only if these are the last.
    fn peek(&mut self, most: usize) -> &[A];

    /// The first so many of those have been taken.
    fn advance(&mut self, taken: usize);

    /// Asks again for items after there seemed to be no more.
    fn ask_again(&mut self) {}

    /// How many are left, as an iterator says it.
    fn size_hint(&self) -> (usize, Option<usize>);

    /// The array that all of them lie in, if workers read them from there.
    fn array(&self) -> Option<&Segment> {
        None
    }
}

/// Named by nobody else, so that nobody else writes or calls [`Items::source`].
#[derive(Debug)]
pub struct Closed;

/// Items are given.
#[derive(Debug)]
pub struct Value;

/// Items are lent.
#[derive(Debug)]
pub struct Reference;

#[diagnostic::do_not_recommend]
impl<A: Message, I: IntoIterator<Item = A>> Items<A> for I {
    type Source = Read<I::IntoIter>;

    fn source(self, _: Closed) -> Read<I::IntoIter> {
        Read {
            items: self.into_iter(),
            is_over: false,
            read: Vec::new(),
            taken: 0,
        }
    }
}

impl<'a, A: Message> Items<A, Reference> for &'a [A] {
    type Source = Borrowed<'a, A>;

    fn source(self, _: Closed) -> Borrowed<'a, A> {
        Borrowed(self)
    }
}

impl<'a, A: Message> Items<A, Reference> for &'a Vec<A> {
    type Source = Borrowed<'a, A>;

    fn source(self, _: Closed) -> Borrowed<'a, A> {
        Borrowed(self)
    }
}

impl<'a, A: Message, const N: usize> Items<A, Reference> for &'a [A; N] {
    type Source = Borrowed<'a, A>;

    fn source(self, _: Closed) -> Borrowed<'a, A> {
        Borrowed(self)
    }
}

impl<'a, A: PlainData> Items<A, Reference> for &'a Frozen<A> {
    type Source = Shared<'a, A>;

    fn source(self, _: Closed) -> Shared<'a, A> {
        Shared {
            items: self,
            array: self.segment(),
        }
    }
}

/// Items of an iterator.
pub struct Read<I: Iterator> {
    items: I,
    is_over: bool,
    /// Read from the iterator; the first of them have been taken.
    read: Vec<I::Item>,
    taken: usize,
}

impl<I: Iterator> fmt::Debug for Read<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Read")
    }
}

impl<I: Iterator<Item: Message>> Source<I::Item> for Read<I> {
    type Arguments = Encoded;

    fn peek(&mut self, most: usize) -> &[I::Item] {
        if self.taken == self.read.len() {
            self.read.clear();
            self.taken = 0;
        }
        let more = most.saturating_sub(self.read.len() - self.taken);
        if more > 0 && !self.is_over {
            let before = self.read.len();
            self.read.extend(self.items.by_ref().take(more));
            self.is_over = self.read.len() - before < more;
        }
        let rest = &self.read[self.taken..];
        &rest[..most.min(rest.len())]
    }

    fn advance(&mut self, taken: usize) {
        self.taken += taken;
    }

    fn ask_again(&mut self) {
        self.is_over = false;
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let read = self.read.len() - self.taken;
        if self.is_over {
            return (read, Some(read));
        }
        let (least, most) = self.items.size_hint();
        let most = most.and_then(|most| most.checked_add(read));
        (least.saturating_add(read), most)
    }
}

/// Items of a slice.
#[derive(Debug)]
pub struct Borrowed<'a, A>(&'a [A]);

impl<A: Message> Source<A> for Borrowed<'_, A> {
    type Arguments = Encoded;

    fn peek(&mut self, most: usize) -> &[A] {
        &self.0[..most.min(self.0.len())]
    }

    fn advance(&mut self, taken: usize) {
        self.0 = &self.0[taken..];
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

/// Items of a frozen array.
#[derive(Debug)]
pub struct Shared<'a, A> {
    items: &'a [A],
    array: &'a Segment,
}

impl<A: PlainData> Source<A> for Shared<'_, A> {
    type Arguments = InArray<A>;

    fn peek(&mut self, most: usize) -> &[A] {
        &self.items[..most.min(self.items.len())]
    }

    fn advance(&mut self, taken: usize) {
        self.items = &self.items[taken..];
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.items.len(), Some(self.items.len()))
    }

    fn array(&self) -> Option<&Segment> {
        Some(self.array)
    }
}
