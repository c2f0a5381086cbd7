//! The pool's workers as processes: started, watched, ended, replaced.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc::{SIGKILL, SIGTERM};

use super::memory::Block;
use super::recover::{Cause, Dead};
use super::settings::Settings;
use super::wire::Wire;
use super::worker::{Orders, work};
use crate::chunk::{self, Busy, Naming};
use crate::error::WorkerExit;
use crate::handle::Travelling;
use crate::layout::PoolRow;
use crate::message::Message;
use crate::process::{Child, Function, ProcessBuilder, SpawnError};
use crate::sync::Ordering;
use crate::sys;

/// So many workers that die before they have begun anything, while nobody begins anything, all within
/// [`EARLY`], break the pool.
const EARLY_DEATHS: usize = 5;
/// The same for workers that somebody else has killed, which may be chance.
const EARLY_KILLS: usize = 50;
const EARLY: Duration = Duration::from_secs(10);
/// The pause before a worker that could not be started is tried again, at first and at most.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// For so long nobody could be started, and nobody was left: the pool is broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// A worker of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Worker {
    pid: u32,
    name: Arc<str>,
}

impl Worker {
    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// All workers of a pool.
pub(super) struct Seats {
    pub(super) places: Vec<Seat>,
    /// Workers that were ever started.
    hired: usize,
    /// Workers that have ended and are not seen to: seat, which worker of it, how.
    ended: Vec<(usize, u64, WorkerExit)>,
    /// When workers died early, and whether by somebody else.
    early: VecDeque<(Instant, bool)>,
    /// Items begun by all workers when the last one died early.
    begun_then: u64,
    /// Items begun, and time worked, by workers that are gone.
    begun_before: u64,
    busy_before: Duration,
    pub(super) restarts: u64,
    /// Nobody could be started since then.
    failing: Option<Instant>,
    /// Nobody is started any more.
    pub(super) is_over: bool,
}

/// A place for a worker.
#[derive(Default)]
pub(super) struct Seat {
    pub(super) child: Option<Child<()>>,
    pub(super) pid: u32,
    pub(super) name: Arc<str>,
    /// Which worker of this seat it is.
    pub(super) count: u64,
    /// Memory given to it outside of any job.
    pub(super) blocks: Vec<Block>,
    pub(super) started: Option<Instant>,
    /// How long it took to be ready.
    pub(super) start_up: Option<Duration>,
    /// What it was last seen at, and for how long it was seen at that.
    pub(super) seen: Option<(u64, Duration)>,
    /// What it was ended for, and at which item.
    pub(super) cause: Option<(u64, Cause)>,
    /// Nobody has it; when to start another.
    vacant: Option<Instant>,
}

impl Seat {
    /// Whether its worker was started and has not said that it is ready.
    pub(super) fn is_starting(&self) -> bool {
        self.child.is_some() && self.start_up.is_none()
    }
}

impl Seats {
    pub(super) fn new(workers: usize) -> Seats {
        Seats {
            places: (0..workers).map(|_| Seat::default()).collect(),
            hired: 0,
            ended: Vec::new(),
            early: VecDeque::new(),
            begun_then: 0,
            begun_before: 0,
            busy_before: Duration::ZERO,
            restarts: 0,
            failing: None,
            is_over: false,
        }
    }

    /// Prepares a seat for another worker: its number on that seat, and its name.
    pub(super) fn prepare(
        &mut self,
        seat: usize,
        wire: &Wire,
        settings: &Settings,
    ) -> (u64, String) {
        self.hired += 1;
        let name = format!("{}-{}", settings.name, self.hired);
        let row = &wire.rows[seat];
        row.activity.store(chunk::IDLE, Ordering::Relaxed);
        row.at.store(0, Ordering::Relaxed);
        row.item.store(NOTHING.word(), Ordering::Relaxed);
        row.busy.store(Busy::NEVER.word(), Ordering::Relaxed);
        // The mailbox of the one before may hold a request that nobody will answer.
        row.answered.store(0, Ordering::Relaxed);
        row.asked.store(0, Ordering::Relaxed);
        let place = &mut self.places[seat];
        place.count += 1;
        place.seen = None;
        place.cause = None;
        place.start_up = None;
        place.started = Some(Instant::now());
        place.blocks.clear();
        place.vacant = None;
        (place.count, name)
    }

    /// Its worker was started.
    pub(super) fn seat(&mut self, seat: usize, child: Child<()>) {
        let place = &mut self.places[seat];
        place.pid = child.pid();
        place.name = child.name().into();
        place.child = Some(child);
        self.failing = None;
    }

    /// Its worker could not be started: tries again later. Why the pool is broken, if there is nobody else.
    pub(super) fn not_seated(&mut self, seat: usize, why: &str) -> Option<String> {
        let now = Instant::now();
        let is_alone = self.places.iter().all(|place| place.child.is_none());
        let since = self.failing.get_or_insert(now);
        // As long again as it has been tried for.
        let pause = (now - *since).clamp(PAUSE, LONGEST_PAUSE);
        self.places[seat].vacant = Some(now + pause);
        (is_alone && now - *since > PATIENCE).then(|| {
            format!("no worker is left, and for {PATIENCE:?} none could be started: {why}")
        })
    }

    /// The living worker of a seat.
    pub(super) fn worker(&self, seat: usize) -> Option<Worker> {
        let place = self.places.get(seat)?;
        let child = place.child.as_ref().filter(|child| child.is_alive())?;
        Some(Worker {
            pid: child.pid(),
            name: Arc::clone(&place.name),
        })
    }

    /// A seat whose time has come, once.
    pub(super) fn next_vacant(&mut self) -> Option<usize> {
        if self.is_over {
            return None;
        }
        let now = Instant::now();
        let is_due = |place: &Seat| place.vacant.is_some_and(|at| at <= now);
        let seat = self.places.iter().position(is_due)?;
        self.places[seat].vacant = None;
        Some(seat)
    }

    /// When the next seat is to be tried.
    pub(super) fn next_try(&self) -> Option<Instant> {
        let places = self.places.iter().filter(|_| !self.is_over);
        places.filter_map(|place| place.vacant).min()
    }

    /// A worker has ended; told by the thread that reaps.
    pub(super) fn has_ended(&mut self, seat: usize, count: u64, how: WorkerExit) {
        self.ended.push((seat, count, how));
    }

    /// The next worker that has ended and was not seen to: what it leaves, and where it was.
    pub(super) fn next_dead(&mut self, wire: &Wire) -> Option<(Dead, u64, Option<String>)> {
        loop {
            let (seat, count, how) = self.ended.pop()?;
            if self.places[seat].count != count {
                continue;
            }
            let row = &wire.rows[seat];
            let word = row.item.load(Ordering::Acquire);
            let at = row.at.load(Ordering::Acquire);
            let naming = Naming::from_word(word);
            let place = &mut self.places[seat];
            let cause = place.cause.take();
            let dead = Dead {
                seat: seat as u16,
                pid: place.pid,
                name: Arc::clone(&place.name),
                how,
                naming,
                // It may have gone on to another item before it was ended, but for that it was stopped first.
                cause: cause.map_or(Cause::Itself, |(_, cause)| cause),
            };
            place.child = None;
            place.blocks.clear();
            place.vacant = Some(Instant::now());
            let is_early = naming.turn == 0 && how != WorkerExit::Exited(0);
            let is_broken = is_early && self.died_early(wire, how, dead.cause);
            self.begun_before += u64::from(naming.turn);
            self.busy_before += busy(row);
            row.busy.store(Busy::NEVER.word(), Ordering::Relaxed);
            // From here on its turn counts as begun before.
            row.item.store(NOTHING.word(), Ordering::Relaxed);
            row.activity.store(chunk::IDLE, Ordering::Relaxed);
            row.at.store(0, Ordering::Relaxed);
            let why = is_broken.then(|| {
                let death = dead.death();
                let why = match dead.cause {
                    Cause::TimedOut(limit) => format!(", for it was not ready within {limit:?}"),
                    Cause::OutOfMemory(limit) => format!(", for it used more than {limit} bytes"),
                    _ => String::new(),
                };
                format!("workers die before they have begun anything; last {death}{why}")
            });
            return Some((dead, at, why));
        }
    }

    /// A worker died before it had begun anything; whether the pool is to be given up.
    fn died_early(&mut self, wire: &Wire, how: WorkerExit, cause: Cause) -> bool {
        let turn = |row: &PoolRow| Naming::from_word(row.item.load(Ordering::Relaxed)).turn;
        let living: u64 = wire.rows.iter().map(|row| u64::from(turn(row))).sum();
        let begun = self.begun_before + living;
        if begun != self.begun_then {
            // Others do begin things: it is not the pool that is broken.
            self.begun_then = begun;
            self.early.clear();
        }
        let now = Instant::now();
        let killed = match cause {
            Cause::Itself => matches!(how, WorkerExit::Signalled(SIGKILL | SIGTERM)),
            Cause::Killed => true,
            // The pool has had to end it.
            Cause::TimedOut(_) | Cause::OutOfMemory(_) => false,
        };
        let window = match cause {
            // Each takes so long.
            Cause::TimedOut(limit) => EARLY.saturating_add(limit * EARLY_DEATHS as u32),
            _ => EARLY,
        };
        self.early.push_back((now, killed));
        self.early
            .retain(|(at, _)| now.duration_since(*at) < window);
        let of_itself = self.early.iter().filter(|(_, killed)| !killed).count();
        of_itself >= EARLY_DEATHS || self.early.len() >= EARLY_KILLS
    }

    /// How long all workers together have worked.
    pub(super) fn busy(&self, wire: &Wire) -> Duration {
        self.busy_before + wire.rows.iter().map(|row| busy(row)).sum::<Duration>()
    }

    /// All living workers' processes; the seats are theirs no more.
    pub(super) fn take_children(&mut self) -> Vec<Child<()>> {
        self.is_over = true;
        self.places
            .iter_mut()
            .filter_map(|place| place.child.take())
            .collect()
    }
}

/// What a worker names that has begun nothing.
const NOTHING: Naming = Naming {
    item: Naming::NONE,
    turn: 0,
};

/// How long the worker of a row has worked.
pub(super) fn busy(row: &PoolRow) -> Duration {
    Busy::from_word(row.busy.load(Ordering::Relaxed)).until(sys::now())
}

/// Starts a worker's process.
pub(super) fn spawn(
    wire: &Wire,
    settings: &Settings,
    seat: usize,
    name: &str,
) -> Result<Child<()>, SpawnError> {
    let orders = Orders {
        initializer: settings
            .initializer
            .as_ref()
            .map(|its| (its.name, its.arguments.clone())),
        chunks: settings.max_tasks,
        pool: settings.name.clone(),
        ends_by_signals: settings.ends_by_signals,
    };
    let segment = Travelling(wire.segment().clone());
    let process = settings.process.clone().name(name);
    start_quietly(process, work, (segment, seat as u16, orders))
}

/// Starts a process on a thread that others wait for.
fn start_quietly<F: Function<A, Output = ()>, A: Message>(
    process: ProcessBuilder,
    _: F,
    arguments: A,
) -> Result<Child<()>, SpawnError> {
    process.start::<F, A>(arguments)
}

/// Ends all of them, and reaps them.
pub(super) fn kill_all(children: Vec<Child<()>>, tree: bool) {
    for child in &children {
        child.ender(tree)();
    }
    // Dropped, each is reaped.
    drop(children);
}

/// Waits until they have ended of themselves; kills those that have not at the deadline.
pub(super) fn wait_for_all(children: Vec<Child<()>>, deadline: Instant, tree: bool) {
    for child in children {
        let left = deadline.saturating_duration_since(Instant::now());
        // However it ended, it has nothing to say any more.
        if let Ok(None) = child.join_timeout(left) {
            child.ender(tree)();
        }
    }
}
