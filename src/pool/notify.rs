//! The threads on which code of the user's runs that was given to the pool: one that wakes wakers, one that
//! calls callbacks. Each is started with the first, and no other thread waits for either.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use super::job::{Callback, News};

thread_local! {
    /// This is one of the two threads, of whichever pool.
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

/// The two threads.
#[derive(Default)]
pub(super) struct Notify {
    threads: Mutex<Threads>,
    pending: Arc<Pending>,
}

#[derive(Default)]
struct Threads {
    wakers: Option<Sender<Waker>>,
    callbacks: Option<Sender<Callback>>,
}

/// How many have been given and are not done.
#[derive(Default)]
struct Pending {
    count: Mutex<usize>,
    none: Condvar,
}

impl Pending {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn one_done(&self) {
        let mut count = self.count();
        *count -= 1;
        if *count == 0 {
            self.none.notify_all();
        }
    }
}

impl Notify {
    /// Has these told, elsewhere.
    pub(super) fn tell_all(&self, news: impl IntoIterator<Item = News>) {
        news.into_iter().for_each(|news| self.tell(news));
    }

    /// Has somebody told, elsewhere.
    pub(super) fn tell(&self, news: News) {
        if let Some(waker) = news.waker {
            let run = |waker: Waker| waker.wake();
            self.give(|threads| &mut threads.wakers, "multiproc-waker", waker, run);
        }
        if let Some(callback) = news.callback {
            let run = |callback: Callback| callback();
            self.give(
                |threads| &mut threads.callbacks,
                "multiproc-callback",
                callback,
                run,
            );
        }
    }

    fn give<T: Send + 'static>(
        &self,
        which: impl Fn(&mut Threads) -> &mut Option<Sender<T>>,
        name: &str,
        what: T,
        run: fn(T),
    ) {
        *self.pending.count() += 1;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = which(&mut threads);
        if thread.is_none() {
            let (give, take) = channel::<T>();
            let pending = Arc::clone(&self.pending);
            let life = move || {
                TELLS.set(true);
                for what in take {
                    // A panic has been reported by its hook; it concerns nobody else.
                    let _ = catch_unwind(AssertUnwindSafe(|| run(what)));
                    pending.one_done();
                }
            };
            if thread::Builder::new().name(name.into()).spawn(life).is_ok() {
                *thread = Some(give);
            }
        }
        let left = match thread {
            // The thread lives as long as this end of its channel.
            Some(thread) => thread.send(what).err().map(|unsent| unsent.0),
            None => Some(what),
        };
        drop(threads);
        if let Some(what) = left {
            // No thread is to be had: on this one is better than never.
            let _ = catch_unwind(AssertUnwindSafe(|| run(what)));
            self.pending.one_done();
        }
    }

    /// Waits until everybody has been told; not on a thread that tells, which would wait for itself. False if the
    /// deadline came first.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut count = self.pending.count();
        while *count > 0 && !TELLS.get() {
            let none = &self.pending.none;
            count = match deadline.map(|end| end.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return false,
                Some(left) => {
                    let woken = none.wait_timeout(count, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => none.wait(count).unwrap_or_else(PoisonError::into_inner),
            };
        }
        true
    }

    /// Lets the threads end when they are done.
    pub(super) fn close(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        *threads = Threads::default();
    }
}
