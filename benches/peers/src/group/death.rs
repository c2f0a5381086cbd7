//! How soon whoever waits for a process learns that it was killed. The waiting one sleeps by then.

use crate::rig::board::Board;
use crate::rig::crew::Crew;
use crate::rig::row::{Group, Row};
use crate::rig::units::Unit;
use crate::rig::{Pace, Sample};
use anyhow::{Result, ensure};
use std::io::{Read, Write, pipe};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

/// Where the killed and the waiting one stand to each other.
pub const IN_A_TREE: &str = "killed process to its parent";
pub const BETWEEN: &str = "killed process to another program";
/// From the call on: what is measured is a little more than what is asked for.
pub const OF_A_TASK: &str = "task that fails, to its caller";

/// Longer than anybody spins.
const ASLEEP: Duration = Duration::from_millis(3);
/// Enough for a 99th percentile.
const LEAST: usize = 100;

pub fn rows() -> Vec<Row> {
    let row = |name| {
        Row::new(Group::Death, name, Unit::Time)
            .beside("p99")
            .rival("OS pipe")
            .cell("OS pipe", os_pipe)
    };
    let of_a_task = Row::new(Group::Death, OF_A_TASK, Unit::Time).beside("p99");
    vec![row(IN_A_TREE), row(BETWEEN), of_a_task]
}

/// `start` gives a process that is killed when it is dropped, and `wait` returns when it is known to be dead.
pub fn told<V: Send>(
    pace: &Pace,
    mut start: impl FnMut() -> Result<V>,
    mut wait: impl FnMut() -> Result<()>,
) -> Result<Sample> {
    let mut nanos = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < pace.warm + pace.window || nanos.len() < LEAST {
        let victim = start()?;
        let kill = move || {
            sleep(ASLEEP);
            let at = Instant::now();
            drop(victim);
            at
        };
        let (told, killed) = scope(|threads| {
            let killer = threads.spawn(kill);
            wait().map(|()| (Instant::now(), killer.join().expect("killing")))
        })?;
        ensure!(told > killed, "told before it was killed");
        nanos.push((told - killed).as_nanos() as u64);
    }
    Ok(Sample::of_nanos(&nanos))
}

/// The end of a stream whose only writer was killed.
fn os_pipe(pace: &Pace) -> Result<Sample> {
    let board = Board::new()?;
    let reader = std::cell::RefCell::new(None);
    let start = || {
        let (mut from, mut to) = pipe()?;
        let mut crew = Crew::default();
        crew.fork(None, &board, || {
            to.write_all(b".").expect("writing to a pipe");
            sleep(Duration::from_secs(60));
        })?;
        drop(to);
        from.read_exact(&mut [0])?;
        *reader.borrow_mut() = Some(from);
        Ok(crew)
    };
    let wait = || {
        let mut reader = reader.borrow_mut();
        let from = reader.as_mut().expect("it was started");
        ensure!(from.read(&mut [0])? == 0, "something more was written");
        Ok(())
    };
    told(pace, start, wait)
}
