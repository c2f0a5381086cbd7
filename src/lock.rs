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

use bytemuck::{CheckedBitPattern, bytes_of, checked};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Corrupt, Death, EVICTED, SegmentError, WorkerExit, cannot_read};
use crate::handle;
use crate::kin::{self, Kin};
use crate::latch::{LastHolder, Left, Limit, Refused, Visitor};
use crate::layout::{HEADER, LatchWords};
use crate::message::{self, PlainData};
use crate::named;
use crate::roster::Life;
use crate::segment::{Bytes, Commit, Segment, View};

/// Mutual exclusion between processes, around a value in shared memory.
///
/// At most one thread of one process is inside at a time, and whoever is inside sees everything that was done
/// inside before. A clone is another handle to the same lock; so is a `Lock` that arrives inside a message or an
/// argument, in any process of the same tree. The value lives until the last handle is gone.
///
/// The value is [plain data](crate::PlainData). `Lock<()>` is a bare lock. A small value shares the cache line of the lock's own word, so that entering brings it along.
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
/// A process killed inside, at any instruction, is *proven* dead by the kernel; then each that asks is told with
/// [`LockError::Abandoned`], until somebody [`recover`](Lock::recover)s the lock and decides what the half-changed
/// value is worth. To be told takes
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
///     Err(LockError::Abandoned(who)) => println!("{who}"),
///     Err(other) => return Err(other.into()),
/// };
/// // In one call, also for those who expect no death:
/// let number = counter.lock_or_repair(|number| *number = 1)?;
/// assert_eq!(*number, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("Mutex", "RLock", "Value", "Semaphore"))]
pub struct Lock<T> {
    words: View<LatchWords>,
    value: Bytes,
    kin: &'static Kin,
    me: u32,
    pid: u32,
    named: bool,
    of: PhantomData<T>,
}

impl<T: PlainData> Lock<T> {
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
        let kin = kin::kin()?;
        Ok(Lock {
            words: segment.view(0)?,
            value: segment.bytes(Self::VALUE, size_of::<T>() as u64)?,
            kin,
            me: segment.life().me(),
            pid: kin.pid(),
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
    /// [`LockError::Abandoned`] when the last one inside did not finish: then this thread is not inside, and so is
    /// told each that asks until somebody [`recover`](Lock::recover)s the lock.
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
    pub fn lock(&self) -> Result<Guard<'_, T>, LockError> {
        self.enter(Limit::Never)
    }

    /// Enters the lock if nobody is inside.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`] when somebody alive is inside, this thread included; else as
    /// [`lock`](Lock::lock).
    #[inline]
    pub fn try_lock(&self) -> Result<Guard<'_, T>, LockError> {
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
    pub fn lock_timeout(&self, limit: Duration) -> Result<Guard<'_, T>, LockError> {
        self.enter(Limit::For(limit))
    }

    /// Enters the lock also when the last one inside did not finish: from then on its value counts as whole.
    ///
    /// Of several that were told of a death one is first and repairs the value; the others find it repaired,
    /// which [`Guard::was_abandoned`] says. [`lock_or_repair`](Lock::lock_or_repair) looks by itself.
    ///
    /// # Blocking
    ///
    /// As [`lock`](Lock::lock).
    ///
    /// # Errors
    ///
    /// As [`lock`](Lock::lock), but for `Abandoned`.
    ///
    /// # If a process dies
    ///
    /// If this process is killed before the guard is dropped, or the guard is dropped by a panic, the lock is
    /// abandoned again.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::{Guard, Lock, LockError};
    ///
    /// # let lock = Lock::new(5u32)?;
    /// let mut guard = match lock.lock() {
    ///     Err(LockError::Abandoned(_)) => lock.recover()?,
    ///     other => other?,
    /// };
    /// if Guard::was_abandoned(&guard) {
    ///     *guard = 0;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("clear_poison", "make_consistent"))]
    pub fn recover(&self) -> Result<Guard<'_, T>, LockError> {
        self.recover_within(Limit::Never)
    }

    /// As [`recover`](Lock::recover), waiting at most `limit`.
    ///
    /// # Blocking
    ///
    /// As [`lock_timeout`](Lock::lock_timeout).
    ///
    /// # Errors
    ///
    /// As [`lock_timeout`](Lock::lock_timeout), but for `Abandoned`.
    pub fn recover_timeout(&self, limit: Duration) -> Result<Guard<'_, T>, LockError> {
        self.recover_within(Limit::For(limit))
    }

    #[cold]
    fn recover_within(&self, limit: Limit) -> Result<Guard<'_, T>, LockError> {
        let (mut guard, left) = self.admit(limit)?;
        if left == Left::Unfinished {
            self.words.hold(self.visitor());
            guard.exit = match panicking() {
                true => Exit::RecoveredInPanic,
                false => Exit::Recovered,
            };
        }
        Ok(guard)
    }

    /// Enters the lock; if the last one inside did not finish, calls `repair` with the value first.
    ///
    /// # Blocking
    ///
    /// As [`lock`](Lock::lock).
    ///
    /// # Errors
    ///
    /// As [`lock`](Lock::lock), but for `Abandoned`.
    ///
    /// # If a process dies
    ///
    /// As [`recover`](Lock::recover): also if it is killed, or panics, in `repair`.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = multiproc::Lock::new([1u32, 1])?;
    /// let mut guard = pair.lock_or_repair(|pair| pair[1] = pair[0])?;
    /// guard[0] = 2; // Killed here, it leaves a pair that the next one repairs.
    /// guard[1] = 2;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_or_repair(&self, repair: impl FnOnce(&mut T)) -> Result<Guard<'_, T>, LockError> {
        let mut guard = self.recover()?;
        if Guard::was_abandoned(&guard) {
            repair(&mut guard);
        }
        Ok(guard)
    }

    fn visitor(&self) -> Visitor {
        Visitor {
            participant: self.me,
            thread: thread(),
            pid: self.pid,
        }
    }

    #[inline(always)]
    fn enter(&self, limit: Limit) -> Result<Guard<'_, T>, LockError> {
        match self.admit(limit)? {
            (guard, Left::Finished) => Ok(guard),
            (guard, Left::Unfinished) => {
                // Dropped, the guard leaves the lock as it was found, for the next to be told as well.
                let last = self.words.last_holder();
                drop(guard);
                Err(LockError::Abandoned(Abandoned(last)))
            }
        }
    }

    /// Part of the caller, so that a lock that is free is entered without a call, and the guard lies in registers.
    #[inline(always)]
    fn admit(&self, limit: Limit) -> Result<(Guard<'_, T>, Left), LockError> {
        if kin::forked() {
            return Err(LockError::Forked);
        }
        let me = self.visitor();
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
        Ok((guard, left))
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
            value,
            bytes: bytes_of,
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
}

impl<T> Clone for Lock<T> {
    fn clone(&self) -> Self {
        Lock {
            words: self.words.clone(),
            value: self.value.clone(),
            kin: self.kin,
            me: self.me,
            pid: self.pid,
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

impl<'de, T: PlainData> Deserialize<'de> for Lock<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Lock::attach(handle::deserialize(deserializer)?).map_err(cannot_read)
    }
}

enum Held<'a, T> {
    /// In place, through the caller's handle.
    Here(&'a Lock<T>),
    Apart(Box<Apart<T>>),
}

/// How the bytes of a value are seen.
type BytesOf<T> = fn(&T) -> &[u8];

/// What the guard of a named lock holds: a copy of the value, which it works on.
struct Apart<T> {
    lock: Lock<T>,
    value: T,
    bytes: BytesOf<T>,
}

impl<T> Apart<T> {
    /// Apart from the usual way out, so that the usual guard stays in registers.
    #[cold]
    #[inline(never)]
    fn leave(&self, left: Left) {
        let Lock { words, me, .. } = &self.lock;
        if left == Left::Finished && words.is_inside(*me) {
            self.lock.value.copy_in(0, (self.bytes)(&self.value));
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
    /// As `Whole`, and the last visitor had not finished.
    Recovered,
    /// As `WholeInPanic`, and the last visitor had not finished.
    RecoveredInPanic,
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
            Exit::Whole | Exit::Recovered if panicking() => Left::Unfinished,
            Exit::Whole | Exit::WholeInPanic => Left::Finished,
            Exit::Recovered | Exit::RecoveredInPanic => Left::Finished,
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

    /// Whether the last one inside had not finished, so that the value is to be repaired: of a guard that
    /// [`Lock::recover`] gave.
    ///
    /// It is called as `Guard::was_abandoned(&guard)`: as a method it would hide one of the value's.
    pub fn was_abandoned(guard: &Self) -> bool {
        matches!(guard.exit, Exit::Recovered | Exit::RecoveredInPanic)
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
            return &apart.value;
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
            return &mut apart.value;
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

/// Who left a lock without having finished: a process that died inside, or a thread that panicked there.
///
/// # Examples
///
/// ```
/// use multiproc::{Lock, LockError, Process};
///
/// fn die_inside(lock: Lock<u32>) {
///     let _guard = lock.lock();
///     std::process::abort();
/// }
///
/// let lock = Lock::new(1u32)?;
/// let child = Process::spawn(die_inside, (lock.clone(),))?;
/// let pid = child.pid();
/// assert!(child.join().is_err());
/// let Err(LockError::Abandoned(who)) = lock.lock() else { panic!("nobody was told") };
/// assert_eq!(who.pid(), Some(pid));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Abandoned(LastHolder);

impl Abandoned {
    /// The process ID, as that process knew it; unknown only of one that was killed just as it came in or left.
    pub fn pid(&self) -> Option<u32> {
        self.0.pid
    }

    /// The death of that process, if it died; how it ended, its parent knows. `None` if a thread of it panicked
    /// inside, or if nobody knows which process it was.
    pub fn death(&self) -> Option<Death> {
        let pid = self.0.pid.filter(|_| self.0.has_died)?;
        Some(Death::new(pid, None, WorkerExit::Unknown))
    }
}

impl fmt::Debug for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abandoned")
            .field("pid", &self.0.pid)
            .field("has_died", &self.0.has_died)
            .finish()
    }
}

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.0.has_died { "died" } else { "panicked" };
        match self.0.pid {
            Some(pid) => write!(f, "process {pid} {how} inside the lock")?,
            None => write!(f, "a process {how} inside the lock")?,
        }
        f.write_str(
            ": its value may be half changed, until somebody enters by `recover` or `lock_or_repair`",
        )
    }
}

/// Why a lock was not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The last one inside did not finish; see [`Abandoned`]. Nobody is inside: [`Lock::recover`] enters.
    #[error("{0}")]
    Abandoned(Abandoned),
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
    Corrupt(#[from] Corrupt),
    /// This process is a forked copy of the one that made or received the handle.
    #[error("this process was forked by the user; locks of its parent cannot be used here")]
    Forked,
    /// Others have seen this process dead: something in it closed all descriptors, or unlocked them.
    #[error("{EVICTED}")]
    Evicted,
}

impl From<Refused> for LockError {
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
