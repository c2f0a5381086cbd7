//! Pools of four workers.

use super::Ours;
use crate::group::pool::*;
use crate::peer::rayon::{busy, calls, check, square, three_callers, total};
use crate::rig::row::{Ask, Group};
use crate::rig::{Pace, Sample};
use anyhow::{Context, Result, ensure};
use multiproc::{Frozen, Pool, Process, Queue, Receiver, Sender};
use std::time::Duration;

pub fn add(ours: &mut Ours) {
    let mut cell = |name, peer, ask, run: fn(&Pace) -> Result<Sample>| {
        ours.cell(Group::Pool, name, peer, Some(ask), run);
    };
    cell(
        MAP,
        "Pool::map over Frozen",
        Ask::TimesOf(1.0 / 1.2, COPIED),
        map_frozen,
    );
    cell(MAP, "Pool::map", Ask::TimesOf(1.0 / 1.2, BOTH_COPIED), map);
    cell(CHUNK_1, "Pool, chunk_size(1)", Ask::Figure(150.0), singles);
    cell(HOT, "Pool::apply", Ask::TimesOf(1.0 / 2.5, QUEUE), |pace| {
        apply(Duration::ZERO, pace)
    });
    cell(PARKED, "Pool::apply", Ask::Times(1.0 / 1.1), |pace| {
        apply(PAUSE, pace)
    });
    cell(
        LARGE,
        "Pool::map",
        Ask::TimesOf(1.0 / 1.1, "plain loop"),
        sums,
    );
    cell(COLD, "Pool", Ask::Times(1.0 / 3.0), cold);
    cell(
        OUTSTANDING,
        "Pool::apply_async",
        Ask::Figure(2e3),
        outstanding,
    );
    cell(THREE, "Pool::apply", Ask::Figure(1.3e6), three);
    cell(LIFE, "Pool", Ask::Figure(3e6), four);
    ours.cell(Group::Pool, HOT, QUEUE, None, queue);
}

/// What `apply` is held against: a question and its answer between two processes that are busy with it.
const QUEUE: &str = "Queue, there and back";

fn answer(mut rx: Receiver<u64>, mut tx: Sender<u64>) {
    while let Ok(x) = rx.recv() {
        if tx.send(square(x)).is_err() {
            return;
        }
    }
}

fn queue(pace: &Pace) -> Result<Sample> {
    let (mut tx, there) = Queue::<u64>::new(64)?;
    let (back, mut rx) = Queue::<u64>::new(64)?;
    let other = Process::spawn(answer, (there, back))?;
    let nanos = calls(Duration::ZERO, pace, |x| {
        tx.send(x).ok().context("a receiver")?;
        Ok(rx.recv()?)
    })?;
    drop(tx);
    other.join()?;
    Ok(Sample::of_nanos(&nanos))
}

fn cold(pace: &Pace) -> Result<Sample> {
    let items = items(ITEMS);
    let once = || Ok(Pool::new(4)?.map(square, &items)?);
    let nanos = pace.each_checked(3, once, |all| check(&items, &all))?;
    Ok(Sample::of_nanos(&nanos))
}

fn outstanding(pace: &Pace) -> Result<Sample> {
    let pool = Pool::new(4)?;
    let nanos = pace.each(3, || {
        let tasks = (0..OUTSTANDING_TASKS).map(|x| pool.apply_async(square, (x,)));
        for (task, x) in tasks.collect::<Vec<_>>().into_iter().zip(0..) {
            ensure!(task.get()? == square(x), "the wrong value");
        }
        Ok(())
    })?;
    let each = Sample::of_nanos(&nanos).value / OUTSTANDING_TASKS as f64;
    Ok(Sample::plain(each))
}

fn three(pace: &Pace) -> Result<Sample> {
    let pool = Pool::new(4)?;
    three_callers(pace, |x| Ok(pool.apply(busy, (x,))?))
}

fn map(pace: &Pace) -> Result<Sample> {
    let (pool, items) = (Pool::new(4)?, items(ITEMS));
    let once = || Ok(pool.map(square, &items)?);
    let nanos = pace.each_checked(3, once, |all| check(&items, &all))?;
    Ok(Sample::of_nanos(&nanos))
}

fn map_frozen(pace: &Pace) -> Result<Sample> {
    let (pool, items) = (Pool::new(4)?, items(ITEMS));
    let frozen = Frozen::from_slice(&items)?;
    let once = || Ok(pool.map(square, &frozen)?);
    let nanos = pace.each_checked(3, once, |all| check(&items, &all))?;
    Ok(Sample::of_nanos(&nanos))
}

fn singles(pace: &Pace) -> Result<Sample> {
    let (pool, items) = (Pool::new(4)?, items(SINGLES));
    let once = || Ok(pool.chunk_size(1).map(square, &items)?);
    let nanos = pace.each_checked(3, once, |all| check(&items, &all))?;
    Ok(Sample::plain(
        Sample::of_nanos(&nanos).value / SINGLES as f64,
    ))
}

fn apply(pause: Duration, pace: &Pace) -> Result<Sample> {
    let pool = Pool::new(4)?;
    let nanos = calls(pause, pace, |x| Ok(pool.apply(square, (x,))?))?;
    Ok(Sample::of_nanos(&nanos))
}

fn sum(data: Vec<u8>) -> u64 {
    total(&data)
}

fn sums(pace: &Pace) -> Result<Sample> {
    let (pool, data) = (Pool::new(4)?, large());
    let expected: Vec<u64> = data.iter().map(|one| total(one)).collect();
    let nanos = pace.each(1, || {
        ensure!(pool.map(sum, &data)? == expected, "the wrong sums");
        Ok(())
    })?;
    Ok(Sample::of_nanos(&nanos))
}

fn four(pace: &Pace) -> Result<Sample> {
    let nanos = pace.each(3, || {
        let pool = Pool::new(4)?;
        ensure!(
            pool.map(square, [0, 1, 2, 3])? == [0, 1, 4, 9],
            "the wrong values"
        );
        pool.close();
        pool.join()?;
        Ok(())
    })?;
    Ok(Sample::of_nanos(&nanos))
}
