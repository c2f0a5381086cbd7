//! The pure protocols against a peer that writes anything at any time.
//!
//! Same sources, other atomics: see `chosen.rs`. The fuzz targets `ring_hostile` and `stream_hostile` play
//! the same operations with the fuzzer's bytes.

#![cfg(not(loom))]

mod chosen;
mod error {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Corrupt(pub(crate) &'static str);
}
mod lane;
#[path = "../../src/latch.rs"]
#[allow(dead_code, reason = "one user of the latch does not need all of it")]
mod latch;
#[path = "../../src/layout.rs"]
#[allow(dead_code, reason = "the protocols under test need some of the layout")]
mod layout;
mod lock;
mod pipe;
#[path = "../../src/ring.rs"]
#[allow(dead_code, reason = "one user of the ring does not need all of it")]
mod ring;
#[path = "../../src/roster.rs"]
#[allow(dead_code, reason = "one user of the roster does not need all of it")]
mod roster;
#[path = "../../src/signal.rs"]
#[allow(dead_code, reason = "waiting is not under test here")]
mod signal;
#[path = "../../src/stream.rs"]
#[allow(dead_code, reason = "one user of the stream does not need all of it")]
mod stream;
use chosen as sync;

/// A small generator, so that a failure names the seed that repeats it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn no_choice_of_loads_breaks_a_lane() {
    play(lane::play);
    play_seeds("ring_hostile", lane::play);
}

#[test]
fn no_choice_of_loads_breaks_a_stream() {
    play(pipe::play);
    play_seeds("stream_hostile", pipe::play);
}

#[test]
fn no_choice_of_loads_keeps_a_lock_waiting() {
    play(lock::play);
}

fn play(play: fn(&[u8])) {
    let games = if cfg!(debug_assertions) {
        4_000_u64
    } else {
        100_000
    };
    for seed in 1..=games {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let length = 1 + random.next() as usize % 96;
        let input: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        let played = std::panic::catch_unwind(|| play(&input));
        assert!(played.is_ok(), "seed {seed}: {input:?}");
    }
}

/// Plays what a fuzz target begins with: inputs that once broke something are among them.
fn play_seeds(target: &str, play: fn(&[u8])) {
    let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    for seed in std::fs::read_dir(&folder).unwrap() {
        let path = seed.unwrap().path();
        println!("{}", path.display());
        play(&std::fs::read(path).unwrap());
    }
}
