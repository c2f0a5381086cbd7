//! What the harness and the machine cost by themselves: no figure of the other groups can be better than these allow.

use crate::peer::words::{Asleep, Bell, Two};
use crate::rig::board::{Common, Line, Shared};
use crate::rig::roles::{Body, Checker, Shape, Think, triangle};
use crate::rig::row::{Group, Row};
use crate::rig::runs::{roundtrip, shared};
use crate::rig::units::Unit;
use crate::rig::{Pace, Sample, cpu};
use anyhow::Result;
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

const TIMES: u64 = 10_000;

pub fn rows() -> Vec<Row> {
    let row = |name: &str, unit| Row::new(Group::Base, name, unit);
    vec![
        row("reading the clock", Unit::Time).cell("Instant::now", clock),
        row("making and checking a message, nothing between", Unit::Time)
            .cell("8 B", bodies::<u64>)
            .cell("64 B", bodies::<[u64; 8]>)
            .cell("1 KiB", bodies::<[u64; 128]>),
        row("round trip of a bare cache line", Unit::Time)
            .beside("p99")
            .cpus(2)
            .cell("one line", |pace| {
                bare(pace, |words: &Shared<[AtomicU64; 2]>, pace| {
                    roundtrip(true, Think::default(), pace, |side| Two::same(words, side))
                })
            })
            .cell("two lines", |pace| {
                bare(pace, |lines: &Shared<[Line; 2]>, pace| {
                    roundtrip(true, Think::default(), pace, |side| Two::side(lines, side))
                })
            }),
        row("round trip of a futex, nobody spins", Unit::Time)
            .beside("p99")
            .cpus(2)
            .cell("futex", |pace| {
                bare(pace, |bells: &Shared<[Bell; 2]>, pace| {
                    roundtrip(true, Think::default(), pace, |side| {
                        Asleep::side(bells, side)
                    })
                })
            }),
        row("copying on one CPU", Unit::Bandwidth)
            .cell("64 KiB, in the cache", |pace| {
                copy(64 << 10, 64 << 10, pace)
            })
            .cell("1 MiB, in the cache", |pace| copy(1 << 20, 1 << 20, pace))
            .cell("1 MiB, from memory", |pace| copy(1 << 20, 256 << 20, pace)),
    ]
}

fn bare<T: Common>(
    pace: &Pace,
    run: impl Fn(&Shared<T>, &Pace) -> Result<Sample>,
) -> Result<Sample> {
    run(&shared::<T>()?, pace)
}

fn clock(pace: &Pace) -> Result<Sample> {
    let nanos = pace.each(1, || {
        for _ in 0..TIMES {
            black_box(Instant::now());
        }
        Ok(())
    })?;
    Ok(Sample::plain(Sample::of_nanos(&nanos).value / TIMES as f64))
}

fn bodies<M: Body>(pace: &Pace) -> Result<Sample> {
    let nanos = pace.each(1, || {
        let mut check = Checker::new(Shape {
            senders: 1,
            receivers: 1,
        });
        for number in 1..=TIMES {
            check.take(black_box(M::make(number)).stamp());
        }
        anyhow::ensure!(check.total() == (TIMES, triangle(TIMES)), "the wrong sum");
        Ok(())
    })?;
    Ok(Sample::plain(Sample::of_nanos(&nanos).value / TIMES as f64))
}

/// Copies `size` bytes at a time, walking through `within` bytes of source and of target.
fn copy(size: usize, within: usize, pace: &Pace) -> Result<Sample> {
    cpu::pin(cpu::seats(1)?[0])?;
    let (from, mut to) = (vec![1u8; within], vec![2u8; within]);
    let mut at = 0;
    let nanos = pace.each(1, || {
        to[at..at + size].copy_from_slice(black_box(&from[at..at + size]));
        black_box(&to);
        at = (at + size) % within;
        Ok(())
    })?;
    Ok(Sample::plain(
        size as f64 * 1e9 / Sample::of_nanos(&nanos).value,
    ))
}
