//! The rig: what every group measures with, whoever is being measured.

pub mod board;
pub mod chart;
pub mod cpu;
pub mod crew;
pub mod place;
pub mod report;
pub mod roles;
pub mod row;
pub mod runs;
pub mod units;

use anyhow::Result;
use std::time::{Duration, Instant};

/// How long one sample takes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time that passes before anything counts: first touches of memory, first laps of a ring.
    pub warm: Duration,
    /// Time that counts.
    pub window: Duration,
}

impl Pace {
    pub const USUAL: Pace = Pace {
        warm: Duration::from_millis(30),
        window: Duration::from_millis(80),
    };
    pub const QUICK: Pace = Pace {
        warm: Duration::from_millis(10),
        window: Duration::from_millis(25),
    };

    /// Calls `once` until the window has passed and at least `least` times, and gives back the
    /// nanoseconds of each call.
    pub fn each(&self, least: usize, once: impl FnMut() -> Result<()>) -> Result<Vec<u64>> {
        self.each_checked(least, once, |()| Ok(()))
    }

    /// The same; what each call gives is looked at while the clock stands.
    pub fn each_checked<T>(
        &self,
        least: usize,
        mut once: impl FnMut() -> Result<T>,
        mut check: impl FnMut(T) -> Result<()>,
    ) -> Result<Vec<u64>> {
        let mut taken = Vec::new();
        let start = Instant::now();
        let mut counted = None;
        loop {
            let at = Instant::now();
            let value = once()?;
            let took = at.elapsed();
            check(value)?;
            match counted {
                None if start.elapsed() >= self.warm => counted = Some(Instant::now()),
                None => (),
                Some(from) => {
                    taken.push(took.as_nanos() as u64);
                    if from.elapsed() >= self.window && taken.len() >= least {
                        return Ok(taken);
                    }
                }
            }
        }
    }
}

/// What one round of one peer gives.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// In the unit of the row.
    pub value: f64,
    /// What the row shows beside it, if anything: a 99th percentile in the same unit, or a share.
    pub beside: Option<f64>,
}

impl Sample {
    pub fn plain(value: f64) -> Sample {
        Sample {
            value,
            beside: None,
        }
    }

    /// Median and 99th percentile of many nanosecond readings.
    pub fn of_nanos(nanos: &[u64]) -> Sample {
        let mut histogram = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)
            .expect("up to a minute, 3 digits");
        for &n in nanos {
            histogram.saturating_record(n.max(1));
        }
        Sample {
            value: histogram.value_at_quantile(0.5) as f64,
            beside: Some(histogram.value_at_quantile(0.99) as f64),
        }
    }
}

/// Busy for the whole of `time`, without giving the CPU away.
pub fn think(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}
