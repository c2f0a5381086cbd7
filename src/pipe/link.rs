//! What an end knows besides its two streams: the segment, and who has the ends.
//!
//! Each end has an owner word (see [`roster`]), beside the words that the other end's sends
//! look at anyway. Free is final for an end: nobody takes it up again. Whoever finds the other end's
//! owner dead frees the word, by one compare-and-swap from what was seen: from then on an end that was on its
//! way from there does not arrive any more, so `Closed` stays `Closed`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Corrupt, RecvError, SegmentError};
use crate::kin::{self, Vigil};
use crate::layout::StreamHeader;
use crate::roster::{self, Life, Owner};
use crate::segment::{Segment, View};
use crate::stream::Lines;
use crate::sync::{self, Futex, Ordering};

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
    /// What my owner word says while this end is mine.
    mine: u64,
    /// Whether this end was let go of; shared with whoever may bring it back if it was not sent.
    pub(super) gone: Arc<AtomicBool>,
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
        from: Owner,
    ) -> Result<Option<Link>, SegmentError> {
        let plan = Plan::of(&segment).ok_or(SegmentError::Corrupt(Corrupt(
            "a pipe's length is not that of two rings",
        )))?;
        let link = Link::over(segment, plan, side)?;
        // Edge E, both ends: what the end's last owner did with it is done.
        Ok(roster::hand_over(&link.inn.owner, from, link.me).then_some(link))
    }

    fn over(segment: Segment, plan: Plan, side: Side) -> Result<Link, SegmentError> {
        let me = Owner::Held(segment.life().me());
        let link = Link {
            out: segment.view(plan.header(side))?,
            inn: segment.view(plan.header(side.other()))?,
            deaths: kin::kin().map_err(SegmentError::Io)?.deaths(),
            vigil: Vigil::new(),
            me,
            mine: me.word(),
            gone: Arc::default(),
            segment,
            plan,
            side,
        };
        link.inn.ready.attach();
        link.out.room.attach();
        link.out.ready.attach();
        link.inn.room.attach();
        Ok(link)
    }

    /// My own participant number.
    pub(super) fn me(&self) -> u32 {
        self.segment.life().me()
    }

    pub(super) fn lines(&self) -> Lines {
        self.plan.lines
    }

    /// Whether this end is still mine, as far as a look at two words tells, and the other one somebody's.
    #[inline(always)]
    pub(super) fn is_up(&self) -> bool {
        self.out.owner.load(Ordering::Relaxed) != 0
            && self.is_mine()
            && !self.vigil.has_news(self.deaths)
    }

    /// Whether this end is still mine: not sent away, not taken for dead.
    #[inline(always)]
    pub(super) fn is_mine(&self) -> bool {
        self.inn.owner.load(Ordering::Relaxed) == self.mine
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
        let word = &self.out.owner;
        // Edge E, looking end: what the dead had sent is here to be seen.
        let seen = Owner::from_word(word.load(Ordering::Acquire));
        match seen.participant() {
            None => true,
            Some(owner) if self.segment.life().is_dead(owner) => {
                roster::release(word, seen);
                self.has_left()
            }
            Some(_) => false,
        }
    }

    /// Why this end is not mine any more: sent away, or taken for dead.
    #[cold]
    pub(super) fn not_mine(&self) -> RecvError {
        match Owner::from_word(self.inn.owner.load(Ordering::Relaxed)) {
            Owner::Free => RecvError::Evicted,
            Owner::Held(_) | Owner::OnItsWay { .. } => RecvError::Closed,
        }
    }

    /// Lets go of this end, if it is mine, and tells the other one.
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Relaxed);
        // Of "gone, then free it if it is mine" and "brought back, then free it if it is gone" (see `travel`), one sees
        // the other's store.
        sync::fence();
        let_go(&self.inn, &self.out, self.me);
    }
}

/// Frees the end that reads `inn` and writes `out`, if that owner has it, and tells the other one.
pub(super) fn let_go(inn: &StreamHeader, out: &StreamHeader, owner: Owner) {
    // Edge E, giving end.
    roster::release(&inn.owner, owner);
    sync::fence();
    out.ready.notify_all();
    inn.room.notify_all();
}
