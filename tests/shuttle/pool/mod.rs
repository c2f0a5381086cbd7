//! A pool between threads: workers that die at any step and are replaced, callers that wait, do not, wait later or
//! cancel, and a supervisor that does what the pool's does when a worker has died.
//!
//! How a worker finds chunks, and what it does to their words, are the crate's own sources. Nobody looks around from
//! time to time here, as the pool does: a wake that is lost is a deadlock.

mod board;
pub(crate) mod wire;
mod worker;

use std::collections::{BTreeMap, VecDeque};

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Arc, Barrier, Mutex};
use shuttle::thread;

use crate::death;
use crate::error::Corrupt;
use crate::layout::SIGNALS;
use crate::signal::Patience;
use crate::sync::{Futex, Ordering};
use crate::{chunk, run_some};
use board::{After, Board, Job};
use wire::Wire;

const WORKERS: usize = 2;
/// No more workers than this are woken for a job; each wakes another.
const PROCESSORS: usize = 1;
const CALLERS: u64 = 2;
const CALLS: u64 = 3;
/// Workers that may die; those that come behind them live.
const MORTAL: usize = 3;
/// A worker that may die does so within so many steps, or not at all.
const STEPS: u32 = 250;

/// A mistake that is made on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    None,
    WorkerClearsOpen,
    ReclaimOfDone,
    NoRewind,
    OwnerNotWoken,
    OwnerReadEarly,
    WorkersNotWoken,
    ItemNamedLate,
    BitBeforeResults,
    NoLookWhenBusy,
    NoLookWhenOwning,
}

struct Pool {
    wire: Wire,
    board: Mutex<Board>,
    /// Seats whose workers have died.
    dead: Mutex<VecDeque<u16>>,
    /// Workers end when there is nothing to do; set when all callers have what they want.
    is_over: shuttle::sync::atomic::AtomicBool,
    /// A wake by a death would make a lost one good.
    no_deaths: Futex,
    /// How often each item of each job has begun; nobody may die while he counts.
    runs: std::sync::Mutex<BTreeMap<(u64, u32), usize>>,
    /// Where items wait for each other.
    meeting: Option<Barrier>,
    bug: Bug,
}

impl Pool {
    /// `meeting`: how many items wait for each other.
    fn new(workers: usize, bug: Bug, meeting: usize) -> Arc<Pool> {
        let pool = Arc::new(Pool {
            wire: Wire::new(workers),
            board: Mutex::new(Board::new(bug)),
            dead: Mutex::default(),
            is_over: shuttle::sync::atomic::AtomicBool::new(false),
            no_deaths: Futex::default(),
            runs: std::sync::Mutex::default(),
            meeting: (meeting > 0).then(|| Barrier::new(meeting)),
            bug,
        });
        pool.board.lock().unwrap().pool = Arc::downgrade(&pool);
        pool
    }

    fn runs(&self, job: u64, item: u32) -> usize {
        let runs = self.runs.lock().unwrap();
        runs.get(&(job, item)).copied().unwrap_or(0)
    }

    fn begins(&self, job: u64, item: u32) {
        *self.runs.lock().unwrap().entry((job, item)).or_default() += 1;
    }

    fn with_board<R>(&self, work: impl FnOnce(&mut Board, &mut After) -> R) -> R {
        let mut after = After::default();
        let result = work(&mut self.board.lock().unwrap(), &mut after);
        let page = &self.wire.page;
        if after.all_workers {
            page.tasks.notify_all();
        } else if after.chunks > 0 {
            let rows = self.wire.rows.iter();
            let needed = after.chunks.min(rows.len()).min(PROCESSORS);
            let searching = chunk::searching(rows.map(|row| &row.activity), needed);
            page.tasks.notify_some((needed - searching) as u32);
        }
        for owner in (0..SIGNALS).filter(|owner| after.owners >> owner & 1 == 1) {
            page.signals[owner].words.notify_all();
        }
        result
    }

    fn start(self: &Arc<Pool>, seat: u16, mortal: bool) -> thread::JoinHandle<()> {
        let pool = self.clone();
        thread::spawn(move || {
            let steps = mortal.then(|| thread_rng().gen_range(0..STEPS));
            if death::live(steps, || worker::work(&pool, seat)).is_none() {
                pool.dead.lock().unwrap().push_back(seat);
                pool.wire.page.supervisor.notify_one();
            }
        })
    }

    /// The supervisor's life.
    fn supervise(self: &Arc<Pool>, mortal: usize) {
        let page = &self.wire.page;
        let mut patience = Patience::new();
        let mut started = 0;
        let mut start = |seat: u16| {
            started += 1;
            self.start(seat, started <= mortal)
        };
        let seats = 0..self.wire.rows.len() as u16;
        let mut workers: Vec<_> = seats.map(&mut start).collect();
        let mut vacant = Vec::new();
        loop {
            let look = || -> Result<_, Corrupt> {
                let has_news = page.ended[0].load(Ordering::Relaxed) != 0
                    || !self.dead.lock().unwrap().is_empty()
                    || self.is_over.load(Ordering::SeqCst) && self.board.lock().unwrap().is_empty();
                Ok(has_news.then_some(()))
            };
            let found = page
                .supervisor
                .wait(&mut patience, None, &self.no_deaths, look, |_| look());
            found.unwrap().unwrap();
            while let Some(seat) = { self.dead.lock().unwrap().pop_front() } {
                let row = &self.wire.rows[usize::from(seat)];
                let at = row.at.load(Ordering::Acquire);
                let item = row.item.load(Ordering::Acquire);
                row.activity.store(chunk::IDLE, Ordering::Relaxed);
                row.at.store(0, Ordering::Relaxed);
                self.with_board(|board, after| board.recover(seat, at, item, after));
                vacant.push(seat);
                // Others must do what it leaves, if there are any.
                if vacant.len() == self.wire.rows.len() || thread_rng().gen_bool(0.5) {
                    workers.extend(vacant.drain(..).map(&mut start));
                }
            }
            for number in chunk::take_all(&page.ended) {
                self.with_board(|board, after| board.settle(number, after));
            }
            if self.is_over.load(Ordering::SeqCst) && self.board.lock().unwrap().is_empty() {
                break;
            }
        }
        page.closing.store(1, Ordering::Release);
        page.tasks.notify_all();
        for worker in workers {
            worker.join().unwrap();
        }
    }

    /// A caller's life.
    fn call(&self, caller: u64) {
        for call in 0..CALLS {
            let slot = 1 + caller;
            let how = thread_rng().gen_range(0..8);
            let job = Job::new(caller * CALLS + call + 1);
            // Nobody waits for it, or not yet.
            let owner = match how {
                0 | 1 => 0,
                2 => chunk::NOBODY,
                _ => slot,
            };
            self.with_board(|board, after| board.submit(&job, owner, after));
            match how {
                0 => continue,
                1 | 2 => self.with_board(|board, after| board.own(&job, slot, after)),
                3 => {
                    // It was waited for, and is not any more.
                    self.with_board(|board, after| board.own(&job, 0, after));
                    continue;
                }
                4 => self.with_board(|board, after| board.cancel(&job, after)),
                _ => {}
            }
            self.wait_for(&job, slot);
        }
    }

    fn wait_for(&self, job: &Arc<Job>, slot: u64) {
        let words = &self.wire.page.signals[slot as usize].words;
        let mut patience = Patience::new();
        while !job.has_ended() {
            let look = || -> Result<_, Corrupt> {
                let cell = job.cell().and_then(|cell| self.wire.cell(cell));
                let is_done = cell.is_some_and(|cell| chunk::is_done(&cell.done, job.chunks()));
                Ok((job.has_ended() || is_done).then_some(()))
            };
            let found = words.wait(&mut patience, None, &self.no_deaths, look, |_| look());
            found.unwrap().unwrap();
            self.with_board(|board, after| board.settle_job(job, after));
        }
    }
}

/// A pool, its supervisor, and callers.
fn play(bug: Bug) {
    let pool = Pool::new(WORKERS, bug, 0);
    run(&pool, CALLERS, MORTAL, Pool::call);
    assert_eq!(pool.board.lock().unwrap().ended, CALLERS * CALLS);
}

fn run(pool: &Arc<Pool>, callers: u64, mortal: usize, call: fn(&Pool, u64)) {
    let supervisor = thread::spawn({
        let pool = pool.clone();
        move || pool.supervise(mortal)
    });
    let callers = (0..callers).map(|caller| {
        let pool = pool.clone();
        thread::spawn(move || call(&pool, caller))
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.join().unwrap();
    }
    pool.is_over.store(true, Ordering::SeqCst);
    pool.wire.page.supervisor.notify_one();
    supervisor.join().unwrap();
}

/// Jobs of one item each, of which as many as there are workers wait for each other: a worker that is not woken, since
/// another was counted on, is a deadlock.
fn meet(bug: Bug) {
    const ALL: u64 = 3;
    let pool = Pool::new(ALL as usize, bug, ALL as usize);
    run(&pool, ALL, 0, |pool, caller| {
        for call in 0..2 {
            let job = Job::single(caller * 2 + call + 1);
            pool.with_board(|board, after| board.submit(&job, 1 + caller, after));
            pool.wait_for(&job, 1 + caller);
        }
    });
}

#[test]
fn workers_are_woken_for_jobs_that_are_there_at_once() {
    run_some(2, || meet(Bug::None));
}

#[test]
fn a_pool_outlives_its_workers() {
    run_some(4, || play(Bug::None));
}

/// Each of them is found.
#[test]
fn bugs_that_are_planted_in_a_pool_are_found() {
    let bugs = [
        Bug::WorkerClearsOpen,
        Bug::ReclaimOfDone,
        Bug::NoRewind,
        Bug::OwnerNotWoken,
        Bug::OwnerReadEarly,
        Bug::WorkersNotWoken,
        Bug::ItemNamedLate,
        Bug::BitBeforeResults,
        Bug::NoLookWhenOwning,
    ];
    let bugs = bugs.map(|bug| (bug, play as fn(Bug)));
    let missed = bugs
        .into_iter()
        .chain([(Bug::NoLookWhenBusy, meet as fn(Bug))]);
    // Some show in one of thousands of schedules: whoever is found ends there.
    const ROUNDS: usize = 30;
    let missed = missed.map(|(bug, play)| {
        let fails = || std::panic::catch_unwind(move || run_some(1, move || play(bug))).is_err();
        let found = (1..=ROUNDS).find(|_| fails());
        eprintln!("{bug:?}: found in round {found:?}");
        (bug, found.is_none())
    });
    let missed = missed.filter(|(_, missed)| *missed);
    assert_eq!(missed.collect::<Vec<_>>(), []);
}
