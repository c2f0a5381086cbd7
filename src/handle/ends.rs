//! Ends on their way whose sender ends: its parent answers for them.
//!
//! An owner word that is on its way names the process that answers for it: while that lives, nobody concludes that
//! there is nobody. A process that ends in order tells its parent of each such word ([`End`]), and only then writes
//! the parent's number into it ([`End::leave_to`]). Killed in between, it is dead in the word, and whoever sees that
//! frees it; killed afterwards, or not at all, the parent has heard of it, and frees it if nobody takes it.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::{Item, Passed, Ticket, Travelling};
use crate::kin;
use crate::roster::{self, Owner};
use crate::segment::Segment;
use crate::sync::AtomicU64;

/// An owner word that says that an end is on its way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct End {
    segment: Travelling,
    at: u64,
    word: u64,
}

impl End {
    /// Makes another process answer for it, which has heard of it.
    pub(crate) fn leave_to(&self, parent: u32) {
        if let Ok(word) = self.segment.0.part::<AtomicU64>(self.at) {
            let owner = Owner::from_word(self.word);
            if let Owner::OnItsWay { tag, .. } = owner {
                roster::hand_over(word, owner, Owner::OnItsWay { from: parent, tag });
            }
        }
    }
}

/// What a parent answers for in place of a child.
struct Inherited {
    segment: Segment,
    at: u64,
    word: Owner,
}

impl Ticket for Inherited {
    fn undo(&self) {
        let Ok(word) = self.segment.part::<AtomicU64>(self.at) else {
            return;
        };
        let seen = word.load(Ordering::Relaxed);
        roster::release(word, self.word);
        if seen == self.word.word() {
            // Those who wait for somebody there look who is left, as after a death.
            if let Ok(kin) = kin::kin() {
                kin.announce_death();
            }
        }
    }

    fn word(&self) -> (u64, Owner) {
        (self.at, self.word)
    }
}

impl Passed {
    /// The ends among what is named. Those of named segments are left out: there each process has a number of its own.
    pub(crate) fn ends(&self) -> Vec<End> {
        let reserved = self.items.iter().filter(|item| !item.segment.is_named());
        reserved
            .filter_map(|item| {
                let (at, word) = item.ticket.as_ref()?.word();
                Some(End {
                    segment: Travelling(item.segment.clone()),
                    at,
                    word: word.word(),
                })
            })
            .collect()
    }
}

/// Answers for what a child has told of. Dropped, what nobody has taken is freed.
pub(crate) fn inherit_ends(ends: Vec<End>) -> Passed {
    let items = ends.into_iter().filter_map(|end| {
        let Owner::OnItsWay { tag, .. } = Owner::from_word(end.word) else {
            return None;
        };
        let Travelling(segment) = end.segment;
        let ticket = Inherited {
            at: end.at,
            word: Owner::OnItsWay {
                from: kin::kin().ok()?.me(),
                tag,
            },
            segment: segment.clone(),
        };
        Some(Item {
            segment,
            ticket: Some(Box::new(ticket)),
        })
    });
    Passed::of(items.collect())
}
