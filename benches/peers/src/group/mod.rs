//! The groups: what is measured, and against whom.

mod base;
mod borrow;
mod lock;
mod many;
mod oneway;
mod pool;
mod process;
mod roundtrip;

use crate::rig::row::Row;

pub fn rows() -> Vec<Row> {
    [
        base::rows(),
        roundtrip::rows(),
        oneway::rows(),
        many::rows(),
        lock::rows(),
        borrow::rows(),
        process::rows(),
        pool::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
