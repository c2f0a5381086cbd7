//! rayon's pool of four threads, and a plain loop: what a pool inside one process gives.

use crate::rig::{Pace, Sample, think};
use anyhow::{Result, ensure};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn pool() -> Result<ThreadPool> {
    Ok(ThreadPoolBuilder::new().num_threads(4).build()?)
}

pub fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

/// What every pool does with a large message.
pub fn total(data: &[u8]) -> u64 {
    data.iter().map(|&byte| u64::from(byte)).sum()
}

/// All of `squares` are the squares of `items`.
pub fn check(items: &[u64], squares: &[u64]) -> Result<()> {
    let right = items.len() == squares.len()
        && items
            .iter()
            .zip(squares)
            .all(|(&item, &found)| square(item) == found);
    ensure!(right, "not the squares");
    Ok(())
}

/// Single calls with a busy `pause` before each that does not count.
pub fn calls(
    pause: Duration,
    pace: &Pace,
    mut call: impl FnMut(u64) -> Result<u64>,
) -> Result<Vec<u64>> {
    let mut nanos = Vec::new();
    let start = Instant::now();
    let mut number = 0;
    while start.elapsed() < pace.warm + pace.window || nanos.len() < 10 {
        number += 1;
        think(pause);
        let at = Instant::now();
        let value = call(number)?;
        let took = at.elapsed();
        ensure!(value == square(number), "the wrong value");
        if start.elapsed() > pace.warm {
            nanos.push(took.as_nanos() as u64);
        }
    }
    Ok(nanos)
}

pub fn map(items: &[u64], pace: &Pace) -> Result<Sample> {
    let pool = pool()?;
    let squares = || {
        items
            .par_iter()
            .map(|&x| square(black_box(x)))
            .collect::<Vec<_>>()
    };
    let nanos = pace.each_checked(3, || Ok(pool.install(squares)), |all| check(items, &all))?;
    Ok(Sample::of_nanos(&nanos))
}

/// As [`map`], and the caller copies what its threads have written, as it must what processes have written: the results,
/// and the items too if they do not lie where others find them.
pub fn copied_map(items: &[u64], both: bool, pace: &Pace) -> Result<Sample> {
    let pool = pool()?;
    let (mut shared, mut theirs) = (items.to_vec(), Vec::new());
    let mut squares = || {
        if both {
            shared.copy_from_slice(items);
        }
        let each = shared.par_iter().map(|&x| square(black_box(x)));
        pool.install(|| each.collect_into_vec(&mut theirs));
        Ok(theirs.clone())
    };
    let nanos = pace.each_checked(3, &mut squares, |all| check(items, &all))?;
    Ok(Sample::of_nanos(&nanos))
}

pub fn serial_map(items: &[u64], pace: &Pace) -> Result<Sample> {
    let squares = || {
        items
            .iter()
            .map(|&x| square(black_box(x)))
            .collect::<Vec<_>>()
    };
    let nanos = pace.each_checked(3, || Ok(squares()), |all| check(items, &all))?;
    Ok(Sample::of_nanos(&nanos))
}

pub fn singles(items: &[u64], pace: &Pace) -> Result<Sample> {
    let pool = pool()?;
    let singly = || items.par_iter().with_max_len(1);
    let squares = || singly().map(|&x| square(black_box(x))).collect::<Vec<_>>();
    let nanos = pace.each_checked(3, || Ok(pool.install(squares)), |all| check(items, &all))?;
    Ok(Sample::plain(
        Sample::of_nanos(&nanos).value / items.len() as f64,
    ))
}

pub fn apply(pause: Duration, pace: &Pace) -> Result<Sample> {
    let pool = pool()?;
    let nanos = calls(pause, pace, |x| Ok(pool.install(|| square(x))))?;
    Ok(Sample::of_nanos(&nanos))
}

pub fn large(data: &[Vec<u8>], pace: &Pace) -> Result<Sample> {
    let pool = pool()?;
    let expected: u64 = data.iter().map(|one| total(one)).sum();
    let nanos = pace.each(2, || {
        let sum: u64 = pool.install(|| data.par_iter().map(|one| total(one)).sum());
        ensure!(sum == expected, "the wrong sum");
        Ok(())
    })?;
    Ok(Sample::of_nanos(&nanos))
}

pub fn serial_large(data: &[Vec<u8>], pace: &Pace) -> Result<Sample> {
    let nanos = pace.each(2, || {
        black_box(data.iter().map(|one| total(black_box(one))).sum::<u64>());
        Ok(())
    })?;
    Ok(Sample::of_nanos(&nanos))
}

pub fn four(pace: &Pace) -> Result<Sample> {
    let nanos = pace.each(3, || {
        let pool = pool()?;
        let squares: Vec<u64> = pool.install(|| (0..4u64).into_par_iter().map(square).collect());
        ensure!(squares == [0, 1, 4, 9], "the wrong values");
        Ok(())
    })?;
    Ok(Sample::of_nanos(&nanos))
}

/// A task of 300 µs.
pub fn busy(x: u64) -> u64 {
    let end = Instant::now() + Duration::from_micros(300);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    square(x)
}

/// Three threads that call at once; how long each call took.
pub fn three_callers(pace: &Pace, call: impl Fn(u64) -> Result<u64> + Sync) -> Result<Sample> {
    let nanos = std::thread::scope(|scope| {
        let caller = || scope.spawn(|| calls(Duration::ZERO, pace, &call));
        let callers = [caller(), caller(), caller()];
        let mut nanos = Vec::new();
        for caller in callers {
            nanos.extend(caller.join().expect("a caller")?);
        }
        anyhow::Ok(nanos)
    })?;
    Ok(Sample::of_nanos(&nanos))
}

pub fn three(pace: &Pace) -> Result<Sample> {
    let pool = pool()?;
    three_callers(pace, |x| Ok(pool.install(|| busy(x))))
}

pub fn cold(items: &[u64], pace: &Pace) -> Result<Sample> {
    let once = || {
        let squares = || items.par_iter().map(|&x| square(black_box(x)));
        Ok(pool()?.install(|| squares().collect::<Vec<_>>()))
    };
    let nanos = pace.each_checked(3, once, |all| check(items, &all))?;
    Ok(Sample::of_nanos(&nanos))
}

pub fn outstanding(tasks: u64, pace: &Pace) -> Result<Sample> {
    let pool = pool()?;
    let nanos = pace.each(3, || {
        let (give, take) = std::sync::mpsc::channel();
        for x in 0..tasks {
            let give = give.clone();
            pool.spawn(move || give.send(square(black_box(x))).expect("a caller"));
        }
        drop(give);
        ensure!(take.iter().count() as u64 == tasks, "not all of them");
        Ok(())
    })?;
    let each = Sample::of_nanos(&nanos).value / tasks as f64;
    Ok(Sample::plain(each))
}
