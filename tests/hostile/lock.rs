//! Entering and leaving a lock whose word a hostile peer chooses: each call ends in time.

use std::time::{Duration, Instant};

use super::chosen::{Futex, choose};
use super::latch::{Left, Limit, Visitor};
use super::layout::LatchWords;
use super::roster::Life;

/// How long a call may wait, and a good deal more than it may take.
const LIMIT: Duration = Duration::from_micros(50);
const BOUND: Duration = Duration::from_secs(5);

struct Anyone(u32);

impl Life for Anyone {
    fn me(&self) -> u32 {
        1
    }

    fn is_dead(&self, participant: u32) -> bool {
        participant % 3 < self.0
    }

    fn is_evicted(&self) -> bool {
        false
    }
}

/// Plays the first bytes as operations and all of them as the peer's choices.
pub(crate) fn play(input: &[u8]) {
    let words = LatchWords::default();
    let deaths = Futex::default();
    let me = Visitor {
        pid: 4711,
        participant: 1,
        thread: 1,
    };
    choose(input);
    let start = Instant::now();
    for operation in input.iter().take(4) {
        let limit = match operation % 2 {
            0 => Limit::Now,
            _ => Limit::For(LIMIT),
        };
        let life = Anyone(u32::from(operation >> 6));
        if words.try_enter(me) || words.enter(me, limit, &life, &deaths).is_ok() {
            words.leave(me.participant, Left::Finished);
        }
    }
    assert!(start.elapsed() < BOUND, "took {:?}", start.elapsed());
}
