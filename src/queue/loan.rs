//! Borrowing a message where it lies: a loan while it is written, a lease while it is read.
//!
//! # Why this file may use `unsafe`
//!
//! It borrows the bytes of one block. Two tokens allow that, neither of which can be cloned: a `Claim`,
//! because it exists only between the compare-and-swap that put this end's number into the block's state
//! and the one that takes it out, and between them no end of the queue touches the block; and the
//! exclusive borrow of a `Sender` whose next block is free, because only that sender allots the blocks of
//! its lane and only an allotted block is ever claimed. Every type that is made of the bytes is valid for
//! any bits ([`AnyBitPattern`]), so what an earlier message left there is a value.
//!
//! That holds for whoever keeps to the protocol, which nothing enforces: it is *assumed* of the
//! processes of the tree, all of which run this very program and reach the block through this file
//! alone. Against one that has come to write elsewhere than its code says, a borrow is no
//! protection (`docs::trust`). Other trees may have the memory of a *named* queue, of them nothing
//! is assumed, so nothing there is borrowed: a loan and a lease are private copies ([`Copied`]).
//! And bytes that the type's own code, or any check, is to look at are copied in every queue.

#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};

use crate::error::{Corrupt, RecvError};
use crate::handle;
use crate::kin;
use crate::message::{self, DecodeError, Message, Plain};

use super::Waiting;
use super::claim::Claim;
use super::error::LoanError;
use super::plan::ALIGNED;
use super::sender::Sender;

/// A type whose messages are written and read in place: a number, a [`Plain`] value, a `Vec` of numbers.
///
/// Sealed: there are no others. [`View`](InPlace::View) is what a [`Loan`] and a [`Lease`] give access to.
#[diagnostic::on_unimplemented(
    message = "messages of `{Self}` cannot be written in place",
    label = "neither a number, nor `Plain`, nor a `Vec` of numbers",
    note = "send it with `send`, or keep it as plain data: `multiproc::Plain<T>`, or a `Vec` of numbers"
)]
pub trait InPlace: Message + sealed::Sealed {
    /// The value itself, or a slice.
    type View: ?Sized;

    /// Bytes of the value, or of one element; and whether it is a slice.
    #[doc(hidden)]
    const UNIT: (usize, bool);

    #[doc(hidden)]
    fn view(bytes: &[u8]) -> &Self::View;

    #[doc(hidden)]
    fn view_mut(bytes: &mut [u8]) -> &mut Self::View;
}

mod sealed {
    #[doc(hidden)]
    pub trait Sealed {}
}

macro_rules! value {
    ([$($of:tt)*] $ty:ty => $view:ty) => {
        impl<$($of)*> sealed::Sealed for $ty {}

        impl<$($of)*> InPlace for $ty {
            type View = $view;
            const UNIT: (usize, bool) = {
                assert!(align_of::<$view>() <= ALIGNED, "messages in place are aligned to 128 bytes at most");
                (size_of::<$view>(), false)
            };

            #[inline]
            fn view(bytes: &[u8]) -> &$view {
                bytemuck::from_bytes(bytes)
            }

            #[inline]
            fn view_mut(bytes: &mut [u8]) -> &mut $view {
                bytemuck::from_bytes_mut(bytes)
            }
        }
    };
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        value!([] $number => $number);

        impl sealed::Sealed for Vec<$number> {}

        impl InPlace for Vec<$number> {
            type View = [$number];
            const UNIT: (usize, bool) = (size_of::<$number>(), true);

            #[inline]
            fn view(bytes: &[u8]) -> &[$number] {
                bytemuck::cast_slice(bytes)
            }

            #[inline]
            fn view_mut(bytes: &mut [u8]) -> &mut [$number] {
                bytemuck::cast_slice_mut(bytes)
            }
        }
    )*};
}

value!([P: NoUninit + AnyBitPattern] Plain<P> => P);
numbers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);

/// A private copy of a block, as well aligned as the block.
struct Copied(Vec<Line>);

#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C, align(128))]
struct Line([u8; ALIGNED]);

impl Copied {
    /// Zeroes.
    fn blank(length: usize) -> Copied {
        Copied(vec![Line::zeroed(); length.div_ceil(ALIGNED)])
    }

    /// What a held block holds, if it must not or cannot be borrowed.
    fn of<T: Message>(claim: &Claim, length: usize) -> Result<Option<Copied>, Corrupt> {
        if !claim.is_long() && !claim.lane().blocks.segment().is_named() {
            return Ok(None);
        }
        // A value of fixed size is read whole, whatever the length says.
        let length = length.max(message::fixed_size::<T>().unwrap_or(0));
        let mut copy = Copied::blank(length);
        claim.copy_out(&mut copy.bytes_mut()[..length])?;
        Ok(Some(copy))
    }

    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// A message being written where its receiver will read it; see [`Sender::loan`].
///
/// What lies there at first is what an earlier message left, or zeroes. [`commit`](Loan::commit) sends it; a
/// loan that is dropped is as if it had never been.
#[must_use = "a loan that is not committed sends nothing"]
pub struct Loan<'a, T: InPlace> {
    sender: &'a mut Sender<T>,
    /// Bytes of the message.
    length: usize,
    copy: Option<Copied>,
}

// As at `Queue`: the bounds stand at the functions.
impl<T: Message> Sender<T> {
    /// Borrows the place of the next message, to be filled and committed; waits while there is none.
    ///
    /// Nothing is copied, unless the queue has a name, so its speed does not depend on the size. A
    /// `Vec` gives a slice as long as a message may be; [`Loan::truncate`] makes it shorter.
    ///
    /// # Errors
    ///
    /// [`LoanError::Closed`] when no receiver is left, [`LoanError::NotInPlace`] when the queue was not
    /// built with `in_place`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc::{Plain, Queue};
    /// let (mut tx, mut rx) = Queue::<Plain<[f64; 32]>>::builder().in_place(4).build()?;
    /// let mut loan = tx.loan()?;
    /// loan[7] = 0.5;
    /// loan.commit()?;
    /// assert_eq!(rx.lease()?[7], 0.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn loan(&mut self) -> Result<Loan<'_, T>, LoanError>
    where
        T: InPlace,
    {
        self.loan_within(Waiting::Until(None))
    }

    /// Borrows the place of the next message if there is one now.
    ///
    /// # Errors
    ///
    /// [`LoanError::Full`] when there is none, else as [`loan`](Sender::loan).
    pub fn try_loan(&mut self) -> Result<Loan<'_, T>, LoanError>
    where
        T: InPlace,
    {
        self.loan_within(Waiting::Not)
    }

    /// Borrows the place of the next message; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`LoanError::TimedOut`] when there was none in that time, else as [`loan`](Sender::loan).
    pub fn loan_timeout(&mut self, timeout: Duration) -> Result<Loan<'_, T>, LoanError>
    where
        T: InPlace,
    {
        self.loan_within(Waiting::at_most(timeout))
    }

    #[inline]
    fn loan_within(&mut self, waiting: Waiting) -> Result<Loan<'_, T>, LoanError>
    where
        T: InPlace,
    {
        if !self.hub().is_in_place() {
            return Err(LoanError::NotInPlace);
        }
        self.ready(|| waiting)?;
        let limit = self.hub().plan.message_size;
        let length = match T::UNIT {
            (unit, true) => limit - limit % unit,
            (unit, false) => unit,
        };
        let named = self.hub().segment.is_named();
        Ok(Loan {
            sender: self,
            length,
            copy: named.then(|| Copied::blank(length)),
        })
    }
}

impl<T: InPlace> Loan<'_, T> {
    /// Sends the message.
    ///
    /// # Errors
    ///
    /// [`LoanError::Closed`] when no receiver is left.
    #[inline]
    pub fn commit(self) -> Result<(), LoanError> {
        if kin::forked() {
            return Err(LoanError::Forked);
        }
        if !self.sender.hub().is_open() {
            return Err(LoanError::Closed);
        }
        let Loan {
            sender,
            length,
            copy,
        } = self;
        if let Some(copy) = copy {
            sender.fill_block(&copy.bytes()[..length]);
        }
        sender.publish_block(length as u64);
        Ok(())
    }
}

macro_rules! truncate {
    ($($number:ty)*) => {$(
        impl Loan<'_, Vec<$number>> {
            /// Makes the message shorter: its first `len` elements.
            ///
            /// No effect if it is not longer.
            pub fn truncate(&mut self, len: usize) {
                self.length = self.length.min(len.saturating_mul(size_of::<$number>()));
            }
        }
    )*};
}
truncate!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);

impl<T: InPlace> Deref for Loan<'_, T> {
    type Target = T::View;

    #[inline]
    fn deref(&self) -> &T::View {
        if let Some(copy) = &self.copy {
            return T::view(&copy.bytes()[..self.length]);
        }
        let at = self.sender.next_block();
        // SAFETY: because this loan borrows the sender of the lane exclusively and was made when
        // the block was free, no end of the queue touches the block until `commit`, and as the
        // queue has no name there are no others (see the head of this file); `Bytes::at` checks
        // that the range lies inside the mapping.
        let bytes = unsafe { std::slice::from_raw_parts(at.cast_const(), self.length) };
        T::view(bytes)
    }
}

impl<T: InPlace> DerefMut for Loan<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T::View {
        if let Some(copy) = &mut self.copy {
            return T::view_mut(&mut copy.bytes_mut()[..self.length]);
        }
        let at = self.sender.next_block();
        // SAFETY: as in `deref`; `self` is borrowed exclusively, so there is one reference at a time.
        let bytes = unsafe { std::slice::from_raw_parts_mut(at, self.length) };
        T::view_mut(bytes)
    }
}

impl<T: InPlace> fmt::Debug for Loan<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// A message read where its sender wrote it; see [`Receiver::lease`](super::Receiver::lease).
///
/// [`ack`](Lease::ack) ends it. A lease that is dropped without, or whose process dies, goes to another
/// receiver; not without end, if they die or panic: see
/// [`delivery_limit`](crate::QueueBuilder::delivery_limit).
#[must_use = "a lease that is dropped goes to another receiver"]
pub struct Lease<T> {
    claim: Claim,
    /// Bytes of the message, checked against the block.
    length: usize,
    copy: Option<Copied>,
    _value: PhantomData<fn() -> T>,
}

impl<T: Message> Lease<T> {
    #[inline]
    pub(super) fn of(claim: Claim) -> Result<Lease<T>, RecvError> {
        let found = claim.length();
        let found = found.and_then(|length| Ok((length, Copied::of::<T>(&claim, length)?)));
        match found {
            Ok((length, copy)) => Ok(Lease {
                copy,
                claim,
                length,
                _value: PhantomData,
            }),
            Err(corrupt) => {
                // To hand it on would only let others fail as well.
                claim.finish();
                Err(corrupt.into())
            }
        }
    }

    /// Whether another receiver had the message before and did not finish with it.
    pub fn redelivered(&self) -> bool {
        self.claim.is_again()
    }

    /// Receivers that have died, or panicked, with this message leased; see
    /// [`delivery_limit`](crate::QueueBuilder::delivery_limit).
    pub fn failures(&self) -> u32 {
        self.claim.failures()
    }

    /// Done: the message will not be received again, its place is the sender's.
    #[doc(alias = "task_done")]
    #[inline]
    pub fn ack(self) {
        self.claim.finish();
    }

    /// A copy of the message as a value: for types that cannot be borrowed in place.
    ///
    /// # Errors
    ///
    /// When the bytes are not a value of the type.
    pub fn read(&self) -> Result<T, DecodeError> {
        let is_named = self.claim.lane().blocks.segment().is_named();
        handle::with_names(is_named, || {
            if let Some(copy) = &self.copy {
                return message::decode(&copy.bytes()[..self.length]);
            }
            // What the type's own code sees is private memory, so that nobody can change it under
            // its eyes.
            let (blocks, at) = (&self.claim.lane().blocks, self.claim.at());
            message::read_from(blocks, at, self.length).unwrap_or_else(|| {
                let mut bytes = Vec::new();
                blocks.append_to(at, self.length, &mut bytes);
                message::decode(&bytes)
            })
        })
    }

    #[inline]
    fn bytes(&self, length: usize) -> &[u8] {
        match &self.copy {
            Some(copy) => &copy.bytes()[..length],
            None => bytes(&self.claim, length),
        }
    }
}

impl<T: InPlace> Lease<T> {
    /// The message.
    #[inline]
    pub fn get(&self) -> &T::View {
        let length = match T::UNIT {
            (unit, true) => self.length - self.length % unit,
            // Every block has room for a value, and any bits are one.
            (unit, false) => unit,
        };
        T::view(self.bytes(length))
    }
}

impl<T: InPlace> Deref for Lease<T> {
    type Target = T::View;

    #[inline]
    fn deref(&self) -> &T::View {
        self.get()
    }
}

impl<T> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("length", &self.length)
            .field("redelivered", &self.claim.is_again())
            .finish_non_exhaustive()
    }
}

/// The first `length` bytes of a held block of a queue without a name.
#[inline]
fn bytes(claim: &Claim, length: usize) -> &[u8] {
    let at = claim.lane().blocks.at(claim.at(), length);
    // SAFETY: because the claim holds the block, no end of the queue writes it until the claim is
    // finished or dropped, which ends the borrow first, and as the queue has no name there are no
    // others (see the head of this file); `Bytes::at` checks that the range lies inside the
    // mapping.
    unsafe { std::slice::from_raw_parts(at.cast_const(), length) }
}
