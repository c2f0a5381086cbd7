//! What is told to subscribers of `tracing`: process starts, tasks and deaths, with the feature of that name. Without
//! it, nothing here does anything.
//!
//! A subscriber is code of the user's. It is called on the thread of whoever started a process or joins it, in the
//! worker around each piece of a task, and for a pool's workers on the pool's thread for callbacks.

use crate::error::WorkerExit;

/// Something to be told later, on another thread.
pub(crate) type Later = Option<Box<dyn FnOnce() + Send>>;

/// A process has been started.
pub(crate) fn started(name: &str, pid: u32) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: "multiproc", name, pid, "process started");
    let _ = (name, pid);
}

/// A process has ended.
pub(crate) fn ended(name: &str, pid: u32, how: WorkerExit) {
    #[cfg(feature = "tracing")]
    match how {
        WorkerExit::Exited(0) => {
            tracing::debug!(target: "multiproc", name, pid, %how, "process ended")
        }
        _ => tracing::warn!(target: "multiproc", name, pid, %how, "process died"),
    }
    let _ = (name, pid, how);
}

/// As [`started`], later.
pub(crate) fn worker_started(name: &str, pid: u32) -> Later {
    later(name, move |name| started(name, pid))
}

/// As [`ended`], later.
pub(crate) fn worker_ended(name: &str, pid: u32, how: WorkerExit) -> Later {
    later(name, move |name| ended(name, pid, how))
}

fn later(name: &str, tell: impl FnOnce(&str) + Send + 'static) -> Later {
    if !cfg!(feature = "tracing") {
        return None;
    }
    let name = name.to_owned();
    Some(Box::new(move || tell(&name)))
}

/// Runs a part of a task in its span.
#[inline(always)]
pub(crate) fn task<R>(function: &'static str, run: impl FnOnce() -> R) -> R {
    #[cfg(feature = "tracing")]
    let _in = tracing::debug_span!(target: "multiproc", "task", function).entered();
    let _ = function;
    run()
}
