//! A worker that writes anything over the words that it shares with its pool, while the pool is used.
//!
//! What the pool says may be nonsense then, but it says it in time: each call ends, in a value or in an error, and
//! nothing panics in the pool's own process. Results are only ever read where the pool itself gave room for them: what
//! the words name beyond that is an error, as the fuzz target `pool_frame` plays it. `HOSTILE_ROUNDS` sets how many
//! pools there are.

#![cfg(not(loom))]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use multiproc::{OnDeath, Pool, TaskError};

/// No call may take longer.
const BOUND: Duration = Duration::from_secs(20);
const WORKERS: usize = 3;
/// What comes before the words of the pool: the header, by which workers find them at all.
const HEADER: u64 = 256;
/// Words of the page, the rows and the first cells lie within so many bytes.
const WORDS: u64 = 56 * 1024;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Where this worker has mapped its pool's segment.
fn place() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a process has maps");
    let line = maps
        .lines()
        .find(|line| line.contains("memfd:multiproc:pool"));
    let start = line.and_then(|line| line.split('-').next());
    u64::from_str_radix(start.expect("a worker has a pool"), 16).expect("an address")
}

/// What a hostile task does: writes over words, some at once, for so many milliseconds. How many.
fn scribble(seed: u64, time: u64) -> u64 {
    let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed + 1));
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/mem");
    let memory = memory.expect("a process has its memory");
    let end = Instant::now() + Duration::from_millis(time);
    let place = place() + HEADER;
    let mut written = 0;
    while Instant::now() < end {
        for _ in 0..random.below(64) {
            write_over(&memory, place + random.below(WORDS / 8) * 8, &mut random);
            written += 1;
        }
        std::thread::sleep(Duration::from_micros(random.below(2_000)));
    }
    written
}

fn write_over(memory: &File, at: u64, random: &mut Random) {
    let mut word = [0; 8];
    if memory.read_exact_at(&mut word, at).is_err() {
        return;
    }
    let now = u64::from_ne_bytes(word);
    let then = match random.below(8) {
        0 | 1 => random.next(),
        2 => 0,
        3 => u64::MAX,
        4 => now.wrapping_add(random.below(16)),
        5 => now ^ 1 << random.below(64),
        6 => random.below(64),
        _ => random.below(16) << 32 | random.below(64),
    };
    // All of it is mapped.
    let _ = memory.write_at(&then.to_ne_bytes(), at);
}

fn longer(text: String) -> String {
    text + "!"
}

/// Waits for what a call comes to; whether it was a value.
fn ends<R>(what: &str, seed: u64, call: impl FnOnce() -> Result<R, TaskError>) -> bool {
    let start = Instant::now();
    let ended = call();
    let took = start.elapsed();
    let is_late = matches!(ended, Err(TaskError::TimedOut { pid: None, .. }));
    assert!(
        !is_late && took < BOUND,
        "seed {seed}: {what} took {took:?}"
    );
    ended.is_ok()
}

fn play(seed: u64) -> [u64; 2] {
    let pool = Pool::builder()
        .workers(WORKERS)
        .on_worker_death(OnDeath::Retry(1))
        .build()
        .expect("a pool can be made");
    let hostile = pool.apply_async(scribble, (seed, 400));
    let mut random = Random(seed + 1);
    let mut counts = [0, 0];
    while !hostile.is_ready() {
        let texts = vec!["x".repeat(random.below(300) as usize); random.below(40) as usize];
        let count = 1 + random.below(200);
        let ended = match random.below(3) {
            0 => ends("apply_async", seed, || {
                let task = pool.apply_async(u64::swap_bytes, (7,));
                task.get_timeout(BOUND)
            }),
            1 => ends("map_async", seed, || {
                let task = pool.chunk_size(3).map_async(u64::swap_bytes, 0..count);
                task.get_timeout(BOUND).map(|_| 0)
            }),
            _ => ends("map_async of texts", seed, || {
                let task = pool.chunk_size(2).map_async(longer, texts);
                task.get_timeout(BOUND).map(|_| 0)
            }),
        };
        counts[usize::from(!ended)] += 1;
    }
    ends("the hostile task", seed, || hostile.get_timeout(BOUND));
    let start = Instant::now();
    drop(pool);
    assert!(
        start.elapsed() < BOUND,
        "seed {seed}: the pool does not end"
    );
    counts
}

#[test]
fn a_worker_that_writes_anything_holds_nobody_up() {
    let rounds = std::env::var("HOSTILE_ROUNDS").map_or(6, |text| text.parse().expect("a number"));
    let mut all = [0, 0];
    for seed in 1..=rounds {
        let counts = play(seed);
        all[0] += counts[0];
        all[1] += counts[1];
    }
    eprintln!("{} calls ended in values, {} in errors", all[0], all[1]);
    assert!(all[0] > 0, "nothing worked at all");
}
