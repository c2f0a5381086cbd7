//! A lane and its owners against a peer whose every word the fuzzer chooses.

#![no_main]

#[path = "../../tests/hostile/chosen.rs"]
#[allow(dead_code, reason = "the lock is not played here")]
mod chosen;
mod error {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Corrupt(pub(crate) &'static str);
}
#[path = "../../tests/hostile/lane.rs"]
mod lane;
#[path = "../../src/layout.rs"]
#[allow(dead_code, reason = "the protocols under test need some of the layout")]
mod layout;
#[path = "../../src/ring.rs"]
#[allow(dead_code, reason = "one user of the ring does not need all of it")]
mod ring;
#[path = "../../src/roster.rs"]
#[allow(dead_code, reason = "one user of the roster does not need all of it")]
mod roster;
#[path = "../../src/signal.rs"]
#[allow(dead_code, reason = "waiting is not under test here")]
mod signal;
use chosen as sync;

libfuzzer_sys::fuzz_target!(|input: &[u8]| lane::play(input));
