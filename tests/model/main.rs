//! Random operations on a queue, beside a model of it.

#![cfg(not(loom))]

mod play;

#[test]
fn a_queue_is_as_its_model() {
    let games = if cfg!(debug_assertions) {
        1_000_u64
    } else {
        5_000
    };
    for seed in 1..=games {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let length = 1 + next() as usize % 200;
        let input: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        let played = std::panic::catch_unwind(|| play::play(&input));
        assert!(played.is_ok(), "seed {seed}: {input:?}");
    }
}

/// What the fuzz target `queue_ops` begins with: inputs that once broke something are among them.
#[test]
fn the_fuzzers_seeds_are_played_as_the_model_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/queue_ops");
    for seed in std::fs::read_dir(folder).unwrap() {
        let path = seed.unwrap().path();
        println!("{}", path.display());
        play::play(&std::fs::read(path).unwrap());
    }
}
