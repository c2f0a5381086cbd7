//! Figures as people read them.

/// What a row counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds; less is better.
    Time,
    /// Per second; more is better.
    Rate,
    /// Bytes per second; more is better.
    Bandwidth,
}

impl Unit {
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Time if value < 1e3 => format!("{} ns", digits(value)),
            Unit::Time if value < 1e6 => format!("{} µs", digits(value / 1e3)),
            Unit::Time if value < 1e9 => format!("{} ms", digits(value / 1e6)),
            Unit::Time => format!("{} s", digits(value / 1e9)),
            Unit::Rate if value < 1e3 => format!("{} /s", digits(value)),
            Unit::Rate if value < 1e6 => format!("{} k/s", digits(value / 1e3)),
            Unit::Rate => format!("{} M/s", digits(value / 1e6)),
            Unit::Bandwidth => format!("{} GiB/s", digits(value / (1u64 << 30) as f64)),
        }
    }

    /// How many times as good as `rival` a figure is.
    pub fn ratio(self, value: f64, rival: f64) -> f64 {
        match self {
            Unit::Time => rival / value,
            Unit::Rate | Unit::Bandwidth => value / rival,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Unit::Time => "ns",
            Unit::Rate => "per second",
            Unit::Bandwidth => "bytes per second",
        }
    }
}

/// Three figures, or all of them before the point.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
