//! Who is inside a lock: one word, which the dead cannot keep.
//!
//! | `owner` | meaning |
//! |---|---|
//! | 0 | free: what the lock guards is whole |
//! | [`UNFINISHED`] | free: the last one to leave had not finished |
//! | participant | a thread of that process is inside |
//! | any of these and [`WAITERS`] | somebody may be asleep on the word |
//!
//! ```text
//!  enter                                        leave
//!  free -> me            (compare-and-swap)     me -> free        (compare-and-swap)
//!  held: pause 1, 2, 4 ... 128, look again      me | WAITERS -> free, wake one
//!  set WAITERS; owner dead ? dead -> me
//!  sleep while the word and `deaths` stay, one slice
//! ```
//!
//! Every step is one compare-and-swap from exactly the word that was seen, so to be killed between
//! any two of them leaves a word that says the truth: the number of a process that is now dead,
//! which the next one to come takes over and is told of. That holds for whoever took over from the
//! dead as well. A sleeper that is killed leaves WAITERS set: one needless wake. A wake that goes
//! to a process which dies of it, or is never sent, is made good by the next slice.
//!
//! Whoever slept enters with WAITERS set, since others may still sleep; whoever leaves clears it
//! and wakes one, and that one sets it again.
//!
//! Nobody leaves but from a word with its own number in it: a process that lost its proof of life,
//! and whose place was taken, lets nobody else in.
//!
//! `holder` is for people: it says in an error who was inside. It is written inside, before `thread`, and kept by
//! those who are told of a death, so that each of them is told of the same.
//!
//! | edge | release | acquire | what it carries |
//! |---|---|---|---|
//! | D | the step in [`leave`](LatchWords::leave) | the step in [`try_enter`](LatchWords::try_enter) and [`enter`](LatchWords::enter) | everything done inside |
//! | E | the owner's death | [`Life::is_dead`], before the step in [`enter`](LatchWords::enter) | everything the dead had done inside |

use std::time::{Duration, Instant};

use crate::layout::LatchWords;
use crate::roster::Life;
use crate::signal::SLICE;
use crate::sync::{Futex, Ordering};
#[cfg(not(loom))]
use crate::sync::{has_one_processor, spin_loop};

const WAITERS: u32 = 1 << 31;
const FREE: u32 = 0;
/// No participant has this number: they stay below `kin::MAX_PARTICIPANT`.
const UNFINISHED: u32 = !WAITERS;

/// In `holder`: that process has died inside; its number is 0 if nobody knows it.
const DEAD: u32 = 1 << 31;

/// The longest spin before a sleep: a few times what a sleep and its wake cost, so that those who
/// use the lock all the time rarely sleep.
const SPIN: Duration = Duration::from_micros(20);
/// The most pauses between two looks.
const PAUSES: u32 = 128;

/// Steps that others were quicker at, after which the time is looked at.
const LOST: u32 = 64;

/// A thread of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visitor {
    pub(crate) participant: u32,
    /// Told apart from the process' other threads, never 0.
    pub(crate) thread: u32,
    /// Process ID, for people.
    pub(crate) pid: u32,
}

impl Visitor {
    fn word(self) -> u64 {
        u64::from(self.participant) << 32 | u64::from(self.thread)
    }
}

/// Who did not finish, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastHolder {
    pub(crate) pid: Option<u32>,
    /// It died; if not, it left in the middle, by a panic.
    pub(crate) has_died: bool,
}

/// How long to wait for those inside.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// Not at all.
    Now,
    /// That long.
    For(Duration),
    /// As long as it takes.
    Never,
}

/// How the last one left, or leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// What the lock guards is whole.
    Finished,
    /// It may be half changed.
    Unfinished,
}

impl Left {
    fn word(self) -> u32 {
        match self {
            Left::Finished => FREE,
            Left::Unfinished => UNFINISHED,
        }
    }
}

/// How the dead left.
const DIED: Left = if cfg!(planted) {
    // A bug for the tests to find.
    Left::Finished
} else {
    Left::Unfinished
};

/// Why somebody did not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Somebody alive is inside.
    Held,
    /// The limit has passed.
    TimedOut,
    /// This very thread is inside.
    Deadlock,
    /// Others hold this process for dead.
    Evicted,
}

impl LatchWords {
    /// Enters if it is free and whole; never waits.
    #[inline]
    pub(crate) fn try_enter(&self, me: Visitor) -> bool {
        // Edge D, entering end; the leaving end is in `leave`.
        let entered = self.step(FREE, me.participant, Ordering::Acquire).is_ok();
        if entered {
            self.hold(me);
        }
        entered
    }

    /// Enters, waiting for those inside, and says how the last one left. `deaths` is the tree's
    /// count.
    ///
    /// # Errors
    ///
    /// Why not.
    #[cold]
    pub(crate) fn enter(
        &self,
        me: Visitor,
        limit: Limit,
        life: &impl Life,
        deaths: &Futex,
    ) -> Result<Left, Refused> {
        let end = match limit {
            Limit::For(limit) => Instant::now().checked_add(limit),
            Limit::Now | Limit::Never => None,
        };
        if !matches!(limit, Limit::Now) && self.spin(me) {
            return Ok(Left::Finished);
        }
        let mut waiters = 0;
        let mut lost = 0;
        let mut seen = self.owner.load(Ordering::Relaxed);
        loop {
            // Whoever sees the word change all the time comes to no wait, and must not overlook the
            // limit.
            if lost == LOST {
                lost = 0;
                match end {
                    _ if matches!(limit, Limit::Now) => return Err(Refused::Held),
                    Some(end) if Instant::now() >= end => return Err(Refused::TimedOut),
                    _ => {}
                }
            }
            // Read before anybody's life is asked for: a death announced later ends the sleep at
            // once.
            let died = deaths.load(Ordering::Acquire);
            let left = match seen & !WAITERS {
                FREE => Some(Left::Finished),
                UNFINISHED => Some(Left::Unfinished),
                inside if inside == me.participant => None,
                // Edge E, entering end.
                inside => life.is_dead(inside).then_some(DIED),
            };
            if let Some(left) = left {
                if left == Left::Unfinished && life.is_evicted() {
                    return Err(Refused::Evicted);
                }
                // Edge D, entering end; the leaving end is in `leave`.
                match self.step(
                    seen,
                    me.participant | seen & WAITERS | waiters,
                    Ordering::Acquire,
                ) {
                    Ok(_) => {
                        if left == Left::Finished {
                            self.hold(me);
                        } else {
                            self.keep_holder(seen & !WAITERS);
                            self.thread.store(me.word(), Ordering::Relaxed);
                        }
                        return Ok(left);
                    }
                    Err(now) => (seen, lost) = (now, lost + 1),
                }
                continue;
            }
            if matches!(limit, Limit::Now) {
                return Err(Refused::Held);
            }
            // Only this thread stores its own word there, and it takes it away before it leaves.
            if self.thread.load(Ordering::Relaxed) == me.word() {
                return Err(Refused::Deadlock);
            }
            // Set also by one who gives up: he may have been woken in place of another sleeper.
            if seen & WAITERS == 0 {
                if let Err(now) = self.step(seen, seen | WAITERS, Ordering::Relaxed) {
                    (seen, lost) = (now, lost + 1);
                    continue;
                }
            }
            let now = Instant::now();
            let slice = end.map_or(SLICE, |end| SLICE.min(end.saturating_duration_since(now)));
            if slice.is_zero() {
                return Err(Refused::TimedOut);
            }
            self.owner.wait_either(seen | WAITERS, deaths, died, slice);
            if now.elapsed() >= SLICE && life.is_evicted() {
                return Err(Refused::Evicted);
            }
            waiters = WAITERS;
            seen = self.owner.load(Ordering::Relaxed);
        }
    }

    /// Says who is inside: to be called inside.
    #[inline]
    pub(crate) fn hold(&self, me: Visitor) {
        // Before the thread: whoever is killed in between is not taken for the one before.
        self.holder.store(me.pid, Ordering::Relaxed);
        self.thread.store(me.word(), Ordering::Relaxed);
    }

    /// Keeps who did not finish, who was inside as `participant` or had left.
    fn keep_holder(&self, participant: u32) {
        let seen = self.holder.load(Ordering::Relaxed);
        if participant == UNFINISHED || seen & DEAD != 0 {
            return;
        }
        let inside = (self.thread.load(Ordering::Relaxed) >> 32) as u32;
        // Killed before it could say its own number, it left that of somebody else there.
        let pid = if inside == participant { seen } else { 0 };
        self.holder.store(pid | DEAD, Ordering::Relaxed);
    }

    /// Who did not finish: to be called inside, by one who was told so and has not called [`hold`](Self::hold).
    pub(crate) fn last_holder(&self) -> LastHolder {
        let seen = self.holder.load(Ordering::Relaxed);
        LastHolder {
            pid: Some(seen & !DEAD).filter(|pid| *pid != 0),
            has_died: seen & DEAD != 0,
        }
    }

    /// Whether this process is inside; false when it lost its proof of life and its place was
    /// taken.
    pub(crate) fn is_inside(&self, me: u32) -> bool {
        self.owner.load(Ordering::Relaxed) & !WAITERS == me
    }

    /// Leaves, and wakes one of those who wait.
    #[inline]
    pub(crate) fn leave(&self, me: u32, left: Left) {
        self.thread.store(0, Ordering::Relaxed);
        // Edge D, leaving end; the entering end is in `try_enter` and `enter`.
        if let Err(seen) = self.step(me, left.word(), Ordering::Release) {
            self.leave_to_waiters(seen, me, left);
        }
    }

    #[cold]
    fn leave_to_waiters(&self, mut seen: u32, me: u32, left: Left) {
        // Anything else was taken from this process, which lost its proof of life, and is not ours
        // to change.
        while seen & !WAITERS == me {
            // Edge D, leaving end.
            match self.step(seen, left.word(), Ordering::Release) {
                Ok(_) => {
                    self.owner.wake(1);
                    return;
                }
                Err(now) => seen = now,
            }
        }
    }

    #[inline]
    fn step(&self, from: u32, to: u32, order: Ordering) -> Result<u32, u32> {
        self.owner
            .compare_exchange(from, to, order, Ordering::Relaxed)
    }

    /// Tries a little longer, looking ever less often; not if others sleep already.
    #[cfg(not(loom))]
    fn spin(&self, me: Visitor) -> bool {
        if has_one_processor() {
            return false;
        }
        let start = Instant::now();
        let mut pauses = 1;
        loop {
            let seen = self.owner.load(Ordering::Relaxed);
            if seen == FREE && self.try_enter(me) {
                return true;
            }
            if seen == UNFINISHED || seen & WAITERS != 0 || start.elapsed() >= SPIN {
                return false;
            }
            for _ in 0..pauses {
                spin_loop();
            }
            pauses = (pauses * 2).min(PAUSES);
        }
    }

    /// A model explores schedules, not time; and after a pause loom would show only the newest
    /// words.
    #[cfg(loom)]
    fn spin(&self, _me: Visitor) -> bool {
        false
    }
}
