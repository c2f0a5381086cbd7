//! A worker's whole life: from its seat being prepared to the pool's closing.

use serde::{Deserialize, Serialize};

use super::station::{Hunt, Station};
use crate::handle::Travelling;
use crate::process::task::{self, TaskName};

/// What a worker is told when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Orders {
    /// The initializer's name and its arguments.
    pub(super) initializer: Option<(TaskName, Vec<u8>)>,
    /// How many chunks it may do before it leaves.
    pub(super) chunks: Option<u64>,
}

/// What runs in a worker's process.
pub(super) fn work(segment: Travelling, seat: u16, orders: Orders) {
    let mut station = Station::new(segment.0, seat, orders.chunks)
        .unwrap_or_else(|error| panic!("the pool's segment cannot be used: {error}"));
    if let Some((name, arguments)) = orders.initializer {
        station.initial = arguments;
        match task::resolve::<Station>(name) {
            Ok(initializer) => initializer(&mut station),
            Err(error) => panic!("the initializer cannot be found: {error}"),
        }
        if let Some(failure) = station.failed.take() {
            return station.report(Some(failure));
        }
        station.initial = Vec::new();
    }
    station.report(None);
    while station.left != Some(0) {
        match station.hunt() {
            Ok(Hunt::Ticket(ticket)) => station.serve(ticket),
            Ok(Hunt::Over) => return,
            Err(error) => panic!("the pool's segment cannot be used: {error}"),
        }
    }
    station.leave();
}
