//! What has gone through a queue.

use crate::ring;
use crate::sync::Ordering;

use super::hub::{Hub, Lane};

/// What has gone through a queue since it was made, all its senders and receivers together.
///
/// Worked out when asked for, so that it costs messages nothing; outdated at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct QueueStats {
    /// Messages sent.
    pub sent: u64,
    /// Messages received, each counted once.
    pub received: u64,
    /// Messages handed out another time, because a receiver did not finish with them.
    pub redelivered: u64,
    /// How often a sender or receiver went to sleep.
    pub waits: u64,
}

impl Hub {
    fn lanes(&self) -> impl Iterator<Item = Lane> + '_ {
        (0..self.used()).filter_map(|number| self.lane(number).ok())
    }

    /// Received and still waiting, of one lane.
    fn count(&self, lane: &Lane) -> (u64, u64) {
        let head = lane.header.head.load(Ordering::Acquire);
        (
            head,
            ring::published(self.plan.geometry(), &lane.slots, head),
        )
    }

    /// Messages waiting in all lanes.
    pub(super) fn len(&self) -> usize {
        self.lanes().map(|lane| self.count(&lane).1 as usize).sum()
    }

    pub(super) fn stats(&self) -> QueueStats {
        let mut stats = QueueStats {
            redelivered: self.header.redelivered.load(Ordering::Relaxed),
            waits: self.header.waits.load(Ordering::Relaxed),
            ..QueueStats::default()
        };
        for lane in self.lanes() {
            let (received, waiting) = self.count(&lane);
            stats.received = stats.received.wrapping_add(received);
            stats.sent = stats.sent.wrapping_add(received).wrapping_add(waiting);
        }
        stats
    }
}
