//! Where the two sides of a round trip run, and who else wants to run there.

use super::board::Board;
use super::cpu;
use super::crew::Crew;
use anyhow::Result;
use std::hint::spin_loop;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Each has a CPU of its own.
    Apart,
    /// Both have the same CPU.
    Together,
    /// Both have the same CPU, and another process keeps it busy.
    TogetherBusy,
    /// Each has a CPU of its own, and another process keeps each of those busy.
    ApartBusy,
}

impl Place {
    /// The CPU of each side.
    pub fn seats(self) -> Result<Vec<usize>> {
        match self {
            Place::Apart | Place::ApartBusy => cpu::seats(2),
            Place::Together | Place::TogetherBusy => {
                let one = cpu::seats(1)?[0];
                Ok(vec![one; 2])
            }
        }
    }

    /// Starts those who keep its CPUs busy, until what is returned is dropped. To be called while this process has one
    /// thread.
    pub fn crowd(self, board: &Board) -> Result<Crew> {
        let mut crew = Crew::default();
        if matches!(self, Place::TogetherBusy | Place::ApartBusy) {
            let mut cpus = self.seats()?;
            cpus.dedup();
            for cpu in cpus {
                crew.fork(Some(cpu), board, || {
                    loop {
                        spin_loop();
                    }
                })?;
            }
        }
        Ok(crew)
    }
}
