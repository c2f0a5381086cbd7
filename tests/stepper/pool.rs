//! Operations of a pool's worker: from the middle of one task to the middle of another, with all that lies
//! between, the results, the commit, the next ticket and the lease.

use std::marker::PhantomData;
use std::ops::{Range, RangeInclusive};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{Message, OnDeath, Pool, Segment, Task, TaskError};

use crate::run::Case;
use crate::stage::Stage;
use crate::trace::{Victim, Who};

/// Longer than any wait that ends.
const LONG: Duration = Duration::from_secs(20);
/// Of the two workers one is kept busy, so that the other is the victim.
const WORKERS: usize = 2;
/// What the tasks are counted by; survivors' tasks come behind.
const TASKS: usize = 8;
const LATER: u64 = TASKS as u64;
const LAPS: u64 = 3;
/// Tasks of each lap.
const LAP: u64 = 24;
/// Those in which both workers must be at once.
const MEETING: u64 = LATER + LAPS * LAP;

/// What a worker is at when it dies.
pub(crate) trait Working: 'static {
    type Result: Made;
    /// In this task the operation begins.
    const FIRST: u64 = 0;
    /// And in this it ends; the job, or the jobs, end with it.
    const LAST: u64 = 1;
    const ON_DEATH: OnDeath = OnDeath::Fail;
    /// Tasks that are sent one by one; none if all are items of one job, in chunks of `CHUNK`.
    const SINGLE: bool = true;
    const CHUNK: usize = 1;
    /// After so many instructions the last task is sent; from the beginning if never.
    const MEANWHILE: usize = usize::MAX;
}

/// A result made of a number.
pub(crate) trait Made: Message + PartialEq + std::fmt::Debug {
    fn of(number: u64) -> Self;
}

impl Made for u64 {
    fn of(number: u64) -> u64 {
        number * number + 1
    }
}

impl Made for String {
    fn of(number: u64) -> String {
        format!("{number} ").repeat(1 + number as usize % 4)
    }
}

/// Larger than the pool expects: the worker asks for memory.
impl Made for Vec<u64> {
    fn of(number: u64) -> Vec<u64> {
        vec![number; 100 + number as usize % 4]
    }
}

/// What a worker knows: the stage, and a board of how often each task has begun.
static FLOOR: OnceLock<(Stage, Segment)> = OnceLock::new();

fn enter(stage: Stage, board: Segment) {
    FLOOR.set((stage, board)).expect("entered once");
}

/// Where the victim says which process it is.
const PID: usize = MEETING as usize + 1;
const WORDS: usize = PID + 1;

fn run<W: Working>(number: u64) -> W::Result {
    let (stage, board) = FLOOR.get().expect("entered");
    board.words()[number as usize].fetch_add(1, SeqCst);
    if number == W::FIRST {
        // Of a second attempt it is not noted.
        let _ = board.words()[PID].compare_exchange(0, std::process::id().into(), SeqCst, SeqCst);
        stage.begin();
    }
    if number == W::LAST {
        stage.end();
    }
    if number == MEETING {
        let end = Instant::now() + LONG;
        while board.words()[number as usize].load(SeqCst) < WORKERS as u64 {
            assert!(Instant::now() < end, "a worker is lost");
            thread::yield_now();
        }
    }
    W::Result::of(number)
}

/// Keeps a worker busy.
fn keep_busy() {
    let (stage, board) = FLOOR.get().expect("entered");
    board.words()[WORDS].store(1, SeqCst);
    stage.wait_to_leave();
}

/// A worker of a pool, which reaps it.
pub(crate) struct Worker(u32);

impl Who for Worker {
    type Said = ();

    fn pid(&self) -> u32 {
        self.0
    }

    fn bury(self) {}

    fn join(self) {}
}

/// A worker is the victim.
pub(crate) struct WorkerDies<W: Working> {
    pool: Pool,
    stage: Stage,
    board: Segment,
    busy: Task<()>,
    victim: u32,
    tasks: Tasks<W::Result>,
    _of: PhantomData<W>,
}

/// The tasks that the operation lies in.
enum Tasks<R> {
    Single(Vec<Task<R>>),
    Items(Task<Vec<R>>),
}

impl<W: Working> WorkerDies<W> {
    fn begun(&self, number: u64) -> u64 {
        self.board.words()[number as usize].load(SeqCst)
    }

    /// What came of the operation's tasks: of each single one, or of all items.
    fn outcomes(&mut self) -> Vec<Result<(), TaskError>> {
        let right = |number: u64, result: W::Result| {
            assert_eq!(result, W::Result::of(number), "task {number}");
        };
        match &mut self.tasks {
            Tasks::Single(tasks) => (0..)
                .zip(tasks)
                .map(|(number, task)| task.get_timeout(LONG).map(|result| right(number, result)))
                .collect(),
            Tasks::Items(task) => {
                let all = task.get_timeout(LONG);
                vec![all.map(|all| {
                    assert_eq!(all.len() as u64, W::LAST + 1);
                    (0..).zip(all).for_each(|(number, one)| right(number, one));
                })]
            }
        }
    }

    /// The numbers of the tasks that were sent.
    fn sent(&self) -> Range<u64> {
        match &self.tasks {
            Tasks::Single(tasks) => 0..tasks.len() as u64,
            Tasks::Items(_) => 0..W::LAST + 1,
        }
    }

    /// How often each task may have begun.
    fn check_begun(&self, may: RangeInclusive<u64>) {
        for number in self.sent() {
            let begun = self.begun(number);
            assert!(may.contains(&begun), "task {number} began {begun} times");
        }
    }

    /// The pool goes on with as many workers as it had.
    fn check_pool(self) {
        for lap in 0..LAPS {
            let numbers = || LATER + lap * LAP..LATER + (lap + 1) * LAP;
            let results = self.pool.map(run::<W>, numbers());
            let expected: Vec<_> = numbers().map(W::Result::of).collect();
            assert_eq!(
                results.expect("the pool cannot go on"),
                expected,
                "lap {lap}"
            );
            for number in numbers() {
                assert_eq!(self.begun(number), 1, "task {number} of lap {lap}");
            }
        }
        let meeting = [MEETING; WORKERS].map(|number| self.pool.apply_async(run::<W>, (number,)));
        for task in meeting {
            task.get_timeout(LONG).expect("a worker is lost");
        }
        self.pool.close();
        self.pool.join().expect("the pool cannot end");
    }
}

impl<W: Working> Case for WorkerDies<W> {
    type Who = Worker;
    const MEANWHILE: usize = W::MEANWHILE;

    fn set_up() -> (Self, Victim<Worker>) {
        let stage = Stage::new();
        let board = Segment::new((WORDS + 1) * 8).unwrap();
        let pool = Pool::builder()
            .workers(WORKERS)
            .initializer(enter, (stage.clone(), board.clone()))
            .on_worker_death(W::ON_DEATH)
            .build()
            .unwrap();
        let busy = pool.apply_async(keep_busy, ());
        let end = Instant::now() + LONG;
        while board.words()[WORDS].load(SeqCst) == 0 {
            assert!(Instant::now() < end, "no worker comes");
            thread::sleep(Duration::from_micros(20));
        }
        let tasks = if W::SINGLE {
            let at_once = W::LAST + u64::from(W::MEANWHILE == usize::MAX);
            let tasks = (0..at_once).map(|number| pool.apply_async(run::<W>, (number,)));
            Tasks::Single(tasks.collect())
        } else {
            let numbers: Vec<u64> = (0..=W::LAST).collect();
            Tasks::Items(pool.chunk_size(W::CHUNK).map_async(run::<W>, numbers))
        };
        stage.wait_until_ready();
        let victim = board.words()[PID].load(SeqCst) as u32;
        let case = WorkerDies {
            pool,
            stage: stage.clone(),
            board,
            busy,
            victim,
            tasks,
            _of: PhantomData,
        };
        (case, Victim::seize(Worker(victim), stage))
    }

    fn meanwhile(&mut self) {
        if let Tasks::Single(tasks) = &mut self.tasks {
            tasks.push(self.pool.apply_async(run::<W>, (W::LAST,)));
        }
    }

    fn prove(mut self, done: bool) {
        self.stage.leave();
        self.busy.get_timeout(LONG).expect("a survivor's task");
        let outcomes = self.outcomes();
        let mut died = Vec::new();
        for (number, outcome) in (0..).zip(outcomes) {
            match outcome {
                Ok(()) => {}
                Err(TaskError::WorkerDied { pid, .. }) if pid == self.victim => died.push(number),
                Err(other) => panic!("task {number}: {other}"),
            }
        }
        match W::ON_DEATH {
            OnDeath::Fail => {
                assert!(died.len() <= 1, "one died, and failed {died:?}");
                if W::SINGLE && done {
                    assert_eq!(died, [W::LAST], "the one that was begun last fails");
                }
                for number in self.sent() {
                    let at_least = u64::from(W::SINGLE && !died.contains(&number));
                    let begun = self.begun(number);
                    assert!(
                        (at_least..=1).contains(&begun),
                        "task {number} began {begun} times"
                    );
                }
            }
            _ => {
                assert_eq!(died, [], "failed, though it may be tried again");
                self.check_begun(1..=2);
            }
        }
        self.check_pool();
    }

    fn prove_stopped(mut self, resume: impl FnOnce()) {
        self.stage.leave();
        self.busy.get_timeout(LONG).expect("a survivor's task");
        for number in 0..LAP {
            let number = MEETING + 1 + number;
            let task = self.pool.apply_async(u64::wrapping_add, (number, 1));
            let got = task.get_timeout(LONG);
            assert_eq!(got.expect("the other worker goes on"), number + 1);
        }
        resume();
        for (number, outcome) in self.outcomes().into_iter().enumerate() {
            outcome.unwrap_or_else(|error| panic!("task {number}: {error}"));
        }
        self.check_begun(1..=1);
        self.check_pool();
    }
}

macro_rules! operations {
    ($($name:ident: $result:ty { $($constant:ident: $kind:ty = $value:expr),* })*) => {$(
        pub(crate) struct $name;

        impl Working for $name {
            type Result = $result;
            $(const $constant: $kind = $value;)*
        }
    )*};
}

operations! {
    PoolTask: u64 {}
    PoolTaskRetried: u64 { ON_DEATH: OnDeath = OnDeath::Retry(1) }
    PoolText: String {}
    PoolArray: Vec<u64> {}
    PoolWoken: u64 { MEANWHILE: usize = 3_000 }
    PoolChunk: u64 { SINGLE: bool = false, LAST: u64 = 4, CHUNK: usize = 2 }
    PoolChunkOfTexts: String { SINGLE: bool = false, LAST: u64 = 4, CHUNK: usize = 2 }
    PoolChunkRetried: u64 { SINGLE: bool = false, LAST: u64 = 4, CHUNK: usize = 2, ON_DEATH: OnDeath = OnDeath::Retry(1) }
}
