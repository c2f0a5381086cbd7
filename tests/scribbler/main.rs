//! A process that writes garbage over all that another one shares, while that one uses it.
//!
//! What it is told may be nonsense, but it goes on: no crash, no panic, and every call that has a limit ends
//! in time. `SCRIBBLE_CALLS` says how many calls there are to be at least, instead of those of a few seconds. With the
//! address sanitizer:
//!
//! ```text
//! RUSTFLAGS=-Zsanitizer=address cargo +nightly test -Zbuild-std --target x86_64-unknown-linux-gnu --test scribbler
//! ```

#![cfg(not(loom))]

mod held;
mod names;
mod texts;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use multiproc::{
    Child, Frozen, Lock, LockError, Message, Pipe, PipeEnd, Pool, Process, Queue, Receiver,
    Segment, Sender,
};

/// No call with a limit may take longer than that: much more than its limit and a slice, on a busy machine.
const BOUND: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_micros(500);
/// How long whoever is told to stop may take: the longest call among them.
const LIMIT: Duration = Duration::from_secs(60);

/// How long it takes at least.
const TIME: Duration = Duration::from_secs(3);

/// How many calls the victim is to make at least.
fn calls_asked() -> u64 {
    let asked = std::env::var("SCRIBBLE_CALLS").ok();
    asked.map_or(1, |text| text.parse().expect("SCRIBBLE_CALLS is a number"))
}

/// Words of the board.
mod at {
    pub(super) const STOP: usize = 0;
    pub(super) const CALLS: usize = 1;
}

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

/// What a process shares, but for the roster and the tree, by which it lives.
fn shared(pid: u32) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let ours = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| {
            let target = target.display().to_string();
            target.contains("memfd:multiproc:")
                && !["roster", "tree", "segment"]
                    .iter()
                    .any(|not| target.contains(not))
        })
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(ours)
        .collect()
}

/// Scribbles over all that the victim has, until it is told to stop.
fn scribble(victim: u32, board: Segment) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let stop = &board.words()[at::STOP];
    while stop.load(Relaxed) == 0 {
        for path in shared(victim) {
            if let Ok(file) = OpenOptions::new().read(true).write(true).open(path) {
                scribble_over(&file, &mut random);
            }
        }
    }
}

fn scribble_over(file: &File, random: &mut Random) {
    let length = file.metadata().map_or(0, |data| data.len());
    // A pool's is as long as the machine has memory: its words are at the start, and behind them little is used.
    let length = length.min(match random.below(2) {
        0 => 64 << 10,
        _ => 8 << 20,
    });
    if length < 8 {
        return;
    }
    for _ in 0..random.below(200) {
        // The words that matter are at the start of a page more often than not.
        let at = match random.below(4) {
            0 => random.below(length / 8) * 8,
            _ => {
                (random.below(length.div_ceil(4096)) * 4096 + random.below(64) * 8).min(length - 8)
            }
        };
        let mut word = [0; 8];
        if file.read_exact_at(&mut word, at).is_err() {
            return;
        }
        let now = u64::from_ne_bytes(word);
        let then = match random.below(8) {
            0 => random.next(),
            1 => 0,
            2 => u64::MAX,
            3 => now.wrapping_add(random.below(16)),
            4 => now.wrapping_sub(random.below(16)),
            5 => now ^ 1 << random.below(64),
            6 => random.below(16),
            _ => random.below(16) << 32 | random.below(4),
        };
        // The file cannot grow; nothing else can go wrong.
        let _ = file.write_at(&then.to_ne_bytes(), at);
    }
}

/// How long this thread has waited for a processor.
fn kept_waiting() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = text.split_ascii_whitespace().nth(1);
    Duration::from_nanos(waited.and_then(|waited| waited.parse().ok()).unwrap_or(0))
}

/// Calls, and how long the longest took.
struct Calls {
    count: u64,
    longest: Duration,
    /// How long this thread had waited for a processor some time ago.
    waited: Duration,
}

impl Calls {
    fn bounded<R>(&mut self, what: &str, call: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = call();
        let took = start.elapsed();
        if took >= BOUND {
            // Not on a crowded machine: what it has waited since is at least what it has waited meanwhile.
            let waited = kept_waiting() - self.waited;
            assert!(
                took < BOUND + waited,
                "{what} took {took:?}, waiting {waited:?}"
            );
        }
        self.longest = self.longest.max(took);
        self.count += 1;
        result
    }
}

fn use_queue<T: Message + Clone>(calls: &mut Calls, random: &mut Random, in_place: bool, value: T) {
    let mut builder = Queue::<T>::builder()
        .capacity(8)
        .message_size(64)
        .senders(4)
        .receivers(4);
    if in_place {
        builder = builder.in_place(8);
    }
    // What is scribbled over while it is made may be refused at once.
    let Ok((mut tx, mut rx)) = calls.bounded("queue", || builder.build()) else {
        return;
    };
    let mut more: Vec<(Sender<T>, Receiver<T>)> = Vec::new();
    let mut leases = Vec::new();
    for _ in 0..random.below(2_000) {
        match random.below(16) {
            0..=3 => _ = calls.bounded("try_send", || tx.try_send(value.clone())),
            4..=7 => _ = calls.bounded("try_recv", || rx.try_recv()),
            8 => _ = calls.bounded("send", || tx.send_timeout(value.clone(), SHORT)),
            9 => match random.below(3) {
                0 => _ = calls.bounded("recv", || rx.recv_timeout(SHORT)),
                // Nobody else receives: what is there, is there.
                1 if !rx.is_empty() => _ = calls.bounded("recv_many", || rx.recv_many(8)),
                _ => _ = calls.bounded("capacity", || (tx.capacity(), rx.is_empty())),
            },
            10 => _ = calls.bounded("stats", || (rx.len(), tx.stats())),
            11 => _ = calls.bounded("is_closed", || (tx.is_closed(), rx.is_closed())),
            12 => {
                let cloned = calls.bounded("clone", || (tx.try_clone(), rx.try_clone()));
                if let (Ok(sender), Ok(receiver)) = cloned {
                    more.push((sender, receiver));
                }
            }
            13 => _ = calls.bounded("drop", || more.pop()),
            14 if leases.len() < 4 => leases.extend(calls.bounded("lease", || rx.try_lease())),
            _ => {
                if let Some(lease) = leases.pop() {
                    let _ = calls.bounded("read", || lease.read());
                    calls.bounded("ack", || lease.ack());
                }
            }
        }
    }
    calls.bounded("drop", || drop((tx, rx, more, leases)));
}

/// Written and read where the messages lie.
fn use_blocks(calls: &mut Calls, random: &mut Random) {
    let builder = Queue::<Vec<u64>>::builder().capacity(8).message_size(4096);
    let Ok((mut tx, mut rx)) = calls.bounded("queue", || builder.in_place(8).build()) else {
        return;
    };
    let mut leases = Vec::new();
    for _ in 0..random.below(2_000) {
        match random.below(6) {
            0 | 1 => {
                let size = random.below(512) as usize;
                if let Ok(mut loan) = calls.bounded("loan", || tx.loan_timeout(SHORT)) {
                    loan.truncate(size);
                    loan.fill(7);
                    let _ = calls.bounded("commit", || loan.commit());
                }
            }
            2 | 3 => leases.extend(calls.bounded("lease", || rx.lease_timeout(SHORT))),
            4 => {
                for lease in &leases {
                    calls.bounded("get", || {
                        std::hint::black_box(lease.get().iter().fold(0, |a, b| a ^ b))
                    });
                }
            }
            _ => match random.below(2) {
                0 => drop(leases.pop()),
                _ => leases.drain(..).for_each(|lease| lease.ack()),
            },
        }
    }
    calls.bounded("blocks drop", || drop((tx, rx, leases)));
}

/// Handles in messages: of what is written over them, none is believed, and none is looked for too long.
fn use_handles(calls: &mut Calls, random: &mut Random) {
    type Handles = (Segment, Frozen<u8>, Lock<u64>, Sender<u8>, PipeEnd<u8, u8>);
    let builder = Queue::<Handles>::builder().capacity(4).message_size(1024);
    let Ok((mut tx, mut rx)) = calls.bounded("queue", || builder.build()) else {
        return;
    };
    for _ in 0..random.below(50) {
        let made = calls.bounded("make", || {
            Some((
                Segment::new(64).ok()?,
                Frozen::from_slice(&[7; 100]).ok()?,
                Lock::new(7).ok()?,
                Queue::new(2).ok()?.0,
                Pipe::new().ok()?.0,
            ))
        });
        if let Some(handles) = made {
            _ = calls.bounded("send handles", || tx.try_send(handles).is_ok());
        }
        for _ in 0..random.below(3) {
            _ = calls.bounded("recv handles", || rx.try_recv());
        }
    }
    calls.bounded("handles drop", || drop((tx, rx)));
}

fn use_pool(calls: &mut Calls, random: &mut Random) {
    fn longer(mut text: String) -> String {
        text.push('!');
        text
    }
    let Ok(pool) = calls.bounded("pool", || Pool::new(1)) else {
        return;
    };
    for _ in 0..random.below(200) {
        let count = random.below(20);
        match random.below(6) {
            0 => {
                let task = calls.bounded("apply_async", || pool.apply_async(u64::swap_bytes, (7,)));
                _ = calls.bounded("get", || task.get_timeout(SHORT));
            }
            1 => {
                let task = calls.bounded("map_async", || pool.map_async(u64::swap_bytes, 0..count));
                _ = calls.bounded("get", || task.get_timeout(SHORT));
            }
            2 => {
                let texts = vec!["x".repeat(random.below(300) as usize); count as usize];
                let task = calls.bounded("map_async", || pool.map_async(longer, texts));
                _ = calls.bounded("get", || task.get_timeout(SHORT));
            }
            3 => {
                let task = calls.bounded("apply_async", || pool.apply_async(u64::swap_bytes, (7,)));
                _ = calls.bounded("cancel", || task.cancel());
            }
            4 => _ = calls.bounded("stats", || (pool.stats(), pool.workers())),
            _ => {
                let task = calls.bounded("apply_async", || pool.apply_async(u64::swap_bytes, (7,)));
                _ = calls.bounded("wait", || (task.wait(SHORT), task.is_ready()));
            }
        }
    }
    calls.bounded("pool drop", || drop(pool));
}

fn use_pipe(calls: &mut Calls, random: &mut Random) {
    let builder = Pipe::<String, Vec<u8>>::builder().size(8192);
    let Ok((mut here, mut there)) = calls.bounded("pipe", || builder.build()) else {
        return;
    };
    for _ in 0..random.below(2_000) {
        let size = random.below(300) as usize;
        let mut buffer = [0; 512];
        match random.below(11) {
            0 | 1 => _ = calls.bounded("pipe try_send", || here.try_send("x".repeat(size))),
            2 | 3 => _ = calls.bounded("pipe try_recv", || there.try_recv()),
            4 => {
                _ = calls.bounded("pipe send", || {
                    there.send_timeout(vec![7; 20 * size], SHORT)
                })
            }
            5 => _ = calls.bounded("pipe recv", || here.recv_timeout(SHORT)),
            6 => _ = calls.bounded("pipe poll", || here.poll(SHORT)),
            7 => _ = calls.bounded("pipe send_bytes", || there.send_bytes(&buffer[..size])),
            // Told that something is there, it may be the beginning of what never ends: not to be waited for.
            8 => _ = calls.bounded("pipe try_recv", || here.try_recv()),
            9 => {
                if size < 8 && calls.bounded("pipe poll", || there.poll(SHORT)) == Ok(true) {
                    _ = calls.bounded("pipe recv_bytes_into", || {
                        there.recv_bytes_into(&mut buffer)
                    });
                }
            }
            _ => _ = calls.bounded("pipe is_closed", || here.is_closed()),
        }
    }
    calls.bounded("pipe drop", || drop((here, there)));
}

fn use_lock(calls: &mut Calls, random: &mut Random) {
    let Ok(lock) = calls.bounded("lock", || Lock::new(7_u64)) else {
        return;
    };
    for _ in 0..random.below(2_000) {
        match random.below(2) {
            0 => drop(calls.bounded("try_lock", || lock.try_lock())),
            _ => match calls.bounded("lock", || lock.lock_timeout(SHORT)) {
                Err(LockError::Abandoned(_)) => {
                    drop(calls.bounded("recover", || lock.recover_timeout(SHORT)));
                }
                other => drop(other),
            },
        }
    }
    calls.bounded("lock drop", || drop(lock));
}

/// Uses pools, until it is told to stop.
fn pools_scribbled_over(board: Segment) -> (u64, u64) {
    let mut random = Random(0x94d0_49bb_1331_11eb);
    scribbled_over(&board, |calls| use_pool(calls, &mut random))
}

/// Uses all there is but pools, until it is told to stop; how many calls it made, and the longest in microseconds.
fn be_scribbled_over(board: Segment) -> (u64, u64) {
    let mut random = Random(0xbf58_476d_1ce4_e5b9);
    scribbled_over(&board, |calls| match random.below(9) {
        0 => use_queue(calls, &mut random, false, 7_u64),
        1 => use_queue(calls, &mut random, false, "text".to_owned()),
        2 => use_queue(calls, &mut random, false, [7_u64; 6]),
        3 => use_queue(calls, &mut random, true, vec![7_u64; 5]),
        4 => use_queue(calls, &mut random, true, "text ".repeat(9)),
        5 => use_blocks(calls, &mut random),
        6 => use_handles(calls, &mut random),
        7 => use_pipe(calls, &mut random),
        _ => use_lock(calls, &mut random),
    })
}

fn scribbled_over(board: &Segment, mut act: impl FnMut(&mut Calls)) -> (u64, u64) {
    let mut calls = Calls {
        count: 0,
        longest: Duration::ZERO,
        waited: Duration::ZERO,
    };
    let stop = &board.words()[at::STOP];
    while stop.load(Relaxed) == 0 {
        board.words()[at::CALLS].store(calls.count, Relaxed);
        calls.waited = kept_waiting();
        act(&mut calls);
    }
    (calls.count, calls.longest.as_micros() as u64)
}

#[test]
fn scribbled_over_it_goes_on() {
    it_goes_on(|board| Process::spawn(be_scribbled_over, (board,)).unwrap());
}

#[test]
fn scribbled_over_a_pool_goes_on() {
    it_goes_on(|board| Process::spawn(pools_scribbled_over, (board,)).unwrap());
}

fn it_goes_on(start: impl FnOnce(Segment) -> Child<(u64, u64)>) {
    let board = Segment::new(64).unwrap();
    let victim = start(board.clone());
    let scribblers: Vec<_> = (0..2)
        .map(|_| Process::spawn(scribble, (victim.pid(), board.clone())).unwrap())
        .collect();
    let end = Instant::now() + TIME;
    let calls = &board.words()[at::CALLS];
    while (Instant::now() < end || calls.load(Relaxed) < calls_asked()) && victim.is_alive() {
        std::thread::sleep(Duration::from_millis(20));
    }
    board.words()[at::STOP].store(1, Relaxed);
    let (calls, longest) = match victim.join_timeout(LIMIT) {
        Ok(Some(done)) => done,
        Ok(None) => panic!("the victim hangs"),
        Err(error) => panic!("the victim did not live through it: {error}"),
    };
    for scribbler in scribblers {
        scribbler
            .join_timeout(LIMIT)
            .unwrap()
            .expect("a scribbler hangs");
    }
    println!("{calls} calls, the longest took {longest} us");
    assert!(calls >= calls_asked());
}
