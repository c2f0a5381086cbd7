//! multiproc's own side of every row, in processes made by `Process::spawn`.

mod bytes;
pub mod death;
mod lock;
mod part;
mod pipe;
mod pool;
mod process;
mod queue;

use crate::rig::row::{Ask, Cell, Group, Row};
use crate::rig::{Pace, Sample};
use anyhow::Result;

/// Adds our cells to the rows of the peers.
pub fn add(rows: &mut [Row]) {
    let mut ours = Ours(rows);
    bytes::add(&mut ours);
    death::add(&mut ours);
    lock::add(&mut ours);
    process::add(&mut ours);
    pipe::add(&mut ours);
    pool::add(&mut ours);
    queue::add(&mut ours);
}

pub struct Ours<'a>(&'a mut [Row]);

impl Ours<'_> {
    /// Puts a cell of ours first in the row called `name`, with what is asked of it, if anything.
    fn cell(
        &mut self,
        group: Group,
        name: &str,
        peer: &str,
        ask: Option<Ask>,
        run: impl Fn(&Pace) -> Result<Sample> + 'static,
    ) {
        let row = self
            .0
            .iter_mut()
            .find(|row| row.group == group && row.name == name);
        let row = row.unwrap_or_else(|| panic!("no row is called {name}"));
        let peer = format!("multiproc {peer}");
        row.cells.insert(
            0,
            Cell {
                peer,
                ask,
                run: Box::new(run),
            },
        );
    }
}
