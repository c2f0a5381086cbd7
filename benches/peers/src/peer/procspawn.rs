//! procspawn: functions in processes, and the one ready process pool.

use super::rayon::{calls, check};
use crate::rig::{Pace, Sample};
use anyhow::{Result, anyhow, ensure};
use procspawn::Pool;
use serde_bytes::ByteBuf;
use std::collections::VecDeque;
use std::time::Duration;

pub fn start(pace: &Pace) -> Result<Sample> {
    let nanos = pace.each(10, || {
        let value = procspawn::spawn(20u64, |x| x + 1).join()?;
        ensure!(value == 21, "the wrong value");
        Ok(())
    })?;
    Ok(Sample::of_nanos(&nanos))
}

fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

fn squares(items: Vec<u64>) -> Vec<u64> {
    items.into_iter().map(square).collect()
}

fn total(data: ByteBuf) -> u64 {
    super::rayon::total(&data)
}

/// Runs all `calls`, four at a time: with more large arguments on their way than there are workers, it waits for ever.
fn run<A, R>(
    pool: &Pool,
    calls: impl Iterator<Item = A>,
    f: fn(A) -> R,
    mut done: impl FnMut(R),
) -> Result<()>
where
    A: serde::Serialize + serde::de::DeserializeOwned,
    R: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    let mut waiting = VecDeque::new();
    for call in calls {
        if waiting.len() == 4 {
            let first: procspawn::JoinHandle<R> =
                waiting.pop_front().ok_or_else(|| anyhow!("none waiting"))?;
            done(first.join()?);
        }
        waiting.push_back(pool.spawn(call, f));
    }
    for call in waiting {
        done(call.join()?);
    }
    Ok(())
}

/// Squares of all `items`, cut by hand into sixteen.
pub fn map(items: &[u64], pace: &Pace) -> Result<Sample> {
    let pool = Pool::new(4)?;
    let once = || {
        let mut all = Vec::with_capacity(items.len());
        let chunks = items.chunks(items.len().div_ceil(16)).map(<[u64]>::to_vec);
        run(&pool, chunks, squares, |part| all.extend(part))?;
        Ok(all)
    };
    let nanos = pace.each_checked(3, once, |all| check(items, &all))?;
    Ok(Sample::of_nanos(&nanos))
}

/// One call for each of `count` items; nanoseconds of one.
pub fn singles(count: u64, pace: &Pace) -> Result<Sample> {
    let pool = Pool::new(4)?;
    let nanos = pace.each(3, || {
        let mut sum = 0u64;
        run(&pool, 0..count, square, |value| sum += value)?;
        ensure!(sum == (0..count).map(square).sum(), "the wrong sum");
        Ok(())
    })?;
    Ok(Sample::plain(Sample::of_nanos(&nanos).value / count as f64))
}

pub fn apply(pause: Duration, pace: &Pace) -> Result<Sample> {
    let pool = Pool::new(4)?;
    let nanos = calls(pause, pace, |x| Ok(pool.spawn(x, square).join()?))?;
    Ok(Sample::of_nanos(&nanos))
}

pub fn large(data: &[Vec<u8>], pace: &Pace) -> Result<Sample> {
    let pool = Pool::new(4)?;
    let expected: u64 = data.iter().map(|one| super::rayon::total(one)).sum();
    let nanos = pace.each(1, || {
        let mut sum = 0;
        run(
            &pool,
            data.iter().map(|one| ByteBuf::from(one.clone())),
            total,
            |value| sum += value,
        )?;
        ensure!(sum == expected, "the wrong sum");
        Ok(())
    })?;
    Ok(Sample::of_nanos(&nanos))
}

pub fn four(pace: &Pace) -> Result<Sample> {
    let nanos = pace.each(3, || {
        let pool = Pool::new(4)?;
        let calls: Vec<_> = (0..4).map(|n| pool.spawn(n, square)).collect();
        for (n, call) in calls.into_iter().enumerate() {
            ensure!(call.join()? == square(n as u64), "the wrong value");
        }
        pool.shutdown();
        Ok(())
    })?;
    Ok(Sample::of_nanos(&nanos))
}
