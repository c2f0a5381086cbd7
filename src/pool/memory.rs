//! The bytes of items and results: known to the pool's own process alone.
//!
//! They lie in one sparse segment. Only the pool gives bytes out and takes them back, so the death of a
//! worker can neither leak nor break anything here. What is given out has memory: a shortage is an error
//! in the pool, never a signal. Bytes that came back are given out again, lowest first: a page touched for
//! the first time costs far more than one that is warm. What nobody has used for a while goes back to the
//! system, and the workers' pages go with it.
//!
//! A [`Block`] gives itself back when it is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::wire::Wire;
use crate::error::{SegmentError, whole};
use crate::kin;
use crate::segment::{Bytes, Segment};

/// Blocks begin and end at multiples of this.
const GRAIN: u64 = 128;
/// Memory is asked for, and given back, in pieces of this.
const STEP: u64 = 256 * 1024;
/// So much stays with an idle pool.
const KEEP: u64 = 1 << 20;

/// How long memory that is short is waited for while nothing comes free.
pub(super) const SHORTAGE: Duration = Duration::from_secs(1);

/// Why there are no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Short {
    /// There will never be so many.
    Never(String),
    /// There may be when others have given theirs back.
    Now(String),
}

impl Short {
    /// Whether it is of no use to wait.
    pub(super) fn is_for_ever(&self) -> bool {
        matches!(self, Short::Never(_))
    }

    pub(super) fn why(self) -> String {
        match self {
            Short::Never(why) | Short::Now(why) => why,
        }
    }
}

/// The memory of a pool.
#[derive(Debug)]
pub(super) struct Memory {
    segment: Segment,
    /// Where it begins in the segment.
    start: u64,
    pub(super) bytes: Bytes,
    state: Mutex<State>,
    /// Something came back.
    returned: Condvar,
    watcher: OnceLock<Watcher>,
}

/// Told when memory becomes active; takes no lock.
struct Watcher(Box<dyn Fn() + Send + Sync>);

impl std::ops::Deref for Watcher {
    type Target = dyn Fn() + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

#[derive(Debug)]
struct State {
    len: u64,
    /// Offset and length of each free stretch; no two touch.
    free: BTreeMap<u64, u64>,
    /// Which steps have memory.
    committed: Vec<bool>,
    /// Bytes given out.
    used: u64,
    /// Something was given out, or came back, since the pool last looked.
    is_active: bool,
    /// How often something came back.
    returns: u64,
}

/// Bytes that were given out; dropped, they go back.
#[derive(Debug)]
pub(super) struct Block {
    memory: Arc<Memory>,
    /// Where they begin in the segment.
    pub(super) place: u64,
    pub(super) len: u64,
}

impl Drop for Block {
    fn drop(&mut self) {
        // A forked copy has no pool, and the lock may have been held at the fork.
        if kin::forked() {
            return;
        }
        self.memory.give_back(self.place, self.len);
    }
}

impl Block {
    /// Gives back what lies behind the first `used` bytes.
    pub(super) fn truncate(&mut self, used: u64) {
        let keep = rounded(used).min(self.len);
        if keep < self.len {
            self.memory.give_back(self.place + keep, self.len - keep);
            self.len = keep;
        }
    }

    /// Whether these bytes all lie in it.
    pub(super) fn holds(&self, place: u64, len: u64) -> bool {
        place >= self.place
            && place
                .checked_add(len)
                .is_some_and(|end| end <= self.place + self.len)
    }
}

/// Bytes that a block for so many takes; of more than can be counted, the most that can.
pub(super) fn rounded(len: u64) -> u64 {
    let rounded = len.max(1).checked_next_multiple_of(GRAIN);
    rounded.unwrap_or(u64::MAX / GRAIN * GRAIN)
}

impl Memory {
    /// That of a new pool's segment; nothing is given out.
    pub(super) fn new(wire: &Wire) -> Arc<Memory> {
        let start = wire.arena();
        let len = wire.segment().len() as u64 - start;
        Arc::new(Memory {
            segment: wire.segment().clone(),
            start,
            bytes: wire.bytes.clone(),
            state: Mutex::new(State::new(len - len % STEP)),
            returned: Condvar::new(),
            watcher: OnceLock::new(),
        })
    }

    /// Has `watcher` called when something comes back after a time in which nothing did.
    pub(super) fn watch(&self, watcher: impl Fn() + Send + Sync + 'static) {
        // Only here: a pool watches its memory once.
        let _ = self.watcher.set(Watcher(Box::new(watcher)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of at least `len` bytes. True with it if memory was asked for: somebody has to look later
    /// whether it is still used.
    ///
    /// # Errors
    ///
    /// [`Short`] if there are not so many now, or never will be.
    pub(super) fn take(self: &Arc<Memory>, len: u64) -> Result<(Block, bool), Short> {
        let asked = len;
        let len = rounded(len);
        let mut state = self.state();
        if len > state.len {
            let most = state.len;
            return Err(Short::Never(format!(
                "{asked} bytes were asked for, and this pool's memory can hold {most}"
            )));
        }
        let offset = state.take(len).ok_or_else(|| {
            Short::Now(format!(
                "{asked} bytes were asked for, and {} of this pool's {} are in use",
                state.used, state.len
            ))
        })?;
        let committed = state.commit(offset, len, &mut |from, len| {
            self.segment.commit(self.start + from, len)?;
            self.segment.populate(self.start + from, len);
            Ok::<_, SegmentError>(())
        });
        match committed {
            Ok(has_grown) => Ok((
                Block {
                    memory: Arc::clone(self),
                    place: self.start + offset,
                    len,
                },
                has_grown,
            )),
            Err(error) => {
                state.give_back(offset, len);
                let error = whole(&error);
                let why = format!("{asked} bytes of shared memory were asked for: {error}");
                Err(match state.used {
                    // Others' memory may come free, but nobody here holds any.
                    0 => Short::Never(why),
                    _ => Short::Now(why),
                })
            }
        }
    }

    /// Whether more than half would be given out with so many bytes more.
    pub(super) fn would_be_half_full(&self, more: u64) -> bool {
        let state = self.state();
        state.used.saturating_add(more) > state.len / 2
    }

    fn give_back(&self, place: u64, len: u64) {
        let mut state = self.state();
        let was_active = state.is_active;
        state.give_back(place - self.start, len);
        state.returns += 1;
        drop(state);
        self.returned.notify_all();
        if let (false, Some(watcher)) = (was_active, self.watcher.get()) {
            // Whoever trims may have ceased to look.
            watcher();
        }
    }

    /// How often something came back: for [`wait`](Memory::wait).
    pub(super) fn returns(&self) -> u64 {
        self.state().returns
    }

    /// Waits until something more has come back; false if nothing did in this time.
    pub(super) fn wait(&self, returns: u64, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        while state.returns == returns {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.returned.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Whether something was given out or came back since [`trim`](Memory::trim) was last called.
    pub(super) fn is_active(&self) -> bool {
        self.state().is_active
    }

    /// Gives memory back to the system that nobody uses, all but a little, if nothing was given out or came
    /// back since it was last called. Whether it is to be called again.
    pub(super) fn trim(&self, keep_little: bool) -> bool {
        let mut state = self.state();
        let was_active = std::mem::replace(&mut state.is_active, false);
        if was_active && keep_little {
            return true;
        }
        let keep = if keep_little { KEEP } else { 0 };
        for (from, len) in state.idle(keep) {
            // What cannot be given back now is asked for no second time.
            if self.segment.punch(self.start + from, len).is_err() {
                state.mark(from, len, true);
            }
        }
        false
    }
}

impl State {
    fn new(len: u64) -> State {
        State {
            len,
            free: BTreeMap::from([(0, len)]),
            committed: Vec::new(),
            used: 0,
            is_active: false,
            returns: 0,
        }
    }

    /// The first stretch that is long enough.
    fn take(&mut self, len: u64) -> Option<u64> {
        let (&offset, &found) = self.free.iter().find(|(_, found)| **found >= len)?;
        self.free.remove(&offset);
        if found > len {
            self.free.insert(offset + len, found - len);
        }
        self.used += len;
        self.is_active = true;
        Some(offset)
    }

    fn give_back(&mut self, mut offset: u64, mut len: u64) {
        self.used -= len;
        self.is_active = true;
        let before = self.free.range(..offset).next_back();
        if let Some((&before, &its)) = before.filter(|(before, its)| **before + **its == offset) {
            self.free.remove(&before);
            (offset, len) = (before, its + len);
        }
        if let Some(its) = self.free.remove(&(offset + len)) {
            len += its;
        }
        self.free.insert(offset, len);
    }

    /// Sees to it that these bytes have memory; whether any had none.
    fn commit<E>(
        &mut self,
        offset: u64,
        len: u64,
        commit: &mut dyn FnMut(u64, u64) -> Result<(), E>,
    ) -> Result<bool, E> {
        let steps = (offset / STEP) as usize..(offset + len).div_ceil(STEP) as usize;
        if self.committed.len() < steps.end {
            self.committed.resize(steps.end, false);
        }
        let mut has_grown = false;
        let mut at = steps.start;
        while at < steps.end {
            let run = self.committed[at..steps.end]
                .iter()
                .take_while(|committed| !**committed)
                .count();
            if run > 0 {
                let from = at as u64 * STEP;
                commit(from, run as u64 * STEP)?;
                self.mark(from, run as u64 * STEP, true);
                has_grown = true;
            }
            at += run.max(1);
        }
        Ok(has_grown)
    }

    fn mark(&mut self, from: u64, len: u64, committed: bool) {
        let steps = (from / STEP) as usize..((from + len) / STEP) as usize;
        self.committed[steps].fill(committed);
    }

    /// The stretches of whole steps that have memory, lie behind `keep` and are free; they have none from here on.
    fn idle(&mut self, keep: u64) -> Vec<(u64, u64)> {
        let mut idle: Vec<(u64, u64)> = Vec::new();
        for (&offset, &len) in &self.free {
            let first = offset.max(keep).div_ceil(STEP);
            let end = ((offset + len) / STEP).min(self.committed.len() as u64);
            for step in first..end {
                if !std::mem::replace(&mut self.committed[step as usize], false) {
                    continue;
                }
                match idle.last_mut() {
                    Some((from, len)) if *from + *len == step * STEP => *len += STEP,
                    _ => idle.push((step * STEP, STEP)),
                }
            }
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(state: &mut State, offset: u64, len: u64) -> Vec<(u64, u64)> {
        let mut asked = Vec::new();
        let committed = state.commit(offset, len, &mut |from, len| {
            asked.push((from, len));
            Ok::<_, ()>(())
        });
        assert_eq!(committed, Ok(!asked.is_empty()));
        asked
    }

    #[test]
    fn blocks_never_overlap_and_all_comes_back() {
        let mut state = State::new(64 * 1024);
        let mut given: Vec<(u64, u64)> = Vec::new();
        let mut random = 1_u64;
        for _ in 0..20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let pick = random >> 33;
            if pick % 3 != 0 {
                let len = rounded(pick % 5_000);
                if let Some(at) = state.take(len) {
                    let apart = |(from, its): &(u64, u64)| from + its <= at || at + len <= *from;
                    assert!(at + len <= 64 * 1024 && given.iter().all(apart));
                    given.push((at, len));
                }
            } else if !given.is_empty() {
                let (at, len) = given.swap_remove(pick as usize % given.len());
                state.give_back(at, len);
            }
            assert_eq!(state.used, given.iter().map(|(_, len)| len).sum::<u64>());
        }
        for (at, len) in given {
            state.give_back(at, len);
        }
        assert_eq!(state.free, BTreeMap::from([(0, 64 * 1024)]));
    }

    #[test]
    fn memory_is_asked_for_once_and_given_back_when_free() {
        let mut state = State::new(16 * STEP);
        let first = state.take(GRAIN).expect("there is room");
        assert_eq!(commit(&mut state, first, GRAIN), [(0, STEP)]);
        let second = state.take(3 * STEP).expect("there is room");
        assert_eq!(second, GRAIN);
        assert_eq!(commit(&mut state, second, 3 * STEP), [(STEP, 3 * STEP)]);
        assert_eq!(commit(&mut state, second, 3 * STEP), []);
        assert_eq!(state.idle(0), []);
        state.give_back(second, 3 * STEP);
        assert_eq!(state.idle(2 * STEP), [(2 * STEP, 2 * STEP)]);
        assert_eq!(state.idle(0), [(STEP, STEP)]);
        let third = state.take(2 * STEP).expect("there is room");
        assert_eq!(commit(&mut state, third, 2 * STEP), [(STEP, 2 * STEP)]);
    }
}
