//! Putting participants on their CPUs and reading off what they do: between processes made by fork, between threads, or,
//! for those who start their own processes, the coordinator's part alone.

use super::board::{Board, Common, Control, Shared};
use super::crew::Crew;
use super::place::Place;
use super::roles::*;
use super::{Pace, Sample, cpu};
use anyhow::{Result, ensure};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::*;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Something whose two kinds of ends can be had, each in the process or thread that will use it.
pub trait Link<M> {
    type Tx: Tx<M>;
    type Rx: Rx<M>;

    fn tx(&self, sender: usize) -> Self::Tx;
    fn rx(&self, receiver: usize) -> Self::Rx;
}

pub trait LinkBytes {
    type Tx: TxBytes;
    type Rx: RxBytes;

    fn tx(&self) -> Self::Tx;
    fn rx(&self) -> Self::Rx;
}

pub trait LinkLoan {
    type Tx: TxLoan;
    type Rx: RxLease;

    fn tx(&self) -> Self::Tx;
    fn rx(&self) -> Self::Rx;
}

const ONE: Shape = Shape {
    senders: 1,
    receivers: 1,
};

/// Values of type `M` between processes; messages per second.
pub fn stream<M: Body, L: Link<M>>(
    link: &L,
    shape: Shape,
    batch: usize,
    pace: &Pace,
) -> Result<Sample> {
    let (board, mut crew, cpus) = (Board::new()?, Crew::default(), cpu::seats(shape.seats())?);
    for (seat, &cpu) in cpus.iter().enumerate() {
        crew.fork(Some(cpu), &board, || {
            match seat.checked_sub(shape.senders) {
                None => produce(&board, seat, &mut link.tx(seat), batch),
                Some(receiver) => consume::<M>(&board, shape, seat, &mut link.rx(receiver), batch),
            }
        })?;
    }
    let sample = rate(&board, shape, pace)?;
    crew.join()?;
    Ok(sample)
}

/// The same between threads of one process.
pub fn stream_threads<M: Body, L: Link<M> + Sync>(
    link: &L,
    shape: Shape,
    batch: usize,
    pace: &Pace,
) -> Result<Sample> {
    let (board, cpus) = (&Board::new()?, cpu::seats(shape.seats())?);
    std::thread::scope(|scope| {
        for (seat, cpu) in cpus.into_iter().enumerate() {
            scope.spawn(move || {
                on_thread(cpu, || match seat.checked_sub(shape.senders) {
                    None => produce(board, seat, &mut link.tx(seat), batch),
                    Some(receiver) => {
                        consume::<M>(board, shape, seat, &mut link.rx(receiver), batch)
                    }
                })
            });
        }
        rate(board, shape, pace).inspect_err(give_up)
    })
}

/// Bytes that are copied in and copied out, between processes; bytes per second.
pub fn stream_bytes<L: LinkBytes>(link: &L, size: usize, pace: &Pace) -> Result<Sample> {
    let (board, mut crew, cpus) = (Board::new()?, Crew::default(), cpu::seats(2)?);
    crew.fork(Some(cpus[0]), &board, || {
        produce_bytes(&board, 0, &mut link.tx(), size)
    })?;
    crew.fork(Some(cpus[1]), &board, || {
        consume_bytes(&board, ONE, 1, &mut link.rx(), size)
    })?;
    let sample = rate(&board, ONE, pace)?;
    crew.join()?;
    Ok(Sample::plain(sample.value * size as f64))
}

/// The same between threads of one process.
pub fn stream_bytes_threads<L: LinkBytes + Sync>(
    link: &L,
    size: usize,
    pace: &Pace,
) -> Result<Sample> {
    let (board, cpus) = (&Board::new()?, cpu::seats(2)?);
    std::thread::scope(|scope| {
        scope.spawn(|| on_thread(cpus[0], || produce_bytes(board, 0, &mut link.tx(), size)));
        scope.spawn(|| {
            on_thread(cpus[1], || {
                consume_bytes(board, ONE, 1, &mut link.rx(), size)
            })
        });
        let sample = rate(board, ONE, pace).inspect_err(give_up)?;
        Ok(Sample::plain(sample.value * size as f64))
    })
}

/// Messages written and read where they lie, between processes; messages per second.
pub fn stream_loans<L: LinkLoan>(
    link: &L,
    size: usize,
    touch: Touch,
    pace: &Pace,
) -> Result<Sample> {
    let (board, mut crew, cpus) = (Board::new()?, Crew::default(), cpu::seats(2)?);
    crew.fork(Some(cpus[0]), &board, || {
        produce_loans(&board, 0, &mut link.tx(), size, touch)
    })?;
    crew.fork(Some(cpus[1]), &board, || {
        consume_leases(&board, ONE, 1, &mut link.rx(), touch)
    })?;
    let sample = rate(&board, ONE, pace)?;
    crew.join()?;
    Ok(sample)
}

/// Questions and answers between two processes, `pinned` or where the system puts them. `side` makes the end of side 0,
/// who asks, or 1, who answers, in its own process.
pub fn roundtrip<D: Duplex>(
    pinned: bool,
    pause: Think,
    pace: &Pace,
    side: impl Fn(usize) -> D,
) -> Result<Sample> {
    let (board, mut crew, cpus) = (Board::new()?, Crew::default(), cpu::seats(2)?);
    let cpu = |seat: usize| pinned.then_some(cpus[seat]);
    crew.fork(cpu(0), &board, || ping(&board, &mut side(0), pause, *pace))?;
    crew.fork(cpu(1), &board, || pong(&board, &mut side(1), pause))?;
    let sample = answered(&board)?;
    crew.join()?;
    Ok(sample)
}

/// The same at a place, which may be crowded.
pub fn roundtrip_at<D: Duplex>(
    place: Place,
    pace: &Pace,
    side: impl Fn(usize) -> D,
) -> Result<Sample> {
    let (board, mut crew, cpus) = (Board::new()?, Crew::default(), place.seats()?);
    let _crowd = place.crowd(&board)?;
    let pause = Think::default();
    crew.fork(Some(cpus[0]), &board, || {
        ping(&board, &mut side(0), pause, *pace)
    })?;
    crew.fork(Some(cpus[1]), &board, || pong(&board, &mut side(1), pause))?;
    let sample = answered(&board)?;
    crew.join()?;
    Ok(sample)
}

/// The same between two threads.
pub fn roundtrip_threads<D: Duplex + Send>(
    pause: Think,
    pace: &Pace,
    mut asks: D,
    mut answers: D,
) -> Result<Sample> {
    let (board, cpus) = (&Board::new()?, cpu::seats(2)?);
    std::thread::scope(|scope| {
        scope.spawn(|| on_thread(cpus[0], || ping(board, &mut asks, pause, *pace)));
        scope.spawn(|| on_thread(cpus[1], || pong(board, &mut answers, pause)));
        answered(board).inspect_err(give_up)
    })
}

/// A lock between `seats` processes; times taken per second in all, and beside it how often the unluckiest took it for
/// each time of the luckiest.
pub fn contention<K: Mutual>(
    seats: usize,
    own: Duration,
    pace: &Pace,
    lock: impl Fn() -> K,
    total: impl Fn() -> [u64; 2],
) -> Result<Sample> {
    let (board, mut crew, cpus) = (Board::new()?, Crew::default(), cpu::seats(seats)?);
    for (seat, &cpu) in cpus.iter().enumerate() {
        crew.fork(Some(cpu), &board, || {
            contend(&board, seat, &mut lock(), own)
        })?;
    }
    let sample = shares(&board, seats, pace)?;
    crew.join()?;
    exact(&board, seats, total())?;
    Ok(sample)
}

/// The same between threads.
pub fn contention_threads<K: Mutual>(
    seats: usize,
    own: Duration,
    pace: &Pace,
    lock: impl Fn() -> K + Sync,
    total: impl Fn() -> [u64; 2],
) -> Result<Sample> {
    let (board, cpus, lock) = (&Board::new()?, cpu::seats(seats)?, &lock);
    let sample = std::thread::scope(|scope| {
        for (seat, cpu) in cpus.into_iter().enumerate() {
            scope.spawn(move || on_thread(cpu, || contend(board, seat, &mut lock(), own)));
        }
        shares(board, seats, pace).inspect_err(give_up)
    })?;
    exact(board, seats, total())?;
    Ok(sample)
}

/// A lock that nobody else wants: nanoseconds to take it and let it go.
pub fn free(pace: &Pace, mut lock: impl Mutual) -> Result<Sample> {
    const TIMES: u64 = 10_000;
    cpu::pin(cpu::seats(1)?[0])?;
    let mut count = 0;
    let nanos = pace.each(1, || {
        for _ in 0..TIMES {
            lock.inside(|both| {
                both[0] += 1;
                both[1] += 1;
            });
        }
        count += TIMES;
        Ok(())
    })?;
    let mut total = [0; 2];
    lock.inside(|both| total = *both);
    ensure!(total == [count; 2], "{total:?} counted, not {count} twice");
    Ok(Sample::plain(Sample::of_nanos(&nanos).value / TIMES as f64))
}

/// Threads that wait for ever cannot be ended one by one.
fn give_up(error: &anyhow::Error) {
    println!("{error:#}");
    std::process::exit(1);
}

/// A thread's part: pinned, and the end of the whole process if it panics, since the others would wait for ever.
fn on_thread(cpu: usize, body: impl FnOnce()) {
    let run = AssertUnwindSafe(|| {
        cpu::pin(cpu).expect("pinning");
        body();
    });
    if catch_unwind(run).is_err() {
        std::process::exit(1);
    }
}

/// The coordinator's part of a stream: everybody starts, what the receivers count between two moments is read off, everybody
/// stops, and what was received is what was sent.
pub fn rate(board: &Control, shape: Shape, pace: &Pace) -> Result<Sample> {
    board.start(shape.seats())?;
    let (senders, rest) = board.seats.split_at(shape.senders);
    let receivers = &rest[..shape.receivers];
    let read = || {
        let count: u64 = receivers.iter().map(|seat| seat.count.load(Relaxed)).sum();
        (count, Instant::now())
    };
    sleep(pace.warm);
    board.wait_until("the first messages", || read().0 > 0)?;
    let (first, from) = read();
    sleep(pace.window);
    board.wait_until("another message", || read().0 > first)?;
    let (last, to) = read();
    board.stop.0.store(1, Release);
    for seat in 0..shape.seats() {
        board.finished(seat)?;
    }
    let sent: u64 = senders.iter().map(|seat| seat.count.load(Relaxed)).sum();
    let received: u64 = receivers.iter().map(|seat| seat.count.load(Relaxed)).sum();
    ensure!(sent == received, "{sent} sent, {received} received");
    let sum = |seats: &[super::board::Seat]| {
        seats
            .iter()
            .fold(0u64, |all, seat| all.wrapping_add(seat.sum.load(Relaxed)))
    };
    ensure!(
        sum(senders) == sum(receivers),
        "as many were received as sent, but not the same"
    );
    Ok(Sample::plain(
        (last - first) as f64 / (to - from).as_secs_f64(),
    ))
}

/// The coordinator's part of a round trip.
pub fn answered(board: &Control) -> Result<Sample> {
    board.start(2)?;
    board.finished(0)?;
    board.finished(1)?;
    let result = |at: usize| f64::from_bits(board.seats[0].results[at].load(Relaxed));
    Ok(Sample {
        value: result(0),
        beside: Some(result(1)),
    })
}

/// The coordinator's part of a contended lock.
pub fn shares(board: &Control, seats: usize, pace: &Pace) -> Result<Sample> {
    board.start(seats)?;
    let read = || {
        let counts: Vec<u64> = board.seats[..seats]
            .iter()
            .map(|seat| seat.count.load(Relaxed))
            .collect();
        (counts, Instant::now())
    };
    sleep(pace.warm);
    let (first, from) = read();
    sleep(pace.window);
    let (last, to) = read();
    board.stop.0.store(1, Release);
    for seat in 0..seats {
        board.finished(seat)?;
    }
    let taken: Vec<u64> = first
        .iter()
        .zip(&last)
        .map(|(first, last)| last - first)
        .collect();
    let (least, most) = (
        taken.iter().min().copied().unwrap_or(0),
        taken.iter().max().copied().unwrap_or(0),
    );
    Ok(Sample {
        value: taken.iter().sum::<u64>() as f64 / (to - from).as_secs_f64(),
        beside: Some(least as f64 / most.max(1) as f64),
    })
}

/// Nobody was inside together with another: both counters are exact.
pub fn exact(board: &Control, seats: usize, total: [u64; 2]) -> Result<()> {
    let count: u64 = board.seats[..seats]
        .iter()
        .map(|seat| seat.count.load(Relaxed))
        .sum();
    ensure!(total == [count; 2], "{total:?} counted, not {count} twice");
    Ok(())
}

/// Memory that several processes share, with `T` in it.
pub fn shared<T: Common>() -> Result<Shared<T>> {
    Shared::new()
}
