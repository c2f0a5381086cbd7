//! Locks around two counters, free and contended.

use super::Ours;
use super::part::Part;
use crate::group::lock::{CONTENDED, FREE};
use crate::rig::board::Board;
use crate::rig::roles::{Mutual, Shape, contend};
use crate::rig::row::{Ask, Group};
use crate::rig::runs::{exact, free, shares};
use crate::rig::{Pace, Sample};
use anyhow::Result;
use multiproc::{Lock, Process};
use std::time::Duration;

pub fn add(ours: &mut Ours) {
    let ask = Some(Ask::Times(1.0));
    ours.cell(Group::Lock, FREE, "Lock", ask, |pace| {
        free(pace, Lock::new([0u64; 2])?)
    });
    for (name, seats, own) in CONTENDED {
        ours.cell(Group::Lock, name, "Lock", ask, move |pace| {
            contended(seats, own, pace)
        });
    }
}

impl Mutual for Lock<[u64; 2]> {
    fn inside(&mut self, change: impl FnOnce(&mut [u64; 2])) {
        change(&mut self.lock().expect("nobody dies inside"));
    }
}

fn contends(part: Part, mut lock: Lock<[u64; 2]>) {
    let own = Duration::from_nanos(part.measure as u64);
    contend(&part.enter(), part.seat, &mut lock, own);
}

fn contended(seats: usize, own: Duration, pace: &Pace) -> Result<Sample> {
    let board = Board::new()?;
    let lock = Lock::new([0u64; 2])?;
    let shape = Shape {
        senders: seats,
        receivers: 0,
    };
    let mut children = Vec::new();
    for part in Part::all(&board, shape, own.as_nanos() as usize)? {
        children.push(Process::spawn(contends, (part, lock.clone()))?);
    }
    let sample = shares(&board, seats, pace)?;
    for child in children {
        child.join()?;
    }
    let total = *lock.lock().expect("nobody died inside");
    exact(&board, seats, total)?;
    Ok(sample)
}
