//! Reading what the workers say: done by one thread at a time, whichever waits for a result.
//!
//! Whoever waits first takes the *role* and reads all workers' notices, its own and the others'
//! alike; those who come later sleep until their own job has ended or the role is free. Between two
//! calls nobody has the role; for tasks that nobody waits for, the pool's supervisor takes it.

use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::sync::{Mutex, TryLockError};
use std::thread::{self, Thread, ThreadId};
use std::time::Instant;

use super::arena::Place;
use super::control::{Control, NOTICE_LANE, Notice, Record};
use super::engine::{Engine, GLANCE, lock};
use super::error::{Failure, TaskError};
use super::job::{self, Ticket};
use super::work::{Ending, Work};
use crate::error::Corrupt;
use crate::kin;
use crate::message;
use crate::ring::Reader;
use crate::signal::Patience;
use crate::sync::{Ordering, fence, spin_loop};

/// Bytes that a worker may take to say why something failed.
const LONGEST_REASON: u64 = 16 << 20;

/// The most looks a follower takes before it sleeps.
const LOOKS: usize = 2_000;
/// How often they are halved at most.
const HALVINGS: u32 = 6;

/// What belongs to the role.
pub(super) struct Role {
    patience: Patience,
    pub(super) ears: Ears,
}

/// The reading ends of all workers' lanes, and the jobs that need a second look.
pub(super) struct Ears {
    lanes: Vec<Reader>,
    /// Jobs in which a worker has died: it may have committed a chunk and not said so. Their chunks
    /// are looked at whenever something was heard.
    recounted: Vec<Ticket>,
}

/// Threads that wait while another has the role.
#[derive(Default)]
pub(super) struct Followers {
    count: AtomicUsize,
    /// How often the looks are halved, since they found nothing: whoever has the role, and the
    /// workers, may need this processor.
    halvings: AtomicU32,
    threads: Mutex<Vec<Thread>>,
}

impl Followers {
    /// Looks whether it is `done` as often as has been worth while.
    fn spin(&self, done: &mut impl FnMut() -> bool) -> bool {
        let halvings = self.halvings.load(Ordering::Relaxed).min(HALVINGS);
        let found = (0..LOOKS >> halvings).any(|_| {
            spin_loop();
            done()
        });
        let next = match found {
            true => halvings.saturating_sub(1),
            false => halvings + 1,
        };
        self.halvings.store(next, Ordering::Relaxed);
        found
    }

    fn enter(&self) -> ThreadId {
        let me = thread::current();
        let id = me.id();
        lock(&self.threads).push(me);
        self.count.fetch_add(1, Ordering::SeqCst);
        id
    }

    fn leave(&self, id: ThreadId) {
        let mut threads = lock(&self.threads);
        if let Some(at) = threads.iter().position(|thread| thread.id() == id) {
            threads.swap_remove(at);
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Wakes one; false if there is none.
    fn wake_one(&self) -> bool {
        if self.count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        match lock(&self.threads).first() {
            Some(thread) => {
                thread.unpark();
                true
            }
            None => false,
        }
    }

    pub(super) fn wake_all(&self) {
        for thread in lock(&self.threads).iter() {
            thread.unpark();
        }
    }
}

impl Engine {
    /// Waits until a job has ended; false when `deadline` has passed.
    pub(super) fn wait_for(&self, work: &Work, deadline: Option<Instant>) -> bool {
        self.wait(|| work.has_ended(), |thread| work.call(thread), deadline)
    }

    /// Waits until `done`; false when `deadline` has passed.
    ///
    /// `call` is given a thread to be unparked when it may be done, and says whether it still is
    /// not.
    pub(super) fn wait(
        &self,
        mut done: impl FnMut() -> bool,
        mut call: impl FnMut(Thread) -> bool,
        deadline: Option<Instant>,
    ) -> bool {
        loop {
            if done() {
                return true;
            }
            // Nobody tells a forked copy anything, and what it reads its parent would miss.
            if kin::forked() {
                return false;
            }
            match self.role.try_lock() {
                Ok(mut role) => {
                    let found = role.read_until(self, &mut done, deadline);
                    drop(role);
                    self.pass_on();
                    return found;
                }
                Err(TryLockError::Poisoned(role)) => {
                    let found = role.into_inner().read_until(self, &mut done, deadline);
                    self.pass_on();
                    return found;
                }
                Err(TryLockError::WouldBlock) => {}
            }
            if self.followers.spin(&mut done) {
                return true;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return false;
            }
            let me = self.followers.enter();
            // The role may have been given back before I was seen to wait for it; `pass_on` has the
            // other end.
            fence();
            let is_free = !matches!(self.role.try_lock(), Err(TryLockError::WouldBlock));
            if !is_free && call(thread::current()) {
                let limit = deadline.map_or(GLANCE, |deadline| GLANCE.min(deadline - now));
                thread::park_timeout(limit);
            }
            self.followers.leave(me);
        }
    }

    /// After the role was given back: if there is need of it, wakes somebody to take it.
    pub(super) fn pass_on(&self) {
        // Of "give the role back, then look for those who wait" and "say that I wait, then look
        // whether the role is free", one sees the other's store.
        fence();
        if self.followers.wake_one() {
            return;
        }
        if self.unwatched.load(Ordering::SeqCst) > 0 || self.attention.load(Ordering::Relaxed) {
            self.call_supervisor();
        }
    }

    /// There are tasks that nobody waits for: if nobody has the role, the supervisor takes it.
    pub(super) fn watch(&self) {
        fence();
        if !matches!(self.role.try_lock(), Err(TryLockError::WouldBlock)) {
            self.call_supervisor();
        }
    }

    /// Lets the supervisor see to something.
    pub(super) fn call_supervisor(&self) {
        // Release: whoever takes the call sees what it is about.
        self.called.store(true, Ordering::Release);
        if let Some(supervisor) = self.supervisor.get() {
            supervisor.unpark();
        }
    }

    /// Has whoever holds the role, or soon will, look for the dead.
    pub(super) fn alarm(&self) {
        self.attention.store(true, Ordering::Release);
        self.control.page.results.notify_all();
        self.call_supervisor();
    }
}

impl Role {
    pub(super) fn new(control: &Control) -> Role {
        let lanes = control.seats.iter();
        Role {
            patience: Patience::new(),
            ears: Ears {
                lanes: lanes
                    .map(|seat| Reader::attach(NOTICE_LANE, &seat.lane))
                    .collect(),
                recounted: Vec::new(),
            },
        }
    }

    /// Reads notices until `done`; false when `deadline` has passed.
    pub(super) fn read_until(
        &mut self,
        engine: &Engine,
        done: &mut impl FnMut() -> bool,
        deadline: Option<Instant>,
    ) -> bool {
        let Role { patience, ears } = self;
        let mut look = || -> Result<Option<()>, Corrupt> {
            let mut heard = ears.listen(engine)?;
            if engine.attention.load(Ordering::Acquire) {
                engine.see_to_the_dead(ears)?;
                heard = true;
            }
            if heard && !ears.recounted.is_empty() {
                ears.count_again(engine)?;
            }
            Ok(done().then_some(()))
        };
        let results = &engine.control.page.results;
        let deaths = engine.kin.deaths();
        match results.wait(patience, deadline, deaths, &mut look, |_| Ok(None)) {
            Ok(found) => found.is_some(),
            Err(corrupt) => {
                // Nothing a worker says can be believed any more; this ends all that anybody waits
                // for.
                engine.break_down(&corrupt.to_string());
                done()
            }
        }
    }
}

impl Ears {
    /// Reads all that the workers have said; whether it was anything.
    fn listen(&mut self, engine: &Engine) -> Result<bool, Corrupt> {
        let mut heard = false;
        for seat in 0..self.lanes.len() {
            heard |= self.listen_to(seat, engine)?;
        }
        Ok(heard)
    }

    /// Reads all that one worker has said.
    #[inline]
    pub(super) fn listen_to(&mut self, seat: usize, engine: &Engine) -> Result<bool, Corrupt> {
        let (lane, from) = (&mut self.lanes[seat], &engine.control.seats[seat]);
        let mut heard = false;
        while let Some(notice) = lane.peek(&from.lane, &from.notices)? {
            heard = true;
            let mut words = [0; 3];
            for (word, said) in words.iter_mut().zip(notice) {
                *word = said.load(Ordering::Relaxed);
            }
            lane.take(&from.lane, 1);
            from.lane.full.notify_one();
            let notice =
                Notice::from_words(words).ok_or(Corrupt("a worker's notice means nothing"))?;
            engine.hear(seat, notice);
        }
        Ok(heard)
    }

    /// A worker has died in that job.
    pub(super) fn recount(&mut self, ticket: Ticket) {
        if !self.recounted.contains(&ticket) {
            self.recounted.push(ticket);
        }
    }

    /// Ends the jobs in which somebody has died and of which nothing is left to do.
    fn count_again(&mut self, engine: &Engine) -> Result<(), Corrupt> {
        let (complete, rest) = std::mem::take(&mut self.recounted)
            .into_iter()
            .partition(|ticket| engine.is_complete(*ticket));
        self.recounted = rest;
        // What went wrong in a chunk was said before it was committed.
        self.listen(engine)?;
        for ticket in complete {
            engine.with_intake(|intake| {
                if let Some(work) = intake.work_of(ticket).cloned() {
                    intake.end(&engine.control, &work, None);
                }
            });
        }
        Ok(())
    }
}

impl Engine {
    fn hear(&self, seat: usize, notice: Notice) {
        match notice {
            Notice::Finished { ticket, chunks } => self.with_intake(|intake| {
                let Some(work) = intake.work_of(ticket).cloned() else {
                    return;
                };
                if work.committed(chunks) {
                    intake.end(&self.control, &work, None);
                }
            }),
            Notice::Failed {
                ticket,
                item,
                record,
            } => self.failed(seat, ticket, item, record),
            Notice::Room { ticket, bytes } => self.make_room(seat, ticket, bytes),
            Notice::Ready => {}
            Notice::NotReady { record } => {
                let error = self.error_of(seat, 0, record);
                self.break_down(&match error {
                    TaskError::Panicked {
                        message, location, ..
                    } => format!("the initializer panicked at {location}: {message}"),
                    other => format!("the initializer failed: {other}"),
                });
            }
        }
    }

    /// Whether nothing is left to do of a job, counted in its chunks; also if it has ended.
    fn is_complete(&self, ticket: Ticket) -> bool {
        let Some(work) = lock(&self.intake).work_of(ticket).cloned() else {
            return true;
        };
        let cell = self.control.cell(ticket.cell);
        let chunks = cell.map_or(&[][..], |cell| cell.chunks());
        chunks
            .iter()
            .take(work.chunks())
            .all(|chunk| job::is_settled(&chunk.state, ticket.generation))
    }

    fn failed(&self, seat: usize, ticket: Ticket, item: u32, record: Record) {
        let work = lock(&self.intake).work_of(ticket).cloned();
        if let Some(work) = work {
            work.fail(item, self.error_of(seat, item as usize, record));
        }
    }

    /// What a worker wrote about a failure.
    fn error_of(&self, seat: usize, item: usize, record: Record) -> TaskError {
        let (pid, name) = self.worker_of(seat);
        match self.read(record) {
            Some(failure) => failure.of(item, pid, &name),
            None => TaskError::Unexplained {
                item,
                pid,
                name: name.to_string(),
            },
        }
    }

    fn read(&self, record: Record) -> Option<Failure> {
        let from = self.bytes(record.place)?;
        let end = record.place.offset.checked_add(u64::from(record.len))?;
        if record.len == 0 || end > from.len() as u64 {
            return None;
        }
        let mut bytes = Vec::new();
        from.append_to(
            record.place.offset as usize,
            record.len as usize,
            &mut bytes,
        );
        message::decode(&bytes).ok()
    }

    fn make_room(&self, seat: usize, ticket: Option<Ticket>, bytes: u64) {
        let granted = self.with_intake(|intake| {
            let work = ticket.and_then(|ticket| intake.work_of(ticket)).cloned();
            // Results of a fixed size have their place. All else that a worker has to write is why
            // something has failed.
            let is_for_results = work.as_ref().is_some_and(|work| work.out_size.is_none());
            if !is_for_results && bytes > LONGEST_REASON {
                return None;
            }
            let block = intake.grant(&self.control, bytes)?;
            let place = block.place;
            match work {
                Some(work) => work.own(block),
                None => lock(&self.crew).own(seat, block),
            }
            Some(place)
        });
        let row = &self.control.seats[seat];
        row.grant
            .store(granted.map_or(0, Place::word), Ordering::Relaxed);
        row.grants.fetch_add(1, Ordering::Release);
        row.granted.notify_one();
    }

    /// The pool cannot go on: all tasks end with this reason, and all workers with them.
    pub(super) fn break_down(&self, why: &str) {
        self.end_all(&Ending::Broken(why.into()));
        self.call_supervisor();
    }
}
