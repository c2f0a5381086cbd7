//! What a participant of ours is told, in the process made for it.

use crate::rig::board::Board;
use crate::rig::cpu;
use crate::rig::roles::Shape;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What a participant is told: where the board is, its seat, its CPU, and what goes on.
#[derive(Serialize, Deserialize)]
pub struct Part {
    pub board: String,
    pub senders: usize,
    pub receivers: usize,
    pub seat: usize,
    pub cpu: usize,
    /// Messages in a call, bytes of a message, or nanoseconds of own work: what the role asks for.
    pub measure: usize,
}

impl Part {
    /// The participant's first step.
    pub fn enter(&self) -> Board {
        cpu::pin(self.cpu).expect("pinning");
        Board::open(&self.board).expect("the board")
    }

    pub fn shape(&self) -> Shape {
        Shape {
            senders: self.senders,
            receivers: self.receivers,
        }
    }

    /// One for each seat.
    pub fn all(board: &Board, shape: Shape, measure: usize) -> Result<Vec<Part>> {
        Ok(Part::on(board, shape, measure, cpu::seats(shape.seats())?))
    }

    /// One for each seat, each on a CPU of `cpus`.
    pub fn on(board: &Board, shape: Shape, measure: usize, cpus: Vec<usize>) -> Vec<Part> {
        let part = |(seat, cpu)| Part {
            board: board.path(),
            senders: shape.senders,
            receivers: shape.receivers,
            seat,
            cpu,
            measure,
        };
        cpus.into_iter().enumerate().map(part).collect()
    }
}
