//! What participants do, the same for every peer: produce, consume, ping, pong, contend.

use super::board::Control;
use super::{Pace, think};
use std::cell::Cell;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::Ordering::*;
use std::time::{Duration, Instant};

/// A message of fixed size that shows who sent it, when, and whether it is whole.
pub trait Body: Copy + Send + 'static {
    const SIZE: usize;

    fn make(stamp: u64) -> Self;

    /// The stamp it was made with. Panics if it is torn.
    fn stamp(&self) -> u64;
}

impl Body for u64 {
    const SIZE: usize = 8;

    fn make(stamp: u64) -> u64 {
        stamp
    }

    fn stamp(&self) -> u64 {
        *self
    }
}

impl<const N: usize> Body for [u64; N] {
    const SIZE: usize = 8 * N;

    fn make(stamp: u64) -> [u64; N] {
        [stamp; N]
    }

    fn stamp(&self) -> u64 {
        let middle = self[self[0] as usize % N];
        assert!(
            self[0] == self[N - 1] && self[0] == middle,
            "a torn message"
        );
        self[0]
    }
}

/// Where a receiver with nothing to receive learns that nothing will come any more.
pub trait End {
    fn reached(&self) -> bool;
}

/// Something always comes.
pub struct Never;

impl End for Never {
    fn reached(&self) -> bool {
        false
    }
}

/// The sending end of whatever is measured. A full one waits.
pub trait Tx<M> {
    fn send(&mut self, message: M);

    fn send_many(&mut self, messages: &[M])
    where
        M: Copy,
    {
        for &message in messages {
            self.send(message);
        }
    }
}

/// The receiving end of whatever is measured. An empty one waits until something comes or `end` is reached.
pub trait Rx<M> {
    fn recv(&mut self, end: &impl End) -> Option<M>;

    /// At least one and at most `most` messages behind those in `into`; none only at the end.
    fn recv_many(&mut self, into: &mut Vec<M>, _most: usize, end: &impl End) {
        into.extend(self.recv(end));
    }
}

/// The same for messages that are too large to be passed by value: copied in, copied out.
pub trait TxBytes {
    fn send(&mut self, message: &[u8]);
}

pub trait RxBytes {
    /// Copies the next message over the whole of `into`; false at the end.
    fn recv(&mut self, into: &mut [u8], end: &impl End) -> bool;
}

/// The same for messages written and read where they lie. `whole` writes and reads every byte, otherwise both ends only.
pub trait TxLoan {
    fn send(&mut self, size: usize, fill: impl FnOnce(&mut [u8]));
}

pub trait RxLease {
    /// Shows the next message where it lies; false at the end.
    fn recv(&mut self, end: &impl End, look: impl FnOnce(&[u8])) -> bool;
}

/// Both directions between two participants.
pub trait Duplex {
    fn send(&mut self, value: u64);
    fn recv(&mut self) -> u64;
}

/// Two one-way links.
pub struct Both<T, R>(pub T, pub R);

impl<T: Tx<u64>, R: Rx<u64>> Duplex for Both<T, R> {
    fn send(&mut self, value: u64) {
        self.0.send(value);
    }

    fn recv(&mut self) -> u64 {
        self.1.recv(&Never).expect("the other side is there")
    }
}

/// A lock around two counters that are equal whenever nobody is inside.
pub trait Mutual {
    fn inside(&mut self, change: impl FnOnce(&mut [u64; 2]));
}

/// Spins until `look` finds something or `end` is reached.
pub fn poll<M>(end: &impl End, mut look: impl FnMut() -> Option<M>) -> Option<M> {
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if end.reached() {
            return look();
        }
        spin_loop();
    }
}

/// Who sent it in the upper byte, its number from 1 on in the rest.
const NUMBER: u64 = (1 << 56) - 1;

fn stamp(sender: usize, number: u64) -> u64 {
    (sender as u64) << 56 | number
}

/// Who takes part in a stream.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub senders: usize,
    pub receivers: usize,
}

impl Shape {
    pub fn seats(self) -> usize {
        self.senders + self.receivers
    }
}

/// Sees to it that each sender's messages come in order, without a gap where there is one receiver, and adds them up.
pub struct Checker {
    last: [u64; super::board::SEATS],
    gaps: bool,
    count: u64,
    sum: u64,
}

impl Checker {
    pub fn new(shape: Shape) -> Checker {
        Checker {
            last: [0; super::board::SEATS],
            gaps: shape.receivers > 1,
            count: 0,
            sum: 0,
        }
    }

    pub fn take(&mut self, stamp: u64) {
        let (sender, number) = ((stamp >> 56) as usize, stamp & NUMBER);
        let last = &mut self.last[sender];
        assert!(
            number == *last + 1 || self.gaps && number > *last,
            "message {number} of sender {sender} came after {last}"
        );
        *last = number;
        self.sum = self.sum.wrapping_add(number);
        self.count += 1;
    }

    /// How many were taken, and the sum of their numbers.
    pub fn total(&self) -> (u64, u64) {
        (self.count, self.sum)
    }
}

/// How many messages pass between two looks at the board.
fn every(size: usize) -> u64 {
    (16 * 1024 / size as u64).clamp(1, 256)
}

/// All senders are done and all they sent has been received by somebody.
struct Drained<'a> {
    board: &'a Control,
    shape: Shape,
    seat: usize,
    count: Cell<u64>,
}

impl End for Drained<'_> {
    fn reached(&self) -> bool {
        self.board.seats[self.seat].publish(self.count.get());
        let (senders, rest) = self.board.seats.split_at(self.shape.senders);
        if senders.iter().any(|seat| seat.done.load(Acquire) == 0) {
            return false;
        }
        let sent: u64 = senders.iter().map(|seat| seat.count.load(Relaxed)).sum();
        let received: u64 = rest[..self.shape.receivers]
            .iter()
            .map(|seat| seat.count.load(Relaxed))
            .sum();
        sent == received
    }
}

/// Sends until the coordinator says stop; `seat` is the sender's number.
pub fn produce<M: Body>(board: &Control, seat: usize, tx: &mut impl Tx<M>, batch: usize) {
    let every = every(M::SIZE).next_multiple_of(batch as u64);
    let mut many = Vec::with_capacity(batch);
    let mut number = 0;
    board.wait_for_go();
    while !board.stopped() {
        if batch == 1 {
            for _ in 0..every {
                number += 1;
                tx.send(M::make(stamp(seat, number)));
            }
        } else {
            for _ in 0..every / batch as u64 {
                many.clear();
                many.extend((1..=batch as u64).map(|n| M::make(stamp(seat, number + n))));
                number += batch as u64;
                tx.send_many(&many);
            }
        }
    }
    board.seats[seat].finish(number, triangle(number));
}

/// Receives until everything sent has been received.
pub fn consume<M: Body>(
    board: &Control,
    shape: Shape,
    seat: usize,
    rx: &mut impl Rx<M>,
    batch: usize,
) {
    let every = every(M::SIZE);
    let end = Drained {
        board,
        shape,
        seat,
        count: Cell::new(0),
    };
    let mut check = Checker::new(shape);
    let mut many = Vec::with_capacity(batch);
    let mut due = every;
    board.wait_for_go();
    loop {
        if batch == 1 {
            match rx.recv(&end) {
                Some(message) => check.take(message.stamp()),
                None => break,
            }
        } else {
            many.clear();
            rx.recv_many(&mut many, batch, &end);
            if many.is_empty() {
                break;
            }
            for message in &many {
                check.take(message.stamp());
            }
        }
        end.count.set(check.count);
        if check.count >= due {
            board.seats[seat].publish(check.count);
            due = check.count + every;
        }
    }
    board.seats[seat].finish(check.count, check.sum);
}

/// Writes `stamp` over both ends and one word between.
fn mark(message: &mut [u8], stamp: u64) {
    let size = message.len();
    for at in [0, middle(stamp, size), size - 8] {
        message[at..at + 8].copy_from_slice(&stamp.to_ne_bytes());
    }
}

fn marked(message: &[u8]) -> u64 {
    let word = |at: usize| u64::from_ne_bytes(message[at..at + 8].try_into().expect("8 bytes"));
    let stamp = word(0);
    let size = message.len();
    assert!(
        stamp == word(size - 8) && stamp == word(middle(stamp, size)),
        "a torn message"
    );
    stamp
}

fn middle(stamp: u64, size: usize) -> usize {
    stamp as usize % (size / 8) * 8
}

pub fn produce_bytes(board: &Control, seat: usize, tx: &mut impl TxBytes, size: usize) {
    let mut message = vec![seat as u8; size];
    let mut number = 0;
    board.wait_for_go();
    while !board.stopped() {
        number += 1;
        mark(&mut message, stamp(seat, number));
        tx.send(&message);
    }
    board.seats[seat].finish(number, triangle(number));
}

pub fn consume_bytes(
    board: &Control,
    shape: Shape,
    seat: usize,
    rx: &mut impl RxBytes,
    size: usize,
) {
    let end = Drained {
        board,
        shape,
        seat,
        count: Cell::new(0),
    };
    let mut check = Checker::new(shape);
    let mut message = vec![0; size];
    board.wait_for_go();
    while rx.recv(&mut message, &end) {
        check.take(marked(&message));
        end.count.set(check.count);
        board.seats[seat].publish(check.count);
    }
    board.seats[seat].finish(check.count, check.sum);
}

/// How much of a borrowed message is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    Ends,
    Whole,
}

pub fn produce_loans(
    board: &Control,
    seat: usize,
    tx: &mut impl TxLoan,
    size: usize,
    touch: Touch,
) {
    let every = every(if touch == Touch::Ends { 64 } else { size });
    let mut number = 0;
    board.wait_for_go();
    while !board.stopped() {
        for _ in 0..every {
            number += 1;
            tx.send(size, |message| {
                if touch == Touch::Whole {
                    message.fill(number as u8);
                }
                mark(message, stamp(seat, number));
            });
        }
    }
    board.seats[seat].finish(number, triangle(number));
}

pub fn consume_leases(
    board: &Control,
    shape: Shape,
    seat: usize,
    rx: &mut impl RxLease,
    touch: Touch,
) {
    let every = every(64);
    let end = Drained {
        board,
        shape,
        seat,
        count: Cell::new(0),
    };
    let mut check = Checker::new(shape);
    board.wait_for_go();
    loop {
        let more = rx.recv(&end, |message| {
            check.take(marked(message));
            if touch == Touch::Whole {
                black_box(message.chunks(8).fold(0u8, |sum, word| sum ^ word[0]));
            }
        });
        if !more {
            break;
        }
        end.count.set(check.count);
        if touch == Touch::Whole || check.count.is_multiple_of(every) {
            board.seats[seat].publish(check.count);
        }
    }
    board.seats[seat].finish(check.count, check.sum);
}

/// The sum of all numbers up to `last`.
pub fn triangle(last: u64) -> u64 {
    (u128::from(last) * u128::from(last + 1) / 2) as u64
}

/// What each side of a round trip does before it sends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Think {
    /// Before asking; not part of the figure.
    pub ping: Duration,
    /// Before answering; taken off the figure.
    pub pong: Duration,
}

/// Asks, on seat 0, and leaves the nanoseconds of a round trip there: median and 99th percentile.
pub fn ping(board: &Control, link: &mut impl Duplex, pause: Think, pace: Pace) {
    let mut nanos = Vec::with_capacity(1 << 20);
    let mut number = 0;
    board.wait_for_go();
    let start = Instant::now();
    let mut before = start;
    loop {
        if !pause.ping.is_zero() {
            think(pause.ping);
            before = Instant::now();
        }
        number += 1;
        link.send(number);
        assert_eq!(link.recv(), number + 1, "the answer to another question");
        number += 1;
        let now = Instant::now();
        let took = now - before;
        before = now;
        let since = now - start;
        if since < pace.warm {
            continue;
        }
        nanos.push((took.saturating_sub(pause.pong)).as_nanos() as u64);
        if since > pace.warm + pace.window {
            break;
        }
    }
    link.send(u64::MAX);
    let sample = super::Sample::of_nanos(&nanos);
    let seat = &board.seats[0];
    seat.results[0].store(sample.value.to_bits(), Relaxed);
    seat.results[1].store(sample.beside.unwrap_or(f64::NAN).to_bits(), Relaxed);
    seat.finish(number, 0);
}

/// Answers, on seat 1, until told to end.
pub fn pong(board: &Control, link: &mut impl Duplex, pause: Think) {
    board.wait_for_go();
    loop {
        let asked = link.recv();
        if asked == u64::MAX {
            break;
        }
        if !pause.pong.is_zero() {
            think(pause.pong);
        }
        link.send(asked + 1);
    }
    board.seats[1].finish(0, 0);
}

/// Takes the lock and lets it go until the coordinator says stop, with `own` work outside between two times.
pub fn contend(board: &Control, seat: usize, lock: &mut impl Mutual, own: Duration) {
    let mut count = 0;
    board.wait_for_go();
    while !board.stopped() {
        for _ in 0..64 {
            lock.inside(|both| {
                both[0] += 1;
                both[1] += 1;
            });
            if !own.is_zero() {
                think(own);
            }
        }
        count += 64;
        board.seats[seat].publish(count);
    }
    board.seats[seat].finish(count, 0);
}
