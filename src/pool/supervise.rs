//! The pool's own thread: fills seats, watches the clock, and reads what workers say when nobody waits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use super::engine::{Engine, lock};
use super::work::Ending;

/// How often a call is looked after whose caller is busy with something else.
const LOOSE: Duration = Duration::from_millis(2);

/// The supervisor's life: until the engine says stop.
pub(super) fn supervise(engine: &Arc<Engine>) {
    let is_stopped = || engine.stop.load(Ordering::Acquire);
    while !is_stopped() {
        // Acquire: what this call is about is seen below; for any later one there is another round.
        engine.called.swap(false, Ordering::Acquire);
        engine.fill_seats();
        if matches!(lock(&engine.intake).closed, Some(Ending::Broken(_))) {
            engine.dismiss();
        }
        let mut tick = None;
        if let Some(limit) = engine.settings.task_timeout {
            engine.kill_the_overdue(limit);
            tick = Some((limit / 8).clamp(Duration::from_millis(1), Duration::from_millis(50)));
        }
        let is_loose = engine.loose.load(Ordering::SeqCst) > 0;
        if is_loose {
            tick = Some(tick.map_or(LOOSE, |tick: Duration| tick.min(LOOSE)));
        }
        let has_work = || engine.unwatched.load(Ordering::SeqCst) > 0;
        if has_work() || is_loose || engine.attention.load(Ordering::Acquire) {
            let role = match engine.role.try_lock() {
                Ok(role) => Some(role),
                Err(TryLockError::Poisoned(role)) => Some(role.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some(mut role) = role {
                let mut done = || !has_work() || is_stopped() || lock(&engine.crew).has_vacancies();
                let deadline = tick.map(|tick| Instant::now() + tick);
                role.read_until(engine, &mut done, deadline);
                drop(role);
                engine.pass_on();
                if has_work() || lock(&engine.crew).has_vacancies() {
                    continue;
                }
            }
        }
        // Who calls unparks this thread, but a wait for a new process may have taken that for its own.
        if engine.called.load(Ordering::Relaxed) {
            continue;
        }
        match tick {
            Some(tick) => thread::park_timeout(tick),
            None => thread::park(),
        }
    }
}

/// Counts a call whose caller does other things between its waits.
pub(super) struct Loose<'p>(&'p Engine);

impl<'p> Loose<'p> {
    pub(super) fn new(engine: &'p Engine) -> Loose<'p> {
        if engine.loose.fetch_add(1, Ordering::SeqCst) == 0 {
            engine.call_supervisor();
        }
        Loose(engine)
    }
}

impl Drop for Loose<'_> {
    fn drop(&mut self) {
        self.0.loose.fetch_sub(1, Ordering::SeqCst);
    }
}
