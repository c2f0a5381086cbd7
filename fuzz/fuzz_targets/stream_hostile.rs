//! A stream against a peer whose every word the fuzzer chooses.

#![no_main]

#[path = "../../tests/hostile/chosen.rs"]
#[allow(dead_code, reason = "the lock is not played here")]
mod chosen;
mod error {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Corrupt(pub(crate) &'static str);
}
#[path = "../../src/layout.rs"]
#[allow(dead_code, reason = "the protocols under test need some of the layout")]
mod layout;
#[path = "../../tests/hostile/pipe.rs"]
mod pipe;
#[path = "../../src/signal.rs"]
#[allow(dead_code, reason = "waiting is not under test here")]
mod signal;
#[path = "../../src/stream.rs"]
#[allow(dead_code, reason = "one user of the stream does not need all of it")]
mod stream;
use chosen as sync;

libfuzzer_sys::fuzz_target!(|input: &[u8]| pipe::play(input));
