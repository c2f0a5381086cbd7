//! The one way to wait: spin, announce, look again, sleep in slices.
//!
//! ```text
//!  waker                                   sleeper
//!  publish (release)                       remember `seq` and `deaths`
//!  light()                                 announce: set bit 0, count up          (one compare-and-swap)
//!  announce & 1 ?  -- no: done             heavy()
//!     processor, seq += 1, wake            look again, ask who is dead if it is time to
//!                                          sleep while `seq` and `deaths` are as remembered, one slice
//! ```
//!
//! Edge C. Of "publish, then read `announce`" and "announce, then look", at least one sees the
//! other's store: [`light`] and [`heavy`] together are a full fence on both sides. So either the
//! waker sees the announcement or the sleeper sees what was published. `seq` is remembered *before*
//! the announcement: a waker that bumps it in between makes the sleep return at once.
//!
//! A process that may not use the barrier needs no rule of its own where signals are attached: its
//! [`light`] is a full fence, so whoever sleeps relies on it as before; and when it sleeps itself, it first
//! sets bit 1, at which all wakers use a full fence.
//!
//! | bits of `announce` | meaning |
//! |---|---|
//! | 0 | somebody may be asleep |
//! | 1 | some sleeper cannot use the asymmetric barrier: wakers use a full fence. Never cleared |
//! | 2 | the announcement stands: whoever made it last will sleep again without another |
//! | 3.. | count of announcements; only grows, so that a waker clears exactly what it saw |
//!
//! A sleeper that is killed leaves bits 0 and 2 set: two needless system calls, once. There is no
//! count of sleepers that could drift. A wake that goes to a process which is killed before it acts is made
//! good by the next slice.
//!
//! # To spin or not
//!
//! A spin is worth while only if the other side runs meanwhile. Who sleeps learns whether it did:
//! the waker leaves the number of its processor, and the sleeper compares it with the one it fell
//! asleep on. The same one: while I spun, the other side could not run, so the next 2, then 4, ..
//! 256 waits go without a spin, which is all it takes on one processor, and on many that have more
//! to do. Another one: see
//! [`Patience::waited`].
//!
//! # An announcement that stands
//!
//! Who goes without spins sleeps in nearly every wait, and the barrier is half of what that costs
//! beside the sleep itself: it interrupts every processor on which a process of any tree runs. So
//! its announcement stands (bit 2): as long as the whole word is as it left it, the next wait needs
//! neither another nor a barrier. Wakers count `seq` up and wake with every message meanwhile, which
//! they have to anyway.
//!
//! Edge U. No wake is lost, though the waker that finds nobody asleep clears what it saw at any time
//! later. Such a waker clears bit 2 first, and only one that has *seen* that, and then counted
//! `seq` up (release), clears bit 0. The sleeper reads `seq` (acquire) before the word: if it read
//! what that second waker left in `seq`, it sees in the word that bit 2 is gone, and announces
//! itself anew; if not, `seq` changes under its sleep. And who counts `seq` up has published before
//! (release): who reads that sees it.

use std::time::{Duration, Instant};

use crate::layout::SignalWords;
use crate::sync::{self, Futex, Ordering, asymmetric, heavy, light, spin_loop};

const ASLEEP: u64 = 1;
const FENCES: u64 = 2;
const STANDS: u64 = 4;
const ONE: u64 = 8;

/// The longest sleep before a look at who is dead, and the shortest time between two such looks.
pub(crate) const SLICE: Duration = Duration::from_millis(20);
/// The longest of later sleeps of the same wait, each twice as long as the one before: who has
/// waited long costs less than a thousandth of a processor. So this is how late, at most, a death
/// is seen that nobody counts; the public pages say so.
const LONG_SLICE: Duration = Duration::from_millis(80);
/// The first sleep of one that rests is on one word alone, which is quicker than on two; a death is
/// seen so much later at most. It is longer than the system's tick on most machines: a timer that is
/// the next to fire has to be told to the hardware, twice a sleep, which costs as much as the sleep.
const NAP: Duration = Duration::from_millis(5);
/// The first sleep after wakers were told to use fences: one that was in the middle of a wake may
/// not have heard.
const HEARING: Duration = Duration::from_millis(1);
/// The longest spin before a sleep.
const SPIN: Duration = Duration::from_micros(50);
/// A wait that ended within this time was worth a spin: about two wake-ups, since whoever ended it
/// may have had to be woken first. With less, two ends that once slept would take turns at sleeping
/// for ever.
const WORTH: Duration = Duration::from_micros(100);
/// The shortest spin worth reading the clock for.
const SPARK: Duration = Duration::from_micros(1);
/// The most waits without a spin before another is tried.
const LONGEST_REST: u32 = 256;

/// When to ask who is dead: after a death in the tree, which is counted, and when the last time was
/// a
/// [`SLICE`] ago, for the sake of those whose deaths nobody counts.
#[derive(Debug, Clone)]
pub(crate) struct Vigil {
    deaths: u32,
    asked: Option<Instant>,
}

impl Vigil {
    pub(crate) fn new() -> Vigil {
        Vigil {
            deaths: 0,
            asked: None,
        }
    }

    /// Whether it is time; says yes once.
    pub(crate) fn is_due(&mut self, deaths: &Futex) -> bool {
        let died = deaths.load(Ordering::Acquire);
        self.is_due_at(died, Instant::now())
    }

    fn is_due_at(&mut self, died: u32, now: Instant) -> bool {
        let due = died != self.deaths || self.left(now).is_zero();
        if due {
            self.deaths = died;
            self.asked = Some(now);
        }
        due
    }

    /// How long until it is time, if nobody dies.
    fn left(&self, now: Instant) -> Duration {
        self.asked.map_or(Duration::ZERO, |asked| {
            SLICE.saturating_sub(now.saturating_duration_since(asked))
        })
    }

    /// Whether somebody in the tree has died since it was last asked.
    #[inline]
    pub(crate) fn has_news(&self, deaths: &Futex) -> bool {
        deaths.load(Ordering::Relaxed) != self.deaths
    }
}

/// How long this end spins before it sleeps, which is what its last waits were worth, and when it
/// last asked who is dead.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    spin: Duration,
    longest: Duration,
    /// Waits to come that go without a spin.
    rests: u32,
    /// How many went without, the last time.
    rest: u32,
    /// What was announced last, if all wakers have heard of it.
    announced: Option<Announced>,
    vigil: Vigil,
}

/// An announcement after which there was a barrier.
#[derive(Debug, Clone, Copy)]
struct Announced {
    /// At which signal: a worker of a pool waits at several. Each lies in memory that stays mapped
    /// for as long as this end is there.
    signal: usize,
    /// What the announcement made of the word.
    word: u64,
    /// What `seq` was before it.
    seq: u32,
}

/// What a wait learned that came to sleeping.
#[derive(Debug, Default)]
struct Slept {
    time: Duration,
    /// Whether the one that woke me ran on the processor that I had fallen asleep on; `None` if
    /// nobody did.
    beside: Option<bool>,
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
            rests: 0,
            rest: 0,
            announced: None,
            vigil: Vigil::new(),
        }
    }

    /// As after many waits in which the other side could not run.
    #[cfg(loom)]
    pub(crate) fn resting() -> Patience {
        Patience {
            rests: LONGEST_REST,
            ..Patience::new()
        }
    }

    /// Whether the next wait goes without a spin, since the other side needs this processor.
    pub(crate) fn is_resting(&self) -> bool {
        self.rests > 0
    }

    /// Learns from a wait that went as far as sleeping.
    fn learn(&mut self, slept: &Slept) {
        match (slept.beside, self.rests) {
            (Some(true), 0) => {
                self.rest = (self.rest * 2).clamp(2, LONGEST_REST);
                self.rests = self.rest;
            }
            // Whoever rests stays at it as long as it is right.
            (Some(true) | None, 1..) => self.rests -= 1,
            (Some(false), 1..) => {
                (self.rests, self.rest) = (0, 0);
                self.waited(slept.time);
            }
            (Some(false) | None, 0) => self.waited(self.spin + slept.time),
        }
    }

    /// Learns from a wait that took so long in all, and was ended by somebody on another processor.
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
    /// Wakes one sleeper, if there may be one. To be called *after* publishing with release.
    #[inline]
    pub(crate) fn notify_one(&self) {
        self.notify(1);
    }

    /// Wakes so many sleepers at most.
    pub(crate) fn notify_some(&self, n: u32) {
        if n > 0 {
            self.notify(n);
        }
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
        if let Some(processor) = sync::processor() {
            // A hint: whoever reads that of another waker spins too much or too little, once.
            self.processor.store(processor + 1, Ordering::Relaxed);
        }
        // Edge U, waker's end; the sleeper's is in `still_announced`.
        self.seq.fetch_add(1, Ordering::Release);
        let woken = self.seq.wake(n);
        if woken == 0 || n == u32::MAX {
            // Nobody is left who announced before `seen`; a newer announcement has another count.
            // But one that stands may be slept on by who reads `seq` from now on.
            let less = match seen & STANDS {
                0 => seen & !ASLEEP,
                _ => seen & !STANDS,
            };
            let _ =
                self.announce
                    .compare_exchange(seen, less, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Has wakers use fences if this process cannot use the barrier; false if they hear of it only
    /// now.
    fn is_heard(&self) -> bool {
        asymmetric() || self.announce.fetch_or(FENCES, Ordering::SeqCst) & FENCES != 0
    }

    /// What `seq` is, if it may be slept on as it is now without another announcement.
    fn still_announced(&self, mine: &Announced) -> Option<u32> {
        // Acquire: before the word. Edge U, sleeper's end; the waker's is in `wake`.
        let seq = self.seq.load(Ordering::Acquire);
        let word = self.announce.load(Ordering::Relaxed);
        let stands = word == mine.word && word & STANDS != 0;
        // One that does not stand is as good until `seq` changes: wakers count before they clear.
        let unbroken = seq == mine.seq && word & ASLEEP != 0;
        (mine.signal == self.address() && (stands || unbroken)).then_some(seq)
    }

    /// What the word is from now on.
    fn announce(&self, stands: bool) -> u64 {
        let mut seen = self.announce.load(Ordering::Relaxed);
        loop {
            let mine = (seen & !STANDS | ASLEEP).wrapping_add(ONE);
            let mine = if stands { mine | STANDS } else { mine };
            match self
                .announce
                .compare_exchange(seen, mine, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return mine,
                Err(now) => seen = now,
            }
        }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Waits until `look` finds something or the deadline has passed (`None`).
    ///
    /// `look` is called often while spinning and must be cheap. `check` is called before each
    /// sleep, with everything announced, and may end the wait with a value or an error; it is told
    /// whether it is time to ask the system who is dead. `deaths` is the tree's count of deaths.
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
        check: impl FnMut(bool) -> Result<Option<R>, E>,
    ) -> Result<Option<R>, E> {
        // Who rests has looked before it came here, and looks again when it has announced itself.
        if !patience.is_resting() {
            if let Some(found) = spin(patience, deadline, &mut look)? {
                return Ok(Some(found));
            }
        }
        let mut slept = Slept::default();
        let found = self.sleep(patience, deadline, deaths, look, check, &mut slept)?;
        if found.is_some() {
            patience.learn(&slept);
        }
        Ok(found)
    }

    fn sleep<R, E>(
        &self,
        patience: &mut Patience,
        deadline: Option<Instant>,
        deaths: &Futex,
        mut look: impl FnMut() -> Result<Option<R>, E>,
        mut check: impl FnMut(bool) -> Result<Option<R>, E>,
        slept: &mut Slept,
    ) -> Result<Option<R>, E> {
        let resting = patience.is_resting();
        let mut naps = resting;
        let mut slice = SLICE;
        loop {
            let mut hearing = LONG_SLICE;
            let died = deaths.load(Ordering::Acquire);
            let mine = patience.announced.as_ref();
            let seq = match mine.and_then(|mine| self.still_announced(mine)) {
                Some(seq) => seq,
                None => {
                    let heard = self.is_heard();
                    if !heard {
                        hearing = HEARING;
                    }
                    // Acquire: before the announcement. Read after it, `seq` might be that of a
                    // waker which has seen the announcement and cleared it, for a message that
                    // another then took.
                    let seq = self.seq.load(Ordering::Acquire);
                    let word = self.announce(resting);
                    // Edge C, sleeper's end; the waker's is in `notify`.
                    heavy();
                    let signal = self.address();
                    patience.announced = heard.then_some(Announced { signal, word, seq });
                    seq
                }
            };
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            let now = Instant::now();
            let ask = patience.vigil.is_due_at(died, now);
            if let Some(found) = check(ask)? {
                return Ok(Some(found));
            }
            let nap = std::mem::take(&mut naps);
            let mut limit = match nap {
                true => NAP,
                // What was asked a moment ago need not be asked now, but when its time is over.
                false if !ask => slice.min(patience.vigil.left(now)),
                false => slice,
            };
            limit = limit.min(hearing);
            if let Some(end) = deadline {
                if end <= now {
                    return Ok(None);
                }
                limit = limit.min(end - now);
            }
            slice = (slice * 2).min(LONG_SLICE);
            let mine = sync::processor();
            match nap {
                true => self.seq.wait(seq, limit),
                false => self.seq.wait_either(seq, deaths, died, limit),
            }
            // The barrier is not counted: how long it takes says nothing of how long the other side
            // takes.
            slept.time += now.elapsed();
            if self.seq.load(Ordering::Relaxed) != seq {
                let theirs = self.processor.load(Ordering::Relaxed);
                slept.beside = mine.map(|mine| mine + 1 == theirs);
            }
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
