//! Pools of real processes under random use, from a seed: every call of the pool's, mixed, by several threads,
//! while workers are killed and stopped, panic, exit, run too long and write results that outgrow their room.
//!
//! Every call must end in time, each item in its value or in an error that fits what was done to it, begun as
//! often as allowed, and nothing may be left at the end.
//!
//! `MULTIPROC_OPERATIONS` is how many calls are made (2,000), `MULTIPROC_SEED` the seed (1).

#![allow(
    clippy::incompatible_msrv,
    reason = "the tests run on the newest Rust only"
)]

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{OnDeath, Pool, Segment, TaskError, WorkerExit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// No call may take longer, on a machine that is busy with other things too.
const DEADLINE: Duration = Duration::from_secs(40);
/// Threads that call the pool.
const CALLERS: usize = 3;
/// Items of a call at most.
const ITEMS: usize = 300;

// What an item does.
const NUMBER: u64 = 0;
const NAP: u64 = 1;
const PANIC: u64 = 2;
const EXIT: u64 = 3;
const ABORT: u64 = 4;
const STUCK: u64 = 5;

/// The word where it counts that it was begun, the mark of its call, a number, what to do.
type Item = [u64; 4];

static COUNTS: OnceLock<Segment> = OnceLock::new();

fn prepare(counts: Segment) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref::<&str>() != Some(&"as planned") {
            before(panic);
        }
    }));
    let _ = COUNTS.set(counts);
}

/// Counts in its word, unless that is another call's by now.
fn count([word, mark, ..]: Item) {
    let word = &COUNTS.get().unwrap().words()[word as usize];
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| {
        match (seen >> 8).cmp(&mark) {
            std::cmp::Ordering::Less => Some(mark << 8 | 1),
            std::cmp::Ordering::Equal => Some(seen + 1),
            std::cmp::Ordering::Greater => None,
        }
    });
}

fn act(item: Item) -> u64 {
    count(item);
    let [.., number, deed] = item;
    match deed {
        NAP => thread::sleep(Duration::from_micros(number % 3000)),
        PANIC => panic!("as planned"),
        EXIT => std::process::exit(7),
        ABORT => std::process::abort(),
        STUCK => thread::sleep(Duration::from_secs(600)),
        _ => {}
    }
    square(number)
}

fn square(number: u64) -> u64 {
    number.wrapping_mul(number)
}

/// How long the text of a number is: some fit in what a pool gives at first, some do not by far.
fn length(number: u64) -> usize {
    match number % 64 {
        0 => 200_000,
        1 => 9_000 + (number % 1000) as usize,
        2..8 => 300 + (number % 500) as usize,
        _ => (number % 40) as usize,
    }
}

fn text_of(number: u64) -> String {
    let len = length(number);
    let mut text = number.to_string();
    text.extend(std::iter::repeat_n('x', len));
    text
}

fn write(item: Item, text: String) -> String {
    let number = act(item);
    assert_eq!(number, square(item[2]));
    assert_eq!(text, text_of(item[2] / 3), "arguments");
    text_of(item[2])
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }
}

/// What a pool of one round is, and what is done to its workers.
#[derive(Debug, Clone, Copy)]
struct Plan {
    workers: usize,
    retries: u32,
    max_tasks: Option<u64>,
    limit: Option<Duration>,
    queue: Option<u64>,
    kills: bool,
    stops: bool,
}

impl Plan {
    fn new(random: &mut Random) -> Plan {
        let some = |yes: bool, value: u64| yes.then_some(value);
        Plan {
            workers: 1 + random.below(3) as usize,
            retries: [0, 0, 1, 2][random.below(4) as usize],
            max_tasks: some(random.one_in(4), 1 + random.below(20)),
            limit: some(random.one_in(3), 60 + random.below(200)).map(Duration::from_millis),
            queue: some(random.one_in(4), 1 + random.below(100)),
            kills: random.one_in(2),
            stops: random.one_in(2),
        }
    }

    fn build(&self, counts: &Segment) -> Pool {
        let mut builder = Pool::builder()
            .workers(self.workers)
            .initializer(prepare, (counts.clone(),))
            .env("RUST_BACKTRACE", "0");
        if self.retries > 0 {
            builder = builder.on_worker_death(OnDeath::Retry(self.retries as u8));
        }
        if let Some(tasks) = self.max_tasks {
            builder = builder.max_tasks_per_worker(tasks);
        }
        if let Some(limit) = self.limit {
            builder = builder.task_timeout(limit);
        }
        if let Some(items) = self.queue {
            builder = builder.queue_limit(items);
        }
        builder.build().unwrap()
    }
}

/// What a thread is at.
type Doing = Mutex<(&'static str, Instant)>;

/// What ended in what way, over all.
#[derive(Debug, Default)]
struct Tally {
    values: AtomicU64,
    panicked: AtomicU64,
    died: AtomicU64,
    timed_out: AtomicU64,
    cancelled: AtomicU64,
    killed: AtomicU64,
}

/// How a call may end beside what its items and the round bring about.
#[derive(Debug, Clone, Copy, Default)]
struct May {
    be_cancelled: bool,
    be_killed: bool,
    time_out: bool,
}

/// A thread that calls the pool.
struct Caller<'a> {
    plan: Plan,
    pool: &'a Pool,
    counts: &'a Segment,
    tally: &'a Tally,
    random: Random,
    /// Its first word.
    base: u64,
    mark: u64,
}

impl Caller<'_> {
    /// Items of another call. `harmless` ones do nothing that ends in an error.
    fn items(&mut self, harmless: bool, count: usize) -> Vec<Item> {
        self.mark += 1;
        // Single items fail more often than each of many.
        let of = if count == 1 { 400 } else { 6_000 };
        (0..count as u64)
            .map(|at| {
                let deed = match self.random.below(of) {
                    _ if harmless => NUMBER,
                    0..6 => PANIC,
                    6..10 => EXIT,
                    10..12 => ABORT,
                    12..14 if self.plan.limit.is_some() => STUCK,
                    14..60 => NAP,
                    _ => NUMBER,
                };
                [self.base + at, self.mark, self.random.next() >> 8, deed]
            })
            .collect()
    }

    fn some(&mut self) -> usize {
        match self.random.below(8) {
            0 => 0,
            1 => 1,
            2..6 => self.random.below(40) as usize,
            _ => self.random.below(ITEMS as u64) as usize,
        }
    }

    /// One whose deed is what it is for.
    fn one(&mut self) -> Item {
        let harmless = self.random.one_in(2);
        self.items(harmless, 1)[0]
    }

    fn begun(&self, [word, mark, ..]: Item) -> u64 {
        let seen = self.counts.words()[word as usize].load(Ordering::Relaxed);
        if seen >> 8 == mark { seen & 0xff } else { 0 }
    }

    /// Checks how an item has ended.
    fn judge<T: PartialEq + Debug>(
        &self,
        item: Item,
        at: usize,
        result: Result<T, TaskError>,
        expected: &T,
        may: May,
    ) {
        let (plan, deed) = (self.plan, item[3]);
        let begun = self.begun(item);
        assert!(
            begun <= u64::from(plan.retries) + 1,
            "begun {begun} times: {item:?}"
        );
        let one = |count: &AtomicU64| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        match result {
            Ok(value) => {
                assert!(deed <= NAP, "{item:?} has a value");
                assert!(value == *expected, "{item:?}: a wrong value");
                assert!(begun >= 1, "{item:?} has a value and never ran");
                one(&self.tally.values);
            }
            Err(error) => {
                assert_eq!(error.item(), at, "{item:?}: {error:?}");
                let fits = match &error {
                    TaskError::Panicked { message, .. } => {
                        one(&self.tally.panicked);
                        deed == PANIC && message == "as planned"
                    }
                    TaskError::WorkerDied { how, attempt, .. } => {
                        one(&self.tally.died);
                        let by = match how {
                            WorkerExit::Exited(7) => deed == EXIT,
                            WorkerExit::Signalled(6) => deed == ABORT,
                            WorkerExit::Signalled(9) => plan.kills,
                            _ => false,
                        };
                        by && *attempt == plan.retries + 1
                    }
                    TaskError::TimedOut { pid: Some(_), .. } => {
                        one(&self.tally.timed_out);
                        plan.limit.is_some() || may.time_out
                    }
                    TaskError::Cancelled { .. } => {
                        one(&self.tally.cancelled);
                        may.be_cancelled || may.be_killed
                    }
                    TaskError::Killed { .. } => {
                        one(&self.tally.killed);
                        may.be_killed
                    }
                    _ => false,
                };
                assert!(fits, "{item:?} in {plan:?}: {error:?}, begun {begun} times");
            }
        }
    }

    /// Checks how a call of many items has ended.
    fn judge_all<T: PartialEq + Debug>(
        &self,
        items: &[Item],
        result: Result<Vec<T>, TaskError>,
        expected: impl Fn(Item) -> T,
        may: May,
    ) {
        match result {
            Ok(values) => {
                assert_eq!(values.len(), items.len());
                for (at, (item, value)) in items.iter().zip(values).enumerate() {
                    self.judge(*item, at, Ok(value), &expected(*item), may);
                }
            }
            Err(error) => {
                let at = error.item();
                let of_all = matches!(
                    error,
                    TaskError::Cancelled { .. } | TaskError::Killed { .. }
                );
                let first = items.iter().position(|item| item[3] > NAP);
                assert!(
                    of_all || first.is_none_or(|first| at <= first),
                    "not of the first item that failed, {first:?}: {error:?}"
                );
                self.judge(items[at], at, Err(error), &expected(items[at]), may);
            }
        }
    }

    fn pairs(items: &[Item]) -> Vec<(Item, String)> {
        let pair = |item: &Item| (*item, text_of(item[2] / 3));
        items.iter().map(pair).collect()
    }

    fn number(item: Item) -> u64 {
        square(item[2])
    }

    fn text(item: Item) -> String {
        text_of(item[2])
    }

    /// One call, and what came of it.
    fn call(&mut self, doing: &Doing) {
        let which = self.random.below(16);
        let name = [
            "apply",
            "apply",
            "apply",
            "apply text",
            "tasks",
            "tasks",
            "map",
            "map text",
            "map_async",
            "starmap_async",
            "imap",
            "imap_unordered",
            "with",
            "future",
            "two waiters",
            "limits",
        ][which as usize];
        *doing.lock().unwrap() = (name, Instant::now());
        match name {
            "apply" => {
                let item = self.one();
                let result = self.pool.apply(act, (item,));
                self.judge(item, 0, result, &Self::number(item), May::default());
            }
            "apply text" => {
                let item = self.one();
                let result = self.pool.apply(write, (item, text_of(item[2] / 3)));
                self.judge(item, 0, result, &Self::text(item), May::default());
            }
            "tasks" => self.tasks(),
            "map" => {
                let count = self.some();
                let items = self.items(self.mark % 2 == 0, count);
                let result = match self.random.below(4) {
                    0 => {
                        let size = self.random.below(70) as usize;
                        self.pool.chunk_size(size).map(act, &items)
                    }
                    // One after another, and nobody says how many.
                    1 => self.pool.map(act, items.iter().filter(|_| true).copied()),
                    _ => self.pool.map(act, &items),
                };
                self.judge_all(&items, result, Self::number, May::default());
            }
            "map text" => {
                let count = self.some() / 2;
                let items = self.items(self.mark % 2 == 0, count);
                let size = 1 + self.random.below(40) as usize;
                let result = match self.random.one_in(2) {
                    true => self.pool.starmap(write, Self::pairs(&items)),
                    false => self
                        .pool
                        .chunk_size(size)
                        .starmap(write, Self::pairs(&items)),
                };
                self.judge_all(&items, result, Self::text, May::default());
            }
            "map_async" => {
                let count = self.some();
                let items = self.items(self.mark % 2 == 0, count);
                let size = 1 + self.random.below(40) as usize;
                let task = self.pool.chunk_size(size).map_async(act, &items);
                let may = self.disturb(&task, false);
                self.judge_all(&items, task.get(), Self::number, may);
            }
            "starmap_async" => {
                let count = self.some() / 3;
                let items = self.items(false, count);
                let task = self.pool.starmap_async(write, Self::pairs(&items));
                let may = self.disturb(&task, false);
                self.judge_all(&items, task.get(), Self::text, may);
            }
            "imap" => {
                let count = self.some();
                let items = self.items(false, count);
                let size = 1 + self.random.below(9) as usize;
                let enough = self.enough(count);
                let results = self.pool.chunk_size(size).imap(act, &items);
                let results: Vec<_> = results.take(enough).collect();
                assert_eq!(results.len(), enough.min(count));
                for (at, (item, result)) in items.iter().zip(results).enumerate() {
                    self.judge(*item, at, result, &Self::number(*item), May::default());
                }
            }
            "imap_unordered" => {
                let count = self.some() / 2;
                let items = self.items(false, count);
                let enough = self.enough(count);
                let act = |item: Item, text: String| (item[0], write(item, text));
                let act = move |(item, text)| act(item, text);
                let results = self.pool.imap_unordered(act, Self::pairs(&items));
                let results: Vec<_> = results.take(enough).collect();
                assert_eq!(results.len(), enough.min(count));
                let mut seen = vec![false; count];
                for result in results {
                    let at = match &result {
                        Ok((word, _)) => (word - self.base) as usize,
                        Err(error) => error.item(),
                    };
                    assert!(!std::mem::replace(&mut seen[at], true), "{at} twice");
                    let result = result.map(|(_, text)| text);
                    self.judge(
                        items[at],
                        at,
                        result,
                        &Self::text(items[at]),
                        May::default(),
                    );
                }
            }
            "with" => {
                let count = self.some();
                let items = self.items(false, count);
                let more = text_of(self.random.next() >> 8);
                let len = more.len() as u64;
                let act = |more: &String, item: Item| act(item).wrapping_add(more.len() as u64);
                let pool = self
                    .pool
                    .with(more)
                    .chunk_size(1 + self.random.below(9) as usize);
                let expected = |item| Self::number(item).wrapping_add(len);
                if self.random.one_in(2) {
                    let result = pool.map(act, &items);
                    self.judge_all(&items, result, expected, May::default());
                } else {
                    for (at, (item, result)) in items.iter().zip(pool.imap(act, &items)).enumerate()
                    {
                        self.judge(*item, at, result, &expected(*item), May::default());
                    }
                }
            }
            "future" => {
                let item = self.one();
                let task = self.pool.apply_async(write, (item, text_of(item[2] / 3)));
                let result = block_on(task);
                self.judge(item, 0, result, &Self::text(item), May::default());
            }
            "two waiters" => {
                let item = self.one();
                let task = self.pool.apply_async(act, (item,));
                let first = Duration::from_micros(self.random.below(2000));
                thread::scope(|scope| {
                    // It takes the task over, and may not have the time to see it end.
                    scope.spawn(|| task.wait(first));
                    assert!(task.wait(DEADLINE), "it has not ended");
                });
                assert!(task.is_ready());
                self.judge(item, 0, task.get(), &Self::number(item), May::default());
            }
            _ => {
                let mut item = self.one();
                if self.random.one_in(8) {
                    item[3] = STUCK;
                }
                let may = May {
                    time_out: true,
                    ..May::default()
                };
                let limit = Duration::from_millis(50 + self.random.below(100));
                let result = self.pool.with_timeout(limit).apply(act, (item,));
                self.judge(item, 0, result, &Self::number(item), may);
            }
        }
    }

    fn enough(&mut self, count: usize) -> usize {
        match self.random.one_in(3) {
            true => self.random.below(count as u64 + 1) as usize,
            false => usize::MAX,
        }
    }

    /// Perhaps cancels the task, or kills it, or looks whether it is done.
    fn disturb<R>(&mut self, task: &multiproc::Task<R>, is_stuck: bool) -> May {
        let mut may = May::default();
        let which = if is_stuck { 1 } else { self.random.below(10) };
        if self.random.one_in(2) {
            thread::sleep(Duration::from_micros(self.random.below(3000)));
        }
        match which {
            0 => {
                may.be_cancelled = true;
                task.cancel();
            }
            1 => {
                may.be_killed = true;
                task.kill();
            }
            2 => {
                let limit = Duration::from_micros(self.random.below(3000));
                match task.get_timeout(limit) {
                    Err(TaskError::TimedOut { pid: None, .. }) => {}
                    _ => assert!(task.is_ready()),
                }
            }
            3 => drop(task.worker()),
            _ => {}
        }
        may
    }

    /// Some single tasks at once, ended in different ways.
    fn tasks(&mut self) {
        let count = self.random.below(40) as usize;
        let items = self.items(false, count);
        let mut tasks = Vec::new();
        for (at, item) in items.iter().enumerate() {
            if self.random.one_in(4) {
                match self.pool.try_apply_async(act, (*item,)) {
                    Ok(task) => tasks.push((at, task)),
                    Err(full) => {
                        assert_eq!((full.value.0, Some(full.limit)), (*item, self.plan.queue));
                    }
                }
            } else {
                tasks.push((at, self.pool.apply_async(act, (*item,))));
            }
        }
        let (tell, told) = mpsc::channel();
        let mut to_be_told = 0;
        while !tasks.is_empty() {
            let (at, task) = tasks.swap_remove(self.random.below(tasks.len() as u64) as usize);
            let item = items[at];
            match self.random.below(8) {
                0 => drop(task),
                1 => drop(task.cancel_on_drop()),
                2 => {
                    let tell = tell.clone();
                    to_be_told += 1;
                    task.on_done(move |result| tell.send((item, result)).unwrap());
                }
                3 => {
                    let never = task.cancel();
                    let result = task.get();
                    if never {
                        assert!(matches!(result, Err(TaskError::Cancelled { item: 0 })));
                        assert_eq!(self.begun(item), 0, "it was cancelled, and ran");
                    }
                    // It may have been taken back after a worker had died in it.
                    let may = May {
                        be_cancelled: true,
                        ..May::default()
                    };
                    self.judge(item, 0, result, &Self::number(item), may);
                }
                _ => {
                    let may = self.disturb(&task, false);
                    self.judge(item, 0, task.get(), &Self::number(item), may);
                }
            }
        }
        for _ in 0..to_be_told {
            let (item, result) = told.recv_timeout(DEADLINE).expect("a callback is called");
            self.judge(item, 0, result, &Self::number(item), May::default());
        }
    }
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<R>(future: impl Future<Output = R>) -> R {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(result) => return result,
            Poll::Pending => thread::park(),
        }
    }
}

/// Kills and stops workers until told that it is over.
fn harm(plan: Plan, pool: &Pool, mut random: Random, is_over: &AtomicBool) {
    let mut ended = 0;
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_micros(random.below(100_000)));
        // On a busy machine a worker may take longer than that to begin anything: some items at least end
        // between two deaths.
        let stats = pool.stats();
        if stats.done + stats.failed < ended + 5 {
            continue;
        }
        ended = stats.done + stats.failed;
        let workers = pool.workers();
        let Some(worker) = workers.get(random.below(workers.len().max(1) as u64) as usize) else {
            continue;
        };
        let pid = Pid::from_raw(worker.pid() as i32);
        // It may have ended since.
        if plan.kills && (!plan.stops || random.one_in(2)) {
            let _ = kill(pid, Signal::SIGKILL);
        } else if plan.stops {
            let _ = kill(pid, Signal::SIGSTOP);
            thread::sleep(Duration::from_micros(random.below(30_000)));
            let _ = kill(pid, Signal::SIGCONT);
        }
    }
}

/// Ends the program, saying what hangs, when a call takes too long.
fn watch(pool: &Pool, plan: Plan, doing: &[Doing], is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
        for doing in doing {
            let (name, since) = *doing.lock().unwrap();
            if since.elapsed() > DEADLINE {
                eprintln!("it hangs in {name:?}, of {plan:?}");
                eprintln!("{:?}\n{:#?}", pool.stats(), pool.insights());
                for worker in pool.workers() {
                    let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker.pid()));
                    eprintln!("{worker:?}: {stat:?}");
                }
                if std::env::var_os("MULTIPROC_HOLD").is_some() {
                    thread::sleep(Duration::from_secs(3600));
                }
                std::process::exit(1);
            }
        }
    }
}

/// Sets it at the end, also of a thread that panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn number_of(variable: &str, or: u64) -> u64 {
    let said = std::env::var(variable).ok();
    said.map_or(or, |said| said.parse().expect(variable))
}

fn children() -> Vec<String> {
    let me = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let is_mine = |stat: &String| {
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_ascii_whitespace().nth(1) == Some(&me) && !stat.contains("(zygote-")
    };
    stats.filter(is_mine).collect()
}

fn memory_files() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links
        .filter(|link| link.to_string_lossy().contains("multiproc:"))
        .count()
}

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok())
        .collect()
}

fn settles(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        let (threads, children) = (threads(), children());
        assert!(Instant::now() < end, "{what}: {threads:?}, {children:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// One pool: its use, its end, and that nothing is left.
fn round(number: u64, operations: u64, random: &mut Random, tally: &Tally) {
    let plan = Plan::new(random);
    let counts = Segment::new(CALLERS * ITEMS * 8).unwrap();
    let pool = plan.build(&counts);
    let doing: Vec<Doing> = (0..CALLERS)
        .map(|_| Mutex::new(("begins", Instant::now())))
        .collect();
    let is_over = AtomicBool::new(false);
    let is_watched = AtomicBool::new(false);
    let begun = Instant::now();
    thread::scope(|scope| {
        let (pool, counts, doing, is_over, is_watched) =
            (&pool, &counts, &doing, &is_over, &is_watched);
        scope.spawn(move || watch(pool, plan, doing, is_watched));
        let its = Random(random.next() | 1);
        scope.spawn(move || harm(plan, pool, its, is_over));
        let callers: Vec<_> = (0..CALLERS)
            .map(|at| {
                let random = Random(random.next() | 1);
                scope.spawn(move || {
                    let mut caller = Caller {
                        plan,
                        pool,
                        counts,
                        tally,
                        random,
                        base: (at * ITEMS) as u64,
                        mark: 0,
                    };
                    for _ in 0..operations / CALLERS as u64 {
                        caller.call(&doing[at]);
                    }
                    doing[at].lock().unwrap().1 = Instant::now() + Duration::from_secs(3600);
                })
            })
            .collect();
        let _over = (Over(is_watched), Over(is_over));
        for caller in callers {
            caller.join().unwrap();
        }
    });
    println!("round {number}: {:?}, {plan:?}", begun.elapsed());
    let stats = pool.stats();
    match random.below(4) {
        0 => {
            pool.join().unwrap();
            let stats = pool.stats();
            assert_eq!((stats.queued, stats.running), (0, 0));
        }
        1 => pool.shutdown(Duration::from_secs(20)).unwrap(),
        2 => {
            assert!(pool.wait_idle(Duration::from_secs(20)), "{stats:?}");
            assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
        }
        _ => pool.terminate(),
    }
    drop(pool);
}

fn main() {
    let operations = number_of("MULTIPROC_OPERATIONS", 2_000);
    let seed = number_of("MULTIPROC_SEED", 1);
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let tally = Tally::default();
    drop(Pool::new(1).unwrap());
    settles("the first pool ends", || children().is_empty());
    let files = memory_files();
    let per_round = 1_000;
    for number in 0..operations.div_ceil(per_round) {
        round(number, per_round.min(operations), &mut random, &tally);
        settles("no child is left", || children().is_empty());
        settles("no memory is left", || memory_files() <= files);
        settles("no thread is left", || {
            // Those that look after processes stay.
            let is_pools = |name: &String| {
                let mut names = ["multiproc-pool", "multiproc-waker", "multiproc-callb"].iter();
                names.any(|its| name.starts_with(its))
            };
            !threads().iter().any(is_pools)
        });
    }
    println!("seed {seed}, {operations} calls: {tally:?}");
}
