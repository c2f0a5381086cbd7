//! How long to leave a busy writer alone.
//!
//! A reader as quick as its writer looks at each line while it is being written, so every line
//! moves to and fro and both are slow. If it stays away for a moment, the writer gets ahead and
//! many lines move at once. But whoever waits for the answer to something it has just sent must
//! look as often as it can.
//!
//! So: after each wait, ask what the last one was worth. Much gathered: stay away longer, up to
//! [`LONGEST`]. Little: shorter. Nothing came for long, or we spoke in between: not at all. Now and then, when
//! messages come one by one, try whether staying away gathers more.

use std::time::{Duration, Instant};

use crate::sync::spin_loop;

const SHORTEST: Duration = Duration::from_nanos(250);
const LONGEST: Duration = Duration::from_nanos(1000);
/// So many lines in one go are worth the wait.
const MANY: u64 = 4;
/// How often to try, in waits.
const TRY: u32 = 16;
/// Looks after which a wait was a long one.
const PATIENT: u32 = 24;

/// What a reader knows of its writer's pace.
#[derive(Debug)]
pub(super) struct Lull {
    nap: Duration,
    /// Where the reader was when it last found nothing.
    position: u64,
    /// Whether something came soon after that.
    soon: bool,
    waits: u32,
    looks: u32,
}

impl Lull {
    pub(super) fn new() -> Lull {
        Lull {
            nap: Duration::ZERO,
            position: 0,
            soon: false,
            waits: 0,
            looks: 0,
        }
    }

    /// To be called when there is nothing at `position`: stays away for as long as seems good.
    pub(super) fn rest(&mut self, position: u64, spoke: bool) {
        let gathered = position.wrapping_sub(self.position);
        self.position = position;
        self.looks = 0;
        if spoke || !self.soon {
            self.nap = Duration::ZERO;
        } else if gathered >= MANY {
            self.nap = (self.nap * 2).clamp(SHORTEST, LONGEST);
        } else if gathered < MANY / 2 {
            self.waits = self.waits.wrapping_add(1);
            self.nap = if self.nap > SHORTEST {
                self.nap / 2
            } else if self.waits % TRY == 0 {
                SHORTEST
            } else {
                Duration::ZERO
            };
        }
        if !self.nap.is_zero() {
            let start = Instant::now();
            while start.elapsed() < self.nap {
                spin_loop();
            }
        }
    }

    /// To be called with every look during a wait.
    #[inline]
    pub(super) fn look(&mut self) {
        self.looks += 1;
    }

    /// To be called after a wait.
    pub(super) fn over(&mut self) {
        self.soon = self.looks < PATIENT;
    }
}
