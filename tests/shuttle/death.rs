//! Participants that die at any of their steps.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU32, Ordering};
use shuttle::thread;

use crate::roster::Life;
use crate::sync::Futex;

shuttle::thread_local! {
    /// Steps that this thread has left; none if it lives on.
    static LEFT: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

/// What a thread dies of.
struct Death;

/// One step of a participant.
pub(crate) fn tick() {
    LEFT.with(|left| match left.get() {
        Some(0) => {
            left.set(None);
            resume_unwind(Box::new(Death));
        }
        Some(steps) => left.set(Some(steps - 1)),
        None => {}
    });
}

/// Runs a participant in this thread; it dies after so many steps, and there is no result.
pub(crate) fn live<R>(steps: Option<u32>, body: impl FnOnce() -> R) -> Option<R> {
    LEFT.with(|left| left.set(steps));
    let result = catch_unwind(AssertUnwindSafe(body));
    LEFT.with(|left| left.set(None));
    match result {
        Ok(result) => Some(result),
        Err(payload) if payload.is::<Death>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

/// Who is dead, and the tree's count of deaths.
#[derive(Default)]
pub(crate) struct Tree {
    dead: AtomicU32,
    pub(crate) deaths: Futex,
}

/// A participant of a tree.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) tree: Arc<Tree>,
    pub(crate) participant: u32,
}

impl Life for Member {
    fn me(&self) -> u32 {
        self.participant
    }

    fn is_dead(&self, participant: u32) -> bool {
        self.tree.dead.load(Ordering::SeqCst) & 1 << participant != 0
    }

    fn is_evicted(&self) -> bool {
        false
    }
}

impl Member {
    pub(crate) fn new(tree: &Arc<Tree>, participant: u32) -> Member {
        Member {
            tree: tree.clone(),
            participant,
        }
    }

    /// Runs a participant in a thread of its own. One that is mortal may die, at any step below `steps`: then all
    /// are told, as a parent does, and there is no result.
    pub(crate) fn spawn<R: Send + 'static>(
        self,
        mortal: Option<u32>,
        body: impl FnOnce(&Member) -> R + Send + 'static,
    ) -> thread::JoinHandle<Option<R>> {
        thread::spawn(move || {
            let steps = mortal.map(|steps| thread_rng().gen_range(0..steps));
            let result = live(steps, || body(&self));
            if result.is_none() {
                let tree = &self.tree;
                tree.dead.fetch_or(1 << self.participant, Ordering::SeqCst);
                tree.deaths.fetch_add(1, Ordering::SeqCst);
                tree.deaths.wake(u32::MAX);
            }
            result
        })
    }
}
