//! 1 MiB of numbers alone and inside other values. It may cost no more where it lies deep: one
//! copy, and the memory that the value is made in.

use crate::rig::row::{Group, Row};
use crate::rig::units::Unit;

pub const SIZE: usize = 1 << 20;

pub const QUEUE: &str = "1 MiB and back, queues";
pub const PIPE: &str = "1 MiB and back, pipe";
pub const POOL: &str = "1 MiB and back, task of a pool";

/// What the others in its row stand against.
pub const ALONE: &str = "Vec<u8>";

pub fn rows() -> Vec<Row> {
    [QUEUE, PIPE, POOL]
        .map(|name| {
            Row::new(Group::Bytes, name, Unit::Time)
                .cpus(2)
                .rival("multiproc Vec<u8>")
        })
        .into()
}
