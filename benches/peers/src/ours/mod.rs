//! multiproc's own side of every row, in processes made by `Process::spawn`.

mod lock;
mod pipe;
mod pool;
mod process;
mod queue;

use crate::rig::board::Board;
use crate::rig::roles::Shape;
use crate::rig::row::{Ask, Cell, Group, Row};
use crate::rig::{Pace, Sample, cpu};
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Adds our cells to the rows of the peers.
pub fn add(rows: &mut [Row]) {
    let mut ours = Ours(rows);
    queue::add(&mut ours);
    pipe::add(&mut ours);
    lock::add(&mut ours);
    process::add(&mut ours);
    pool::add(&mut ours);
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

/// What a participant is told: where the board is, its seat, its CPU, and what goes on.
#[derive(Serialize, Deserialize)]
struct Part {
    board: String,
    senders: usize,
    receivers: usize,
    seat: usize,
    cpu: usize,
    /// Messages in a call, bytes of a message, or nanoseconds of own work: what the role asks for.
    measure: usize,
}

impl Part {
    /// The participant's first step.
    fn enter(&self) -> Board {
        cpu::pin(self.cpu).expect("pinning");
        Board::open(&self.board).expect("the board")
    }

    fn shape(&self) -> Shape {
        Shape {
            senders: self.senders,
            receivers: self.receivers,
        }
    }

    /// One for each seat.
    fn all(board: &Board, shape: Shape, measure: usize) -> Result<Vec<Part>> {
        let part = |(seat, cpu)| Part {
            board: board.path(),
            senders: shape.senders,
            receivers: shape.receivers,
            seat,
            cpu,
            measure,
        };
        Ok(cpu::seats(shape.seats())?
            .into_iter()
            .enumerate()
            .map(part)
            .collect())
    }
}
