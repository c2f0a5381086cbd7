//! Who is attached, and proof of who of them is dead.
//!
//! A *participant* is one process, named by a number that is never used twice in the life of its tree
//! (or of its named segment). It holds the byte lock at its own number; the kernel drops that at its
//! death. So an owner word may be taken over by anyone who sees in it the number of a proven-dead
//! participant, with one compare-and-swap from exactly the word that was seen: half a recovery, or two,
//! is harmless, and no clock is ever asked.
//!
//! An *owner word* says who holds a lane or a seat:
//!
//! | word | meaning |
//! |---|---|
//! | 0 | free |
//! | participant | held by that process |
//! | participant, bit 63 set, tag in bits 32 to 62 | on its way in a message that this process answers for: the one that sent it, or its parent when that has ended; the tag tells it from others on their way |

use crate::sync::{AtomicU64, Ordering};

/// Asks whether processes live.
pub(crate) trait Life {
    /// My own participant number, never 0.
    fn me(&self) -> u32;
    /// Whether the participant is proven dead. False for a stopped process, for a living one, for me.
    fn is_dead(&self, participant: u32) -> bool;
    /// Whether others hold *me* for dead, since my proof of life was lost: then nothing shared is mine any more.
    fn is_evicted(&self) -> bool;
}

const ON_ITS_WAY: u64 = 1 << 63;

/// What an owner word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody's.
    Free,
    /// Held by this participant.
    Held(u32),
    /// Travelling in a message that this participant answers for, told apart by a tag below 2^31.
    OnItsWay { from: u32, tag: u32 },
}

impl Owner {
    pub(crate) fn from_word(word: u64) -> Owner {
        let participant = word as u32;
        match (participant, word & ON_ITS_WAY) {
            (0, _) => Owner::Free,
            (held, 0) => Owner::Held(held),
            (from, _) => Owner::OnItsWay {
                from,
                tag: (word >> 32) as u32 & (u32::MAX >> 1),
            },
        }
    }

    pub(crate) fn word(self) -> u64 {
        match self {
            Owner::Free => 0,
            Owner::Held(participant) => u64::from(participant),
            Owner::OnItsWay { from, tag } => ON_ITS_WAY | u64::from(tag) << 32 | u64::from(from),
        }
    }

    /// The process whose death frees the word.
    pub(crate) fn participant(self) -> Option<u32> {
        match self {
            Owner::Free => None,
            Owner::Held(participant)
            | Owner::OnItsWay {
                from: participant, ..
            } => Some(participant),
        }
    }
}

/// Takes the word for `claim` if it is free or its owner is dead.
///
/// Edge E, taking end: the acquire pairs with the release in [`release`], or with the owner's death,
/// whose last stores the kernel has ordered before it dropped the byte lock.
pub(crate) fn claim(word: &AtomicU64, claim: Owner, life: &impl Life) -> bool {
    let seen = word.load(Ordering::Relaxed);
    let takeable = Owner::from_word(seen)
        .participant()
        .is_none_or(|owner| life.is_dead(owner));
    takeable
        && word
            .compare_exchange(seen, claim.word(), Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
}

/// Changes who holds the word, if it still says `from`. Edge E, both ends.
pub(crate) fn hand_over(word: &AtomicU64, from: Owner, to: Owner) -> bool {
    word.compare_exchange(from.word(), to.word(), Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
}

/// Takes over what is on its way with that tag, whoever answers for it by now. Edge E, both ends.
pub(crate) fn arrive(word: &AtomicU64, tag: u32, to: Owner) -> bool {
    let seen = Owner::from_word(word.load(Ordering::Relaxed));
    matches!(seen, Owner::OnItsWay { tag: its, .. } if its == tag) && hand_over(word, seen, to)
}

/// Gives the word back, if it is still `mine`. Edge E, giving end: pairs with the acquire in [`claim`].
pub(crate) fn release(word: &AtomicU64, mine: Owner) {
    let _ = word.compare_exchange(
        mine.word(),
        Owner::Free.word(),
        Ordering::Release,
        Ordering::Relaxed,
    );
}

/// Whether a living process holds the word (or has it on its way).
///
/// Edge E, looking end: the acquire makes everything visible that an owner published before it left, so
/// that "nobody is left, and then it was empty" is final.
pub(crate) fn is_held(word: &AtomicU64, life: &impl Life) -> bool {
    Owner::from_word(word.load(Ordering::Acquire))
        .participant()
        .is_some_and(|owner| !life.is_dead(owner))
}
