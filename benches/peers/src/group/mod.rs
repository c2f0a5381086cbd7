//! The groups: what is measured, and against whom.

pub mod base;
pub mod borrow;
pub mod bytes;
pub mod crowded;
pub mod death;
pub mod lock;
pub mod many;
pub mod oneway;
pub mod pool;
pub mod process;
pub mod roundtrip;

use crate::rig::row::Row;

pub fn rows() -> Vec<Row> {
    [
        base::rows(),
        roundtrip::rows(),
        crowded::rows(),
        oneway::rows(),
        many::rows(),
        lock::rows(),
        borrow::rows(),
        bytes::rows(),
        death::rows(),
        process::rows(),
        pool::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
