//! Processes killed at random moments, thousands of times, while the others work on.
//!
//! Run in release: `cargo test --release --test kill`. `MULTIPROC_KILLS` sets how many, instead of a
//! number that takes about a minute. Built with `--cfg planted`, the crate has bugs that these tests must find.

mod queue;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test and its name.
type Test = (&'static str, fn() -> Result<(), Failed>);

fn main() {
    let mut arguments = Arguments::from_args();
    // Each fills the machine by itself.
    arguments.test_threads = Some(1);
    let trials = queue::TESTS
        .iter()
        .map(|&(name, test)| Trial::test(name, test))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

/// How many kills a test makes, of the number that it makes usually.
fn kills(usual: usize) -> usize {
    match std::env::var("MULTIPROC_KILLS") {
        Ok(text) => text.parse().expect("MULTIPROC_KILLS is a number"),
        Err(_) => usual,
    }
}

/// A small generator of numbers, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
