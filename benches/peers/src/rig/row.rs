//! What is measured: rows of cells, one cell for each peer.

use super::units::Unit;
use super::{Pace, Sample};
use anyhow::Result;
use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Group {
    /// What the harness and the machine cost by themselves
    Base,
    /// A question and its answer
    Roundtrip,
    /// The same where others want the CPU as well
    Crowded,
    /// One sender, one receiver
    Oneway,
    /// Several senders or receivers
    Many,
    /// Mutual exclusion
    Lock,
    /// Messages written and read where they lie
    Borrow,
    /// 1 MiB of numbers inside other values
    Bytes,
    /// Being told that another process was killed
    Death,
    /// Starting a function in a process and waiting for its end
    Process,
    /// Many small tasks, and large ones
    Pool,
}

impl Group {
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

type Run = Box<dyn Fn(&Pace) -> Result<Sample>>;

/// What one of our own cells has to reach.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// So many times as good as the rival of its row.
    Times(f64),
    /// So many times as good as this peer of its row.
    TimesOf(f64, &'static str),
    /// This figure, in the unit of its row.
    Figure(f64),
}

pub struct Cell {
    pub peer: String,
    pub ask: Option<Ask>,
    pub run: Run,
}

pub struct Row {
    pub group: Group,
    pub name: String,
    pub unit: Unit,
    /// The peer that the ratios compare with.
    pub rival: &'static str,
    /// What stands beside the figure.
    pub beside: Option<&'static str>,
    /// How many CPUs have to be there.
    pub cpus: usize,
    /// At most so many rounds.
    pub rounds: usize,
    pub cells: Vec<Cell>,
}

impl Row {
    pub fn new(group: Group, name: impl Into<String>, unit: Unit) -> Row {
        Row {
            group,
            name: name.into(),
            unit,
            rival: "",
            beside: None,
            cpus: 1,
            rounds: usize::MAX,
            cells: Vec::new(),
        }
    }

    pub fn rival(mut self, peer: &'static str) -> Row {
        self.rival = peer;
        self
    }

    pub fn beside(mut self, what: &'static str) -> Row {
        self.beside = Some(what);
        self
    }

    pub fn cpus(mut self, cpus: usize) -> Row {
        self.cpus = cpus;
        self
    }

    pub fn rounds(mut self, most: usize) -> Row {
        self.rounds = most;
        self
    }

    pub fn cell(
        mut self,
        peer: impl Into<String>,
        run: impl Fn(&Pace) -> Result<Sample> + 'static,
    ) -> Row {
        self.cells.push(Cell {
            peer: peer.into(),
            ask: None,
            run: Box::new(run),
        });
        self
    }

    /// The words by which a process of its own is told what to run.
    pub fn id(&self, cell: &Cell) -> String {
        format!("{} | {} | {}", self.group.name(), self.name, cell.peer)
    }
}
