//! What an end knows besides its two streams: the segment, and who has the ends.
//!
//! Each end has an owner word (see [`roster`]), beside the words that the other end's sends
//! look at anyway. Free is final for an end: nobody takes it up again. Whoever finds the other end's
//! owner dead frees the word, by one compare-and-swap from what was seen: from then on an end that was on its
//! way from there does not arrive any more, so `Closed` stays `Closed`.
//!
//! An end that is sent away and dropped, as ends mostly are, comes back if its message is not sent after all, or if the
//! process that it was for dies before it has taken it. Edge K: who brings it back says first in the owner word that it
//! is here (release: [`Bars::come_back`]), who drops it looks there afterwards (acquire: [`Bars::drop_here`]), and
//! of the two the later lets go of it.

use std::sync::Arc;

use crate::error::{Corrupt, RecvError, SegmentError};
use crate::handle::{self, Carriage, Over, Travelling};
use crate::kin;
use crate::layout::StreamHeader;
use crate::roster::{self, Life, Owner};
use crate::segment::{Segment, View};
use crate::signal::Vigil;
use crate::stream::Lines;
use crate::sync::{self, AtomicU32, Futex, Ordering};

use super::plan::{Plan, Side};

/// One end of a pipe, as the process knows it that has it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) segment: Segment,
    pub(super) plan: Plan,
    pub(super) side: Side,
    /// The direction I write; its owner word is the other end's.
    pub(super) out: View<StreamHeader>,
    /// The direction I read; its owner word is mine.
    pub(super) inn: View<StreamHeader>,
    /// The tree's count of deaths.
    pub(super) deaths: &'static Futex,
    vigil: Vigil,
    me: Owner,
    /// 0 in a process forked by the user.
    mark: &'static AtomicU32,
    pub(super) bars: Bars,
}

/// Why a call cannot go the short way, which asks for none of these by itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bar {
    /// This end has been sent away.
    Away = 1,
    /// A message has begun that must be finished, or taken back, before another.
    Begun = 2,
    /// It was said that nothing comes any more: nothing does, whatever the other end's process still writes.
    Over = 4,
    /// This end has been dropped.
    Dropped = 8,
}

/// The bars that are up, shared with whoever may bring back this end if it was not sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Bars(Arc<AtomicU32>);

impl Bars {
    #[inline(always)]
    fn are_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    pub(super) fn has(&self, bar: Bar) -> bool {
        self.0.load(Ordering::Relaxed) & bar as u32 != 0
    }

    pub(super) fn put(&self, bar: Bar) {
        if !self.has(bar) {
            self.0.fetch_or(bar as u32, Ordering::Relaxed);
        }
    }

    /// Marks the end as dropped, and says whether it is to be let go of: it is not when it is away.
    fn drop_here(&self) -> bool {
        // Edge K, dropping end.
        self.0.fetch_or(Bar::Dropped as u32, Ordering::AcqRel) & Bar::Away as u32 == 0
    }

    /// The end is here again; false if it has been dropped meanwhile.
    fn come_back(&self) -> bool {
        // Edge K, end that brings it back.
        self.0.fetch_and(!(Bar::Away as u32), Ordering::AcqRel) & Bar::Dropped as u32 == 0
    }

    pub(super) fn lift(&self, bar: Bar) {
        if self.has(bar) {
            self.0.fetch_and(!(bar as u32), Ordering::Relaxed);
        }
    }
}

impl Link {
    /// An end of a pipe that is being made.
    pub(super) fn take(segment: &Segment, plan: Plan, side: Side) -> Result<Link, SegmentError> {
        let link = Link::over(segment.clone(), plan, side)?;
        link.inn.owner.store(link.me.word(), Ordering::Release);
        Ok(link)
    }

    /// An end that was on its way here; `None` if it was given up, because its sender is dead.
    pub(super) fn arrive(
        segment: Segment,
        side: Side,
        tag: u32,
    ) -> Result<Option<Link>, SegmentError> {
        let plan = Plan::of(&segment).ok_or(SegmentError::Corrupt(Corrupt(
            "a pipe's length is not that of two rings",
        )))?;
        let link = Link::over(segment, plan, side)?;
        // Edge E, both ends: what the end's last owner did with it is done.
        Ok(roster::arrive(&link.inn.owner, tag, link.me).then_some(link))
    }

    fn over(segment: Segment, plan: Plan, side: Side) -> Result<Link, SegmentError> {
        let me = Owner::Held(segment.life().me());
        Ok(Link {
            out: segment.view(plan.header(side))?,
            inn: segment.view(plan.header(side.other()))?,
            deaths: kin::kin().map_err(SegmentError::Io)?.deaths(),
            vigil: Vigil::new(),
            me,
            mark: kin::fork_mark().map_err(SegmentError::Io)?,
            bars: Bars::default(),
            segment,
            plan,
            side,
        })
    }

    /// Where a message lies that was sent, when all up to that position was.
    pub(super) fn carriage(&self, position: u64) -> Carriage {
        // Both words stand in the header of the direction that I write.
        let header = self.plan.header(self.side);
        let at = |offset: usize| header + offset as u64;
        Carriage {
            segment: Travelling(self.segment.clone()),
            at: at(std::mem::offset_of!(StreamHeader, decoded)),
            over: Over::Reached(position),
            readers: (at(std::mem::offset_of!(StreamHeader, owner)), 1),
            hands: 0,
        }
    }

    /// My own participant number.
    pub(super) fn me(&self) -> u32 {
        self.segment.life().me()
    }

    pub(super) fn lines(&self) -> Lines {
        self.plan.lines
    }

    /// Whether there is nothing in the way of sending, as far as a short look tells.
    #[inline(always)]
    pub(super) fn is_up(&self) -> bool {
        self.is_here()
            && self.out.owner.load(Ordering::Relaxed) != 0
            && !self.vigil.has_news(self.deaths)
    }

    /// Whether there is nothing in the way of receiving, as far as a short look tells.
    #[inline(always)]
    pub(super) fn is_here(&self) -> bool {
        self.mark.load(Ordering::Relaxed) != 0 && self.bars.are_none()
    }

    /// Whether this end is mine, in the process that it belongs to.
    pub(super) fn check(&self) -> Result<(), RecvError> {
        if self.mark.load(Ordering::Relaxed) == 0 {
            return Err(RecvError::Forked);
        }
        if self.bars.has(Bar::Away) {
            return Err(RecvError::Closed);
        }
        match Owner::from_word(self.inn.owner.load(Ordering::Relaxed)) == self.me {
            true => Ok(()),
            false => Err(RecvError::Evicted),
        }
    }

    /// Whether others have taken this process for dead.
    pub(super) fn is_evicted(&self) -> bool {
        self.segment.life().is_evicted()
            || Owner::from_word(self.inn.owner.load(Ordering::Relaxed)) == Owner::Free
    }

    /// Whether the other end has been let go of; what it sent is then here to be seen.
    pub(super) fn has_left(&self) -> bool {
        // Edge E, looking end.
        Owner::from_word(self.out.owner.load(Ordering::Acquire)) == Owner::Free
    }

    /// Whether the other end is gone, asking the system about its owner if it is time to.
    pub(super) fn is_alone(&mut self) -> bool {
        if self.vigil.is_due(self.deaths) {
            self.ask()
        } else {
            self.has_left()
        }
    }

    /// Whether the other end is gone, asking the system about its owner.
    pub(super) fn ask(&self) -> bool {
        // A forked copy lets go of nobody's end.
        if self.mark.load(Ordering::Relaxed) == 0 {
            return self.has_left();
        }
        let word = &self.out.owner;
        // Edge E, looking end: what the dead had sent is here to be seen.
        let seen = Owner::from_word(word.load(Ordering::Acquire));
        match seen.participant() {
            None => true,
            Some(owner) if self.segment.life().is_dead(owner) && !cfg!(planted) => {
                roster::release(word, seen);
                self.has_left()
            }
            Some(_) => false,
        }
    }

    /// Lets go of this end, if it is mine, and tells the other one.
    pub(super) fn leave(&self) {
        if self.bars.drop_here() {
            let_go(&self.out, &self.inn, self.me);
        }
    }

    /// Sends this end away; `None` if it is not mine.
    pub(super) fn send_away(&self, tag: u32) -> Option<Away> {
        let word = Owner::OnItsWay {
            from: self.me(),
            tag,
        };
        // Edge E, giving end: where this end is, is said.
        if !roster::hand_over(&self.inn.owner, self.me, word) {
            return None;
        }
        self.bars.put(Bar::Away);
        Some(Away {
            out: self.out.clone(),
            inn: self.inn.clone(),
            at: self.plan.header(self.side.other())
                + std::mem::offset_of!(StreamHeader, owner) as u64,
            word,
            me: self.me,
            bars: self.bars.clone(),
        })
    }
}

/// An end on its way.
pub(super) struct Away {
    out: View<StreamHeader>,
    inn: View<StreamHeader>,
    /// Where its owner word is.
    pub(super) at: u64,
    pub(super) word: Owner,
    me: Owner,
    bars: Bars,
}

impl Away {
    /// Brings the end back, if it has not arrived; lets go of it if nobody has it here any more.
    pub(super) fn bring_back(&self) {
        // Edge E, both ends.
        if roster::hand_over(&self.inn.owner, self.word, self.me) && !self.bars.come_back() {
            let_go(&self.out, &self.inn, self.me);
        }
    }
}

fn let_go(out: &StreamHeader, inn: &StreamHeader, me: Owner) {
    // Edge E, giving end.
    roster::release(&inn.owner, me);
    sync::fence();
    out.ready.notify_all();
    inn.room.notify_all();
    // What nobody will read any more, nobody need hold.
    handle::look();
}
