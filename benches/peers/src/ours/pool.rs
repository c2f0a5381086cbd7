//! Pools of four workers.

use super::Ours;
use crate::group::pool::*;
use crate::peer::rayon::{calls, check, square, total};
use crate::rig::row::{Ask, Group};
use crate::rig::{Pace, Sample};
use anyhow::{Result, ensure};
use multiproc::{Frozen, Pool};
use std::time::Duration;

pub fn add(ours: &mut Ours) {
    let mut cell = |name, peer, ask, run: fn(&Pace) -> Result<Sample>| {
        ours.cell(Group::Pool, name, peer, Some(ask), run);
    };
    cell(
        MAP,
        "Pool::map over Frozen",
        Ask::Times(1.0 / 1.2),
        map_frozen,
    );
    cell(MAP, "Pool::map", Ask::Times(0.5), map);
    cell(CHUNK_1, "Pool, chunk_size(1)", Ask::Figure(300.0), singles);
    cell(HOT, "Pool::apply", Ask::Figure(1e3), |pace| {
        apply(Duration::ZERO, pace)
    });
    cell(PARKED, "Pool::apply", Ask::Times(1.0 / 1.3), |pace| {
        apply(PAUSE, pace)
    });
    cell(LARGE, "Pool::map", Ask::Figure(60e6), sums);
    cell(LIFE, "Pool", Ask::Figure(3e6), four);
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
