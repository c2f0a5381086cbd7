//! Starting a function and waiting for its end: one after another, and with a pause between.

use super::Ours;
use crate::group::process::{PARENTS, in_parent, title};
use crate::rig::row::{Ask, Group};
use crate::rig::{Pace, Sample};
use anyhow::{Result, ensure};
use multiproc::Process;
use std::time::{Duration, Instant};

/// Long enough to get something ready for the next one.
const PAUSE: Duration = Duration::from_millis(2);

pub fn add(ours: &mut Ours) {
    for (name, size) in PARENTS {
        let mut cell = |peer, nanos, pause| {
            let ask = Some(Ask::Figure(nanos));
            ours.cell(Group::Process, &title(name), peer, ask, move |pace| {
                in_parent(size, || starts(pace, pause))
            });
        };
        cell("Process", 250e3, Duration::ZERO);
        cell("Process, 2 ms between", 120e3, PAUSE);
    }
}

fn plus_one(x: u64) -> u64 {
    x + 1
}

fn starts(pace: &Pace, pause: Duration) -> Result<Sample> {
    let mut nanos = Vec::new();
    let start = Instant::now();
    while start.elapsed() < pace.warm + pace.window || nanos.len() < 20 {
        std::thread::sleep(pause);
        let at = Instant::now();
        let value = Process::spawn(plus_one, (20,))?.join()?;
        let took = at.elapsed();
        ensure!(value == 21, "the wrong value");
        if start.elapsed() > pace.warm {
            nanos.push(took.as_nanos() as u64);
        }
    }
    Ok(Sample::of_nanos(&nanos))
}
