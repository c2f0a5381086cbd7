//! Starting a function and waiting for its end: one after another, with time for a spare to get ready, and by exec.

use super::Ours;
use crate::group::process::{PARENTS, in_parent, title};
use crate::rig::row::{Ask, Group};
use crate::rig::{Pace, Sample};
use anyhow::{Result, ensure};
use multiproc::{Process, ProcessBuilder, StartMethod};
use std::time::{Duration, Instant};

/// Long enough for a spare to be made.
const PAUSE: Duration = Duration::from_millis(2);

pub fn add(ours: &mut Ours) {
    for (name, size) in PARENTS {
        let name = title(name);
        let mut cell = |peer, ask, pause, make: fn() -> ProcessBuilder| {
            ours.cell(Group::Process, &name, peer, ask, move |pace| {
                in_parent(size, || starts(pace, pause, make))
            });
        };
        cell("Process, by exec", None, Duration::ZERO, || {
            Process::builder().start_method(StartMethod::Exec)
        });
        cell(
            "Process",
            Some(Ask::Figure(250e3)),
            Duration::ZERO,
            Process::builder,
        );
        cell(
            "Process, a spare is ready",
            Some(Ask::Figure(120e3)),
            PAUSE,
            Process::builder,
        );
    }
}

fn plus_one(x: u64) -> u64 {
    x + 1
}

fn starts(pace: &Pace, pause: Duration, make: fn() -> ProcessBuilder) -> Result<Sample> {
    let mut nanos = Vec::new();
    let start = Instant::now();
    while start.elapsed() < pace.warm + pace.window || nanos.len() < 20 {
        std::thread::sleep(pause);
        let at = Instant::now();
        let value = make().spawn(plus_one, (20,))?.join()?;
        let took = at.elapsed();
        ensure!(value == 21, "the wrong value");
        if start.elapsed() > pace.warm {
            nanos.push(took.as_nanos() as u64);
        }
    }
    Ok(Sample::of_nanos(&nanos))
}
