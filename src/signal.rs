//! The one way to wait: spin, announce, look again, sleep in slices.
//!
//! ```text
//!  waker                                   sleeper
//!  publish (release)                       remember `seq` and `deaths`
//!  light()                                 announce: set bit 0, count up          (one compare-and-swap)
//!  announce & 1 ?  -- no: done             heavy()
//!     seq += 1, wake                       look again, ask who is dead
//!                                          sleep while `seq` and `deaths` are as remembered, one slice
//! ```
//!
//! Edge C. Of "publish, then read `announce`" and "announce, then look", at least one sees the other's
//! store: [`light`] and [`heavy`] together are a full fence on both sides. So either the waker sees the
//! announcement or the sleeper sees what was published. `seq` is remembered *before* the announcement:
//! a waker that bumps it in between makes the sleep return at once.
//!
//! | bits of `announce` | meaning |
//! |---|---|
//! | 0 | somebody may be asleep |
//! | 1 | some process cannot take part in the asymmetric barrier: wakers use a full fence. Never cleared |
//! | 2.. | count of announcements; only grows, so that a waker clears exactly what it saw |
//!
//! A sleeper that is killed leaves bit 0 set: one needless system call, once. There is no count of
//! sleepers that could drift. A wake that goes to a process which is killed before it acts is made good
//! by the next slice.

use std::time::{Duration, Instant};

use crate::layout::SignalWords;
use crate::sync::{self, Futex, Ordering, asymmetric, heavy, light, spin_loop};

const ASLEEP: u64 = 1;
const FENCES: u64 = 2;
const ONE: u64 = 4;

/// The longest sleep before a look at who is dead.
pub(crate) const SLICE: Duration = Duration::from_millis(20);
/// The longest of later sleeps of the same wait, each twice as long as the one before: who has waited long
/// costs less than a thousandth of a processor.
const LONG_SLICE: Duration = Duration::from_millis(80);
/// The longest spin before a sleep.
const SPIN: Duration = Duration::from_micros(50);
/// A wait that ended within this time was worth a spin: about two wake-ups, since whoever ended it may
/// have had to be woken first. With less, two ends that once slept would take turns at sleeping for ever.
const WORTH: Duration = Duration::from_micros(100);
/// The shortest spin worth reading the clock for.
const SPARK: Duration = Duration::from_micros(1);

/// How long this end spins before it sleeps: what the last waits were worth.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    spin: Duration,
    longest: Duration,
}

impl Patience {
    /// Starts at a fifth of the longest spin; never spins on a machine with one processor.
    pub(crate) fn new() -> Patience {
        let longest = if sync::has_one_processor() {
            Duration::ZERO
        } else {
            SPIN
        };
        Patience {
            spin: longest / 5,
            longest,
        }
    }

    /// Learns from a wait that went as far as sleeping and took so long in all.
    fn waited(&mut self, time: Duration) {
        if time < WORTH {
            self.spin = (self.spin * 2).max(time).min(self.longest);
        } else {
            self.spin /= 2;
            if self.spin < SPARK {
                self.spin = Duration::ZERO;
            }
        }
    }
}

impl SignalWords {
    /// To be called once by each process before it waits or wakes here.
    pub(crate) fn attach(&self) {
        if !asymmetric() {
            self.announce.fetch_or(FENCES, Ordering::SeqCst);
        }
    }

    /// Wakes one sleeper, if there may be one. To be called *after* publishing with release.
    #[inline]
    pub(crate) fn notify_one(&self) {
        self.notify(1);
    }

    /// Wakes all sleepers: for news that concern everyone.
    pub(crate) fn notify_all(&self) {
        self.notify(u32::MAX);
    }

    #[inline]
    fn notify(&self, n: u32) {
        // Edge C, waker's end; the sleeper's is in `wait`.
        light();
        let seen = self.announce.load(Ordering::Relaxed);
        if seen & (ASLEEP | FENCES) != 0 {
            self.wake(seen, n);
        }
    }

    #[cold]
    fn wake(&self, mut seen: u64, n: u32) {
        if seen & FENCES != 0 {
            sync::fence();
            seen = self.announce.load(Ordering::Relaxed);
            if seen & ASLEEP == 0 {
                return;
            }
        }
        self.seq.fetch_add(1, Ordering::Relaxed);
        let woken = self.seq.wake(n);
        if woken == 0 || n == u32::MAX {
            // Nobody is left who announced before `seen`; a newer announcement has another count.
            let _ = self.announce.compare_exchange(
                seen,
                seen & !ASLEEP,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// Whether an announcement made after `seq` was read still stands: wakers count before they clear.
    fn is_announced(&self, seq: u32) -> bool {
        self.seq.load(Ordering::Relaxed) == seq
            && self.announce.load(Ordering::Relaxed) & ASLEEP != 0
    }

    fn announce(&self) {
        let mut seen = self.announce.load(Ordering::Relaxed);
        while let Err(now) = self.announce.compare_exchange(
            seen,
            (seen | ASLEEP).wrapping_add(ONE),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            seen = now;
        }
    }

    /// Waits until `look` finds something or the deadline has passed (`None`).
    ///
    /// `look` is called often while spinning and must be cheap. `check` is called before each sleep, with
    /// everything announced: it asks who is dead, and may end the wait with a value or an error. `deaths`
    /// is the tree's count of deaths.
    ///
    /// # Errors
    ///
    /// What `look` or `check` returned.
    pub(crate) fn wait<R, E>(
        &self,
        patience: &mut Patience,
        deadline: Option<Instant>,
        deaths: &Futex,
        mut look: impl FnMut() -> Result<Option<R>, E>,
        check: impl FnMut() -> Result<Option<R>, E>,
    ) -> Result<Option<R>, E> {
        if let Some(found) = spin(patience, deadline, &mut look)? {
            return Ok(Some(found));
        }
        let mut asleep = Duration::ZERO;
        let found = self.sleep(deadline, deaths, look, check, &mut asleep)?;
        if found.is_some() {
            patience.waited(patience.spin + asleep);
        }
        Ok(found)
    }

    fn sleep<R, E>(
        &self,
        deadline: Option<Instant>,
        deaths: &Futex,
        mut look: impl FnMut() -> Result<Option<R>, E>,
        mut check: impl FnMut() -> Result<Option<R>, E>,
        asleep: &mut Duration,
    ) -> Result<Option<R>, E> {
        let mut seq = None;
        let mut slice = SLICE;
        loop {
            let died = deaths.load(Ordering::Acquire);
            // After a slice that nobody ended, the announcement still stands: no second barrier is needed.
            let seq = match seq {
                Some(seq) if self.is_announced(seq) => seq,
                _ => {
                    let now = *seq.insert(self.seq.load(Ordering::Relaxed));
                    self.announce();
                    // Edge C, sleeper's end; the waker's is in `notify`.
                    heavy();
                    now
                }
            };
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            if let Some(found) = check()? {
                return Ok(Some(found));
            }
            let now = Instant::now();
            let limit = match deadline {
                Some(end) if end <= now => return Ok(None),
                Some(end) => slice.min(end - now),
                None => slice,
            };
            slice = (slice * 2).min(LONG_SLICE);
            self.seq.wait_either(seq, deaths, died, limit);
            // The barrier is not counted: how long it takes says nothing of how long the other side takes.
            *asleep += now.elapsed();
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
        }
    }
}

#[cfg(not(loom))]
fn spin<R, E>(
    patience: &mut Patience,
    deadline: Option<Instant>,
    look: &mut impl FnMut() -> Result<Option<R>, E>,
) -> Result<Option<R>, E> {
    // Without the clock: the other side may be just about to finish.
    for pauses in [0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 4, 4, 4] {
        for _ in 0..pauses {
            spin_loop();
        }
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
    }
    if patience.spin.is_zero() {
        return Ok(None);
    }
    let start = Instant::now();
    let end = start + patience.spin;
    let end = deadline.map_or(end, |deadline| deadline.min(end));
    loop {
        for _ in 0..8 {
            for _ in 0..4 {
                spin_loop();
            }
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
        }
        if Instant::now() >= end {
            return Ok(None);
        }
    }
}

/// A model explores schedules, not time: one look stands for the spin.
#[cfg(loom)]
fn spin<R, E>(
    _patience: &mut Patience,
    _deadline: Option<Instant>,
    look: &mut impl FnMut() -> Result<Option<R>, E>,
) -> Result<Option<R>, E> {
    spin_loop();
    look()
}
