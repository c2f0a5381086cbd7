//! Starting a function and waiting for its end: one after another, which a zygote makes; with a pause between, in which
//! spares are made; and each by executing the program.

use super::Ours;
use crate::group::process::{PARENTS, PAUSE, after_pauses, in_parent, title};
use crate::rig::row::{Ask, Group};
use crate::rig::{Pace, Sample};
use anyhow::{Result, ensure};
use multiproc::{Process, StartMethod};
use std::time::Duration;

pub fn add(ours: &mut Ours) {
    for (name, size) in PARENTS {
        let mut cell = |peer, ask: Option<f64>, method, pause| {
            let ask = ask.map(Ask::Figure);
            ours.cell(Group::Process, &title(name), peer, ask, move |pace| {
                in_parent(size, || starts(pace, method, pause))
            });
        };
        cell(
            "Process, zygote",
            Some(250e3),
            StartMethod::Zygote,
            Duration::ZERO,
        );
        cell("Process, spare", Some(120e3), StartMethod::Zygote, PAUSE);
        cell("Process, exec", None, StartMethod::Exec, Duration::ZERO);
    }
}

fn plus_one(x: u64) -> u64 {
    x + 1
}

fn starts(pace: &Pace, method: StartMethod, pause: Duration) -> Result<Sample> {
    let nanos = after_pauses(pace, pause, || {
        let process = Process::builder().start_method(method);
        let value = process.spawn(plus_one, (20,))?.join()?;
        ensure!(value == 21, "the wrong value");
        Ok(())
    })?;
    Ok(Sample::of_nanos(&nanos))
}
