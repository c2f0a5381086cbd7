//! Mutual exclusion between processes, around a value in shared memory.
//!
//! # Why this file may use `unsafe`
//!
//! It borrows the value of a lock from shared memory. A [`Guard`] is made only by entering the
//! lock, and leaves it when it is dropped; all processes that have a lock without a name are of one
//! tree, run this very program and reach the value through this file alone, so while a guard exists
//! nobody else reads or writes the value.
//!
//! That the others do so is *assumed*, of the processes of one tree and of nobody else: the lock's
//! word excludes those who look at it, and nothing keeps a process from writing to memory that it
//! has mapped for writing. Against one that does, a guard is no protection (`docs::trust`). It also
//! assumes that this process is not taken for dead while it lives, which its own closing of our
//! descriptors can bring about (`docs::death`).
//!
//! A *named* lock may be had by programs of other trees, of which nothing is assumed, so its value
//! is never borrowed: its guard holds a checked copy (in [`Apart`]), made before anybody sees the
//! guard.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::panicking;
use std::time::Duration;

use bytemuck::{CheckedBitPattern, NoUninit, bytes_of, checked};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Corrupt, SegmentError};
use crate::handle;
use crate::kin::{self, Kin};
use crate::latch::{Left, Limit, Refused, Visitor};
use crate::layout::{HEADER, LatchWords};
use crate::message;
use crate::named;
use crate::roster::Life;
use crate::segment::{Bytes, Commit, Segment, View};

/// Mutual exclusion between processes, around a value in shared memory.
///
/// At most one thread of one process is inside at a time, and whoever is inside sees everything that was done
/// inside before. A clone is another handle to the same lock; so is a `Lock` that arrives inside a message or an
/// argument, in any process of the same tree. The value lives until the last handle is gone.
///
/// The value is plain data: bytemuck's [`NoUninit`] and [`CheckedBitPattern`], both by derive. `Lock<()>` is a
/// bare lock. A small value shares the cache line of the lock's own word, so that entering brings it along.
///
/// Entering is not fair: who asks while the lock is being handed over may get in first. A thread that forgets
/// its guard ([`std::mem::forget`]), or ends while it is kept alive elsewhere, stays inside until its process
/// ends.
///
/// A lock with a name ([`create`](Lock::create), [`open`](Lock::open)) is shared with other programs of this user.
/// Since they could write to its memory at any time, its guard works on a copy of the value, checked on the way in and
/// written back when the lock is left; a program that breaks the rules can give wrong values, nothing worse. A
/// guard dropped by a panic writes nothing back.
///
/// # If a process dies
///
/// A process killed inside, at any instruction, is *proven* dead by the kernel; then the next one to ask gets in,
/// is told with [`LockError::Abandoned`], and decides what the half-changed value is worth. That takes
/// microseconds once a process of the tree has reaped the dead one, otherwise up to 20 ms. A process that is only
/// stopped keeps the lock. No lock is ever taken from the living, however long they stay inside; but the proof
/// is lost by a process that closes a copy of a descriptor of this crate's, or runs as root (for a lock with a name:
/// as its user) and opens and closes the file behind one anew (see [`docs::limits`](crate::docs::limits)).
///
/// # Examples
///
/// ```
/// use multiproc::{Lock, LockError};
///
/// let counter = Lock::new(0u64)?;
/// *counter.lock()? += 1;
///
/// // Somebody ends in the middle: here a thread, by a panic; it could be another process, killed.
/// let other = counter.clone();
/// let ended = std::thread::spawn(move || {
///     let mut number = other.lock().unwrap();
///     *number = 999;
///     panic!("half done");
/// });
/// assert!(ended.join().is_err());
///
/// match counter.lock() {
///     Ok(_) => unreachable!("the last one inside did not finish"),
///     Err(LockError::Abandoned(abandoned)) => *abandoned.recover() = 1,
///     Err(other) => return Err(other.into()),
/// };
/// assert_eq!(*counter.lock()?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("Mutex", "RLock", "Value", "Semaphore"))]
pub struct Lock<T> {
    words: View<LatchWords>,
    value: Bytes,
    kin: &'static Kin,
    me: u32,
    named: bool,
    of: PhantomData<T>,
}

impl<T: NoUninit + CheckedBitPattern> Lock<T> {
    /// Bytes from the lock's words to its value: right behind them, where the value's alignment allows.
    const VALUE: u64 = {
        assert!(
            align_of::<T>() <= 4096,
            "a locked value is aligned to a page at most"
        );
        ((HEADER + size_of::<LatchWords>()).next_multiple_of(align_of::<T>()) - HEADER) as u64
    };

    /// Bytes of the words and the value.
    const BYTES: u64 = Self::VALUE + size_of::<T>() as u64;

    /// A new lock around `value`, free.
    ///
    /// # Errors
    ///
    /// As [`Segment::new`].
    pub fn new(value: T) -> Result<Lock<T>, SegmentError> {
        let segment = Segment::build("lock", &shape::<T>(), Self::BYTES, Commit::All)?;
        Lock::fill(segment, value)
    }

    /// A new lock of that name around `value`, free, which other programs of this user [`open`](Lock::open).
    ///
    /// # Errors
    ///
    /// As [`Segment::create`].
    ///
    /// # If a process dies
    ///
    /// The lock lives as long as any process has it. When none is left, killed or not, the name is free for the
    /// next.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::Lock;
    /// # let name = &format!("doc-lock-{}", std::process::id());
    ///
    /// let visits = Lock::create(name, 0u64)?;
    /// // In another program:
    /// let opened = Lock::<u64>::open(name)?;
    /// *opened.lock()? += 1;
    ///
    /// assert_eq!(*visits.lock()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(name: &str, value: T) -> Result<Lock<T>, SegmentError> {
        let (shape, deadline) = (shape::<T>(), named::patience());
        named::create(
            name,
            &shape,
            Self::BYTES,
            Commit::All,
            deadline,
            |segment| Lock::fill(segment.clone(), value),
        )
    }

    /// The lock that a living process has under that name.
    ///
    /// # Errors
    ///
    /// As [`Segment::open`]; [`SegmentError::WrongShape`] when its value is of another type.
    pub fn open(name: &str) -> Result<Lock<T>, SegmentError> {
        Lock::attach(named::open(name, named::patience())?)
    }

    /// The lock of that name, or a new one around `value` when no living process has it.
    ///
    /// Of any number of processes that call this at once, one makes the lock.
    ///
    /// # Errors
    ///
    /// As [`create`](Lock::create) and [`open`](Lock::open), but for `AlreadyExists` and `NotFound`.
    pub fn open_or_create(name: &str, value: T) -> Result<Lock<T>, SegmentError> {
        named::open_or_create(
            name,
            &shape::<T>(),
            Self::BYTES,
            Commit::All,
            Lock::attach,
            |segment| Lock::fill(segment.clone(), value),
        )
    }

    /// The lock that a new segment will hold.
    fn fill(segment: Segment, value: T) -> Result<Lock<T>, SegmentError> {
        let lock = Lock::attach(segment)?;
        lock.value.copy_in(0, bytes_of(&value));
        Ok(lock)
    }

    /// The lock that a segment holds.
    fn attach(segment: Segment) -> Result<Lock<T>, SegmentError> {
        segment.expect(&shape::<T>())?;
        Ok(Lock {
            words: segment.view(0)?,
            value: segment.bytes(Self::VALUE, size_of::<T>() as u64)?,
            kin: kin::kin()?,
            me: segment.life().me(),
            named: segment.is_named(),
            of: PhantomData,
        })
    }

    /// Enters the lock.
    ///
    /// # Blocking
    ///
    /// Waits for whoever is inside: first awake for some microseconds, then asleep. Ends when they leave or die.
    ///
    /// # Errors
    ///
    /// [`LockError::Abandoned`] when the last one inside did not finish: the lock is yours all the same.
    /// [`LockError::Deadlock`] when this very thread is inside.
    /// [`LockError::Corrupt`], [`LockError::Forked`], [`LockError::Evicted`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = multiproc::Lock::new([1u32, 2])?;
    /// let mut guard = pair.lock()?;
    /// guard.swap(0, 1);
    /// assert_eq!(*guard, [2, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "acquire")]
    #[inline]
    pub fn lock(&self) -> Result<Guard<'_, T>, LockError<T>> {
        self.enter(Limit::Never)
    }

    /// Enters the lock if nobody is inside.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`] when somebody alive is inside, this thread included; else as
    /// [`lock`](Lock::lock).
    #[inline]
    pub fn try_lock(&self) -> Result<Guard<'_, T>, LockError<T>> {
        self.enter(Limit::Now)
    }

    /// Enters the lock, waiting at most `limit`.
    ///
    /// # Blocking
    ///
    /// As [`lock`](Lock::lock), and ends after `limit` of the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockError::TimedOut`] when somebody alive was inside all that time; else as [`lock`](Lock::lock).
    #[inline]
    pub fn lock_timeout(&self, limit: Duration) -> Result<Guard<'_, T>, LockError<T>> {
        self.enter(Limit::For(limit))
    }

    /// Part of the caller, so that a lock that is free is entered without a call, and the guard lies in registers.
    #[inline(always)]
    fn enter(&self, limit: Limit) -> Result<Guard<'_, T>, LockError<T>> {
        if kin::forked() {
            return Err(LockError::Forked);
        }
        let me = Visitor {
            participant: self.me,
            thread: thread(),
        };
        let left = match self.words.try_enter(me) {
            true => Left::Finished,
            false => self.wait(me, limit)?,
        };
        let mut guard = Guard {
            held: ManuallyDrop::new(Held::Here(self)),
            exit: Exit::after(left),
            on_thread: PhantomData,
        };
        let whole = match self.named {
            // Always true, and no code, for types without invalid bits.
            false => T::is_valid_bit_pattern(guard.bits()),
            true => match self.copy() {
                Some(apart) => {
                    guard.held = ManuallyDrop::new(Held::Apart(apart));
                    true
                }
                None => false,
            },
        };
        if !whole {
            guard.exit = Exit::Broken;
            return Err(LockError::Corrupt(SCRIBBLED));
        }
        match left {
            Left::Finished => Ok(guard),
            Left::Unfinished => Err(LockError::Abandoned(Abandoned(guard.outlive()))),
        }
    }

    /// A guard's own handle, and a copy of the value, if its bits are one.
    #[cold]
    #[inline(never)]
    fn copy(&self) -> Option<Box<Apart<T>>> {
        let mut bytes = vec![0; size_of::<T>()];
        self.value.copy_out(0, &mut bytes);
        let value = checked::try_pod_read_unaligned(&bytes).ok()?;
        Some(Box::new(Apart {
            lock: self.clone(),
            copy: Some((value, bytes_of)),
        }))
    }
}

const SCRIBBLED: Corrupt = Corrupt("a locked value has bits that its type never has");

impl<T> Lock<T> {
    fn segment(&self) -> &Segment {
        self.value.segment()
    }

    #[cold]
    #[inline(never)]
    fn wait(&self, me: Visitor, limit: Limit) -> Result<Left, Refused> {
        let (life, deaths) = (self.segment().life(), self.kin.deaths());
        self.words.enter(me, limit, life, deaths)
    }

    /// A handle of a guard's own.
    #[cold]
    #[inline(never)]
    fn to_own(&self) -> Box<Apart<T>> {
        Box::new(Apart {
            lock: self.clone(),
            copy: None,
        })
    }
}

impl<T> Clone for Lock<T> {
    fn clone(&self) -> Self {
        Lock {
            words: self.words.clone(),
            value: self.value.clone(),
            kin: self.kin,
            me: self.me,
            named: self.named,
            of: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("segment", self.segment())
            .finish_non_exhaustive()
    }
}

impl<T> Serialize for Lock<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(self.segment(), serializer)
    }
}

impl<'de, T: NoUninit + CheckedBitPattern> Deserialize<'de> for Lock<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Lock::attach(handle::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

enum Held<'a, T> {
    /// In place, through the caller's handle.
    Here(&'a Lock<T>),
    Apart(Box<Apart<T>>),
}

/// How the bytes of a value are seen.
type BytesOf<T> = fn(&T) -> &[u8];

/// What the unusual guard holds: one that may outlive the handle it came from, as errors must, or one of a
/// named lock.
struct Apart<T> {
    lock: Lock<T>,
    /// What the guard of a named lock works on, and its bytes.
    copy: Option<(T, BytesOf<T>)>,
}

impl<T> Apart<T> {
    /// Apart from the usual way out, so that the usual guard stays in registers.
    #[cold]
    #[inline(never)]
    fn leave(&self, left: Left) {
        let Lock { words, me, .. } = &self.lock;
        if let Some((value, bytes)) = &self.copy {
            if left == Left::Finished && words.is_inside(*me) {
                self.lock.value.copy_in(0, bytes(value));
            }
        }
        words.leave(*me, left);
    }
}

/// The way into a lock's value; the lock is left when it is dropped.
///
/// It stays on its thread. Dropped by a panic, it leaves the lock abandoned: the value may be half changed.
pub struct Guard<'a, T> {
    /// Dropped by hand, for the same reason.
    held: ManuallyDrop<Held<'a, T>>,
    exit: Exit,
    on_thread: PhantomData<MutexGuard<'a, ()>>,
}

/// How a guard leaves its lock.
///
/// As wide as a register: a guard is moved in wide pieces, and a wide load of narrow stores waits for them to
/// reach the cache, which takes longer than to enter and leave a lock.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
enum Exit {
    /// Whole, unless a panic begins inside.
    Whole,
    /// Whole: the panic that is under way began outside.
    WholeInPanic,
    Broken,
}

impl Exit {
    /// For a lock that its last visitor left so.
    #[inline]
    fn after(left: Left) -> Exit {
        match left {
            Left::Finished if panicking() => Exit::WholeInPanic,
            Left::Finished => Exit::Whole,
            Left::Unfinished => Exit::Broken,
        }
    }

    #[inline]
    fn left(self) -> Left {
        match self {
            Exit::Whole if panicking() => Left::Unfinished,
            Exit::Whole | Exit::WholeInPanic => Left::Finished,
            Exit::Broken => Left::Unfinished,
        }
    }
}

impl<T> Guard<'_, T> {
    #[inline]
    fn value(&self) -> *mut T {
        let lock = match &*self.held {
            Held::Here(lock) => lock,
            Held::Apart(apart) => &apart.lock,
        };
        lock.value.as_ptr().cast()
    }

    #[inline(always)]
    fn outlive(mut self) -> Guard<'static, T> {
        // SAFETY: `self` is forgotten at once, so nobody looks at what is taken.
        let held = unsafe { ManuallyDrop::take(&mut self.held) };
        let exit = self.exit;
        std::mem::forget(self);
        let apart = match held {
            Held::Here(lock) => lock.to_own(),
            Held::Apart(apart) => apart,
        };
        Guard {
            held: ManuallyDrop::new(Held::Apart(apart)),
            exit,
            on_thread: PhantomData,
        }
    }
}

impl<T: CheckedBitPattern> Guard<'_, T> {
    #[inline]
    fn bits(&self) -> &T::Bits {
        // SAFETY: the value lies inside the segment and is aligned (`Lock::VALUE`); `T::Bits` has
        // the same size and alignment and any bits are one of its values. `enter` asks this of
        // locks without a name alone, which no process of another tree has, and those of this one
        // stay out while this guard exists (see the head of this file).
        unsafe { &*self.value().cast() }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        if let Held::Apart(apart) = &*self.held {
            if let Some((value, _)) = &apart.copy {
                return value;
            }
        }
        // SAFETY: as in `bits`: a guard without a copy is one of a lock without a name, and `enter`
        // gives out none that has not passed that check. Since then only the guard's owner wrote,
        // through `deref_mut`, which takes values of `T`.
        unsafe { &*self.value() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        let at = self.value();
        if let Held::Apart(apart) = &mut *self.held {
            if let Some((value, _)) = &mut apart.copy {
                return value;
            }
        }
        // SAFETY: as in `deref`; the guard is borrowed mutably.
        unsafe { &mut *at }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // The copy of a guard in a forked process is not inside.
        if !kin::forked() {
            let left = self.exit.left();
            match &*self.held {
                Held::Here(lock) => lock.words.leave(lock.me, left),
                Held::Apart(apart) => apart.leave(left),
            }
        }
        if matches!(*self.held, Held::Apart(_)) {
            // SAFETY: this is the end of `drop`, after which nobody looks at it.
            let_go(unsafe { ManuallyDrop::take(&mut self.held) });
        }
    }
}

#[cold]
#[inline(never)]
fn let_go<T>(held: Held<'_, T>) {
    drop(held);
}

impl<T: fmt::Debug> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A lock whose last holder did not finish: killed, ended by a panic, or dropped without [`recover`] itself.
///
/// The lock is held: nobody else gets in while this exists. Dropped, it leaves the lock abandoned for the
/// next one to ask.
///
/// [`recover`]: Abandoned::recover
pub struct Abandoned<T: 'static>(Guard<'static, T>);

impl<T: 'static> Abandoned<T> {
    /// The guard of the lock, as after [`Lock::lock`]: from now on the value counts as whole.
    ///
    /// # If a process dies
    ///
    /// If this process is killed before the guard is dropped, or the guard is dropped by a panic, the lock is
    /// abandoned again.
    pub fn recover(self) -> Guard<'static, T> {
        let mut guard = self.0;
        guard.exit = Exit::after(Left::Finished);
        guard
    }
}

impl<T: 'static> fmt::Debug for Abandoned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abandoned").finish_non_exhaustive()
    }
}

/// Why a lock was not entered, or entered only with a warning.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LockError<T: 'static> {
    /// The last one inside did not finish. The lock is held all the same: see [`Abandoned`].
    #[error("the last holder of the lock ended inside, its value may be half changed")]
    Abandoned(Abandoned<T>),
    /// Somebody alive is inside.
    #[error("the lock is held")]
    WouldBlock,
    /// Somebody alive was inside all the time.
    #[error("the lock was held all the time allowed")]
    TimedOut,
    /// This very thread is inside: it would wait for itself.
    #[error("this thread holds the lock already")]
    Deadlock,
    /// The value has bits that its type never has: some process has scribbled over it.
    #[error(transparent)]
    Corrupt(Corrupt),
    /// This process is a forked copy of the one that made or received the handle.
    #[error("this process was forked by the user; locks of its parent cannot be used here")]
    Forked,
    /// This process lost its proof of life (a descriptor of ours was closed), so that others hold it for dead.
    #[error("this process has lost its proof of life, others hold it for dead")]
    Evicted,
}

impl<T: 'static> fmt::Debug for LockError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Abandoned(abandoned) => abandoned.fmt(f),
            LockError::Corrupt(corrupt) => corrupt.fmt(f),
            LockError::WouldBlock => f.write_str("WouldBlock"),
            LockError::TimedOut => f.write_str("TimedOut"),
            LockError::Deadlock => f.write_str("Deadlock"),
            LockError::Forked => f.write_str("Forked"),
            LockError::Evicted => f.write_str("Evicted"),
        }
    }
}

impl<T: 'static> From<Refused> for LockError<T> {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Held => LockError::WouldBlock,
            Refused::TimedOut => LockError::TimedOut,
            Refused::Deadlock => LockError::Deadlock,
            Refused::Evicted => LockError::Evicted,
        }
    }
}

/// What a segment with a lock says it holds.
fn shape<T>() -> String {
    format!("lock of {}", message::plain_name::<T>())
}

/// This thread's number among those of the process, from 1.
#[inline]
fn thread() -> u32 {
    thread_local! {
        static THREAD: Cell<u32> = const { Cell::new(0) };
    }
    #[cold]
    fn number() -> u32 {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        THREAD.set(number);
        number
    }
    match THREAD.get() {
        0 => number(),
        number => number,
    }
}
