//! Bare words in shared memory: what the machine allows, without any queue.

use crate::rig::board::{Common, Line, Shared};
use crate::rig::roles::Duplex;
use rustix::thread::futex;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

/// Question and answer on lines of their own, as any two queues have them.
pub struct Two<'a> {
    mine: &'a AtomicU64,
    theirs: &'a AtomicU64,
    seen: u64,
}

impl<'a> Two<'a> {
    pub fn side(lines: &'a Shared<[Line; 2]>, side: usize) -> Two<'a> {
        Two {
            mine: &lines[side].0,
            theirs: &lines[1 - side].0,
            seen: 0,
        }
    }

    /// Both on one line.
    pub fn same(words: &'a Shared<[AtomicU64; 2]>, side: usize) -> Two<'a> {
        Two {
            mine: &words[side],
            theirs: &words[1 - side],
            seen: 0,
        }
    }
}

impl Duplex for Two<'_> {
    fn send(&mut self, value: u64) {
        self.mine.store(value, Release);
    }

    fn recv(&mut self) -> u64 {
        loop {
            let value = self.theirs.load(Acquire);
            if value != self.seen {
                self.seen = value;
                return value;
            }
            spin_loop();
        }
    }
}

/// A word with a bell: asleep until it rings, without looking first.
#[repr(C, align(128))]
#[derive(Default)]
pub struct Bell {
    value: AtomicU64,
    rings: AtomicU32,
}

// SAFETY: atomics only.
unsafe impl Common for [Bell; 2] {}

/// Both sides asleep until woken: what a round trip costs when nobody spins.
pub struct Asleep<'a> {
    mine: &'a Bell,
    theirs: &'a Bell,
    heard: u32,
}

impl<'a> Asleep<'a> {
    pub fn side(bells: &'a Shared<[Bell; 2]>, side: usize) -> Asleep<'a> {
        Asleep {
            mine: &bells[side],
            theirs: &bells[1 - side],
            heard: 0,
        }
    }
}

impl Duplex for Asleep<'_> {
    fn send(&mut self, value: u64) {
        self.mine.value.store(value, Release);
        self.mine.rings.fetch_add(1, Release);
        futex::wake(&self.mine.rings, futex::Flags::empty(), 1).expect("waking");
    }

    fn recv(&mut self) -> u64 {
        while self.theirs.rings.load(Acquire) == self.heard {
            let _ = futex::wait(&self.theirs.rings, futex::Flags::empty(), self.heard, None);
        }
        self.heard = self.heard.wrapping_add(1);
        self.theirs.value.load(Acquire)
    }
}
