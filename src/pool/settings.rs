//! What a pool is built with.

use std::sync::Mutex;
use std::time::Duration;

use crate::handle::Passed;
use crate::process::StartMethod;
use crate::process::task::TaskName;

/// What becomes of an item whose worker died in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDeath {
    /// It fails. No item is ever begun twice.
    #[default]
    Fail,
    /// It is begun again, so many times at most; then it fails. For items that may be begun again.
    Retry(u8),
}

/// What a pool was built with.
pub(super) struct Settings {
    pub(super) workers: usize,
    pub(super) name: String,
    pub(super) initializer: Option<(TaskName, Vec<u8>)>,
    /// What the initializer's arguments name stays alive as long as the pool.
    pub(super) _passed: Mutex<Option<Passed>>,
    pub(super) max_tasks: Option<u64>,
    pub(super) on_death: OnDeath,
    pub(super) task_timeout: Option<Duration>,
    pub(super) method: Option<StartMethod>,
    pub(super) kill_tree: bool,
}
