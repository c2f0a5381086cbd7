//! Values whose bytes another process changes *while* they are received: what comes out is a value of its type, or
//! an error.
//!
//! A text that is checked where it lies and copied afterwards can be another one by then. So the scribbler changes
//! nothing but the bytes of messages, which it knows by their mark, and there and back as fast as it can.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytemuck::{CheckedBitPattern, NoUninit};
use multiproc::{Message, Pipe, Plain, Pool, Process, Queue, RecvError, Segment};

use crate::{LIMIT, at, shared};

/// Every byte of every message.
pub(super) const MARK: u8 = b'm';
/// What is no part of a text, and no flag.
pub(super) const SPOILT: u8 = 0xff;
/// Bytes of a message.
const LENGTH: usize = 30_000;
/// So many marks in a row are a message.
const RUN: usize = 256;
/// Bytes of a file that are looked through.
const DEPTH: u64 = 2 << 20;
/// How often a message is spoilt and mended until messages are looked for anew.
const ROUNDS: usize = 1_000;

const TIME: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(2);

/// A type that not all bytes are values of.
pub(super) trait Marked: Message + Clone {
    fn make() -> Self;

    /// Whether it is a value of its type, looked at as bytes.
    fn is_valid(&self) -> bool;
}

impl Marked for String {
    fn make() -> Self {
        String::from_utf8(vec![MARK; LENGTH]).unwrap()
    }

    fn is_valid(&self) -> bool {
        std::str::from_utf8(black_box(self.as_bytes())).is_ok()
    }
}

#[derive(Clone, Copy, NoUninit, CheckedBitPattern)]
#[repr(u8)]
#[allow(dead_code, reason = "there must be others")]
pub(super) enum Flag {
    Down = 0x6c,
    Up = 0x6d,
}

impl Marked for Vec<Plain<Flag>> {
    fn make() -> Self {
        vec![Plain(Flag::Up); LENGTH]
    }

    fn is_valid(&self) -> bool {
        let known = [Flag::Down as u8, Flag::Up as u8];
        self.iter()
            .all(|flag| known.contains(&black_box(flag.0 as u8)))
    }
}

/// Where messages lie in a file, and how long each is.
pub(super) fn messages(file: &File) -> Vec<(u64, usize)> {
    let length = file.metadata().map_or(0, |data| data.len().min(DEPTH));
    let mut bytes = vec![0; length as usize];
    if file.read_exact_at(&mut bytes, 0).is_err() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(more) = bytes[start..].iter().position(|byte| *byte == MARK) {
        start += more;
        let run = bytes[start..].iter().take_while(|byte| **byte == MARK);
        let run = run.count();
        if run >= RUN {
            found.push((start as u64, run));
        }
        start += run;
    }
    found
}

/// Spoils and mends whatever message the victim shares, until it is told to stop.
fn spoil(victim: u32, board: Segment) -> u64 {
    let stop = &board.words()[at::STOP];
    let mut spoilt = 0;
    while stop.load(Relaxed) == 0 {
        for path in shared(victim) {
            let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else {
                continue;
            };
            let messages = messages(&file);
            if messages.is_empty() {
                continue;
            }
            // All are bad, then all are good: as long the one as the other, and a message is looked at and copied
            // in about that time.
            for _ in 0..ROUNDS {
                for byte in [SPOILT, MARK] {
                    for (at, length) in &messages {
                        // Not its first bytes, among which its length may be.
                        let at = at + *length as u64 / 16;
                        // A file that cannot be written any more is gone.
                        let _ = file.write_all_at(&[byte; 8], at);
                    }
                }
                spoilt += messages.len() as u64;
            }
        }
    }
    spoilt
}

/// What a victim has received: how much, and how much of it was no value.
#[derive(Default)]
struct Tally {
    values: u64,
    wrong: u64,
}

impl Tally {
    fn take<T: Marked>(&mut self, value: T) {
        self.values += 1;
        self.wrong += u64::from(!value.is_valid());
    }

    /// Looks at what a receiving call returned; whether the object is still good for something.
    fn look<T: Marked>(&mut self, received: Result<T, RecvError>) -> bool {
        match received {
            Ok(value) => self.take(value),
            Err(RecvError::Empty | RecvError::TimedOut | RecvError::Decode(_)) => {}
            Err(_) => return false,
        }
        true
    }
}

fn queue<T: Marked>(tally: &mut Tally, stop: impl Fn() -> bool, in_place: bool) {
    while !stop() {
        let mut builder = Queue::<T>::builder().capacity(8).message_size(2 * LENGTH);
        if in_place {
            builder = builder.in_place(8);
        }
        let Ok((mut tx, mut rx)) = builder.build() else {
            continue;
        };
        for round in 0..2_000 {
            if stop() || (0..4).any(|_| tx.send_timeout(T::make(), SHORT).is_err()) {
                break;
            }
            let good = match round % 4 {
                0 => (0..4).all(|_| tally.look(rx.try_recv())),
                1 => (0..4).all(|_| tally.look(rx.recv_timeout(SHORT))),
                2 => match rx.recv_many(4) {
                    Ok(values) => {
                        values.into_iter().for_each(|value| tally.take(value));
                        (0..3).all(|_| tally.look(rx.try_recv()))
                    }
                    Err(error) => tally.look(Err::<T, _>(error)),
                },
                _ if in_place => (0..4).all(|_| match rx.try_lease() {
                    Ok(lease) => {
                        let read = lease.read();
                        lease.ack();
                        tally.look(read.map_err(RecvError::Decode))
                    }
                    Err(error) => tally.look(Err::<T, _>(error)),
                }),
                _ => (0..4).all(|_| tally.look(rx.recv_timeout(SHORT))),
            };
            if !good {
                break;
            }
        }
    }
}

fn pipe<T: Marked>(tally: &mut Tally, stop: impl Fn() -> bool) {
    while !stop() {
        let builder = Pipe::<T, ()>::builder().size(256 << 10);
        let Ok((mut tx, mut rx)) = builder.build() else {
            continue;
        };
        for _ in 0..2_000 {
            if stop() || (0..4).any(|_| tx.send_timeout(T::make(), SHORT).is_err()) {
                break;
            }
            if !(0..4).all(|_| tally.look(rx.recv_timeout(SHORT))) {
                break;
            }
        }
    }
}

/// Arguments in the worker, results here: the worker tells of the first by a value that none is.
fn pool<T: Marked>(tally: &mut Tally, stop: impl Fn() -> bool) {
    fn step<T: Marked>(argument: T) -> (bool, T) {
        (argument.is_valid(), T::make())
    }
    while !stop() {
        let Ok(pool) = Pool::new(1) else { continue };
        while !stop() {
            let task = pool.map_async(step::<T>, vec![T::make(); 2]);
            let Ok(results) = task.get_timeout(LIMIT) else {
                break;
            };
            for (argument_was_valid, result) in results {
                tally.take(result);
                tally.wrong += u64::from(!argument_was_valid);
            }
        }
    }
}

/// Receives in some way until it is told to stop; what came.
fn receive(way: u8, board: Segment) -> (u64, u64) {
    let stop = || board.words()[at::STOP].load(Relaxed) != 0;
    let mut tally = Tally::default();
    match way {
        0 => queue::<String>(&mut tally, stop, false),
        1 => queue::<String>(&mut tally, stop, true),
        2 => queue::<Vec<Plain<Flag>>>(&mut tally, stop, false),
        3 => queue::<Vec<Plain<Flag>>>(&mut tally, stop, true),
        4 => pipe::<String>(&mut tally, stop),
        5 => pipe::<Vec<Plain<Flag>>>(&mut tally, stop),
        6 => pool::<String>(&mut tally, stop),
        _ => pool::<Vec<Plain<Flag>>>(&mut tally, stop),
    }
    (tally.values, tally.wrong)
}

/// Each way beside two scribblers.
fn spoilt_while_received(ways: impl IntoIterator<Item = u8>) {
    for way in ways {
        let board = Segment::new(64).unwrap();
        let victim = Process::spawn(receive, (way, board.clone())).unwrap();
        let scribblers: Vec<_> = (0..2)
            .map(|_| Process::spawn(spoil, (victim.pid(), board.clone())).unwrap())
            .collect();
        let end = Instant::now() + TIME;
        while Instant::now() < end && victim.is_alive() {
            std::thread::sleep(Duration::from_millis(20));
        }
        board.words()[at::STOP].store(1, Relaxed);
        let (values, wrong) = match victim.join_timeout(LIMIT) {
            Ok(Some(tally)) => tally,
            Ok(None) => panic!("way {way}: the victim hangs"),
            Err(error) => panic!("way {way}: the victim did not live through it: {error}"),
        };
        let spoilt: u64 = scribblers
            .into_iter()
            .map(|one| {
                let spoilt = one.join_timeout(LIMIT).unwrap();
                spoilt.expect("a scribbler hangs")
            })
            .sum();
        println!("way {way}: {values} values, messages were spoilt {spoilt} times");
        assert_eq!(wrong, 0, "way {way}: of {values} values, no values");
        if values == 0 {
            eprintln!(
                "way {way}: this machine is too busy: nothing was received, so nothing is shown"
            );
        }
    }
}

#[test]
fn what_a_queue_gives_is_a_value_whatever_is_written_meanwhile() {
    spoilt_while_received([0, 2]);
}

#[test]
fn what_comes_from_blocks_is_a_value_whatever_is_written_meanwhile() {
    spoilt_while_received([1, 3]);
}

#[test]
fn what_a_pipe_gives_is_a_value_whatever_is_written_meanwhile() {
    spoilt_while_received([4, 5]);
}

#[test]
fn what_a_pool_gives_is_a_value_whatever_is_written_meanwhile() {
    spoilt_while_received([6, 7]);
}
