//! What a pool is built with.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::handle::Passed;
use crate::process::ProcessBuilder;
use crate::process::task::TaskName;

/// What becomes of an item whose worker died in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnDeath {
    /// It fails. No item is ever begun twice.
    #[default]
    Fail,
    /// It is begun again, so many times at most; then it fails. For items that may be begun again.
    Retry(u8),
}

impl OnDeath {
    pub(super) fn retries(self) -> u32 {
        match self {
            OnDeath::Fail => 0,
            OnDeath::Retry(times) => u32::from(times),
        }
    }
}

/// What each worker calls first.
pub(super) struct Initializer {
    pub(super) name: TaskName,
    pub(super) arguments: Vec<u8>,
    /// What the arguments name stays alive as long as the pool, and the builder that made it.
    pub(super) _passed: Mutex<Passed>,
}

/// What a pool was built with.
pub(super) struct Settings {
    pub(super) workers: usize,
    pub(super) name: String,
    pub(super) initializer: Option<Arc<Initializer>>,
    pub(super) max_tasks: Option<u64>,
    pub(super) on_death: OnDeath,
    pub(super) task_timeout: Option<Duration>,
    pub(super) kill_tree: bool,
    /// Items that may be submitted and not have ended.
    pub(super) queue_limit: Option<u64>,
    /// Bytes of memory that a worker may have.
    pub(super) memory_limit: Option<u64>,
    /// SIGTERM and SIGINT end workers.
    pub(super) ends_by_signals: bool,
    /// How each worker's process is made; all but its name.
    pub(super) process: ProcessBuilder,
}
