//! One thread that lives as long as the process: it reaps the children.
//!
//! It waits for its own children alone, each by its descriptor; SIGCHLD and the children that others
//! make are left alone.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;

use super::control::{self, Arrived, Order, Report};
use super::road;
use super::tree;
use crate::error::WorkerExit;
use crate::handle::{self, End, Legacy, Passed};
use crate::kin;
use crate::message::{self, Message};
use crate::sync;
use crate::sys::{self, Descriptor};

/// What the parent keeps of a child.
pub(crate) struct Record {
    pub(crate) pid: u32,
    /// Given to it together with its function; the zygote, and children that wait for a function, have none.
    name: OnceLock<Arc<str>>,
    process: Descriptor,
    state: Mutex<State>,
}

/// How long a child takes to end after its last word, as a rule.
const ENDING: Duration = Duration::from_micros(150);

/// Reports of one child that are read before somebody looks at the clock. A child has five to make in all.
const AT_ONCE: usize = 64;

type Callback = Box<dyn FnOnce(WorkerExit) + Send>;

struct State {
    /// The lifeline: held while the child lives, for the child ends when it is closed.
    control: Option<Arc<Descriptor>>,
    /// What else must stay as it is while the child lives.
    kept: Option<Arc<dyn Send + Sync>>,
    /// That it is ready, and its last word: two at most.
    reports: Vec<Arrived<Report>>,
    /// Descriptors of a report of which the rest has not come yet.
    early: Vec<OwnedFd>,
    /// Whether the child has given what it kept, which it does once.
    left: bool,
    /// Whether the child has taken the handles among its arguments.
    began: bool,
    /// The ends in its result, for which this process answers until that is decoded.
    ends: Option<Option<Passed>>,
    /// Why a report could not be read.
    failed: Option<io::Error>,
    how: Option<WorkerExit>,
    callbacks: Vec<Callback>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("name", &self.name())
            .field("pid", &self.pid)
            .field("ended", &self.state().how)
            .finish()
    }
}

impl Record {
    pub(crate) fn new(pid: u32, process: OwnedFd, control: Option<OwnedFd>) -> Arc<Record> {
        Arc::new(Record {
            pid,
            name: OnceLock::new(),
            process: Descriptor::keep(process),
            state: Mutex::new(State {
                control: control.map(|control| Arc::new(Descriptor::keep(control))),
                kept: None,
                reports: Vec::new(),
                early: Vec::new(),
                left: false,
                began: false,
                ends: None,
                failed: None,
                how: None,
                callbacks: Vec::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps something as long as the child lives.
    pub(crate) fn keep(&self, what: Arc<dyn Send + Sync>) {
        self.state().kept = Some(what);
    }

    /// Closes its lifeline: it ends by itself then, also one that may not be signalled.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.control = None;
        state.kept = None;
    }

    /// Its name; empty when it has none yet.
    pub(crate) fn name(&self) -> &str {
        self.name.get().map_or("", |name| name)
    }

    /// Gives it its name, and with that makes it one of the children that users know of.
    pub(crate) fn set_name(&self, name: Arc<str>) {
        // Named once, by whoever starts it.
        let _ = self.name.set(name);
    }

    /// Says something to the child. Never waits for it.
    pub(crate) fn tell(
        &self,
        order: &Order,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let control = self.state().control.clone();
        let control = control.ok_or(io::ErrorKind::BrokenPipe)?;
        control.check()?;
        control::send(&control, order, body, descriptors)
    }

    /// What it is called among the watched.
    fn token(&self) -> u64 {
        self.process.as_fd().as_raw_fd() as u64
    }

    /// The child's descriptor.
    pub(crate) fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// How it has ended; `None` while it lives or is not yet reaped.
    pub(crate) fn how(&self) -> Option<WorkerExit> {
        self.state().how
    }

    /// Waits until the child has ended and is reaped; `None` when `deadline` has passed.
    ///
    /// Whoever waits reaps: it would take longer to be told by the reaper's thread, which sleeps on. And whoever
    /// waits is up already when the child ends, for its last word comes a moment before.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<WorkerExit> {
        if let Some(how) = self.how() {
            return Some(how);
        }
        // Every child is watched over before anybody can wait for it.
        let reaper = REAPER.get()?;
        reaper.look_away(self);
        let how = self.wait_here(deadline);
        match how {
            Some(how) => reaper.bury(self, how),
            // Refused only if another thread has done it, or if there is no memory for what there was memory for a
            // moment ago; then whoever waits next reaps.
            None => _ = reaper.look_at(self),
        }
        how
    }

    fn wait_here(&self, deadline: Option<Instant>) -> Option<WorkerExit> {
        let mut control = self.state().control.clone();
        loop {
            let mut files = vec![self.process()];
            files.extend(control.as_deref().map(AsFd::as_fd));
            match sys::poll_any(&files, deadline) {
                Ok(Some(0)) => {}
                Ok(Some(_)) => {
                    let mut state = self.state();
                    if !state.read() || state.is_ending() {
                        drop(state);
                        control = None;
                        self.spin(deadline);
                    }
                }
                Ok(None) => return self.reap(),
                // The kernel has no room for a wait just now.
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
            if let Some(how) = self.reap() {
                return Some(how);
            }
            // A child that never stops talking must not keep anybody beyond that.
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return None;
            }
        }
    }

    /// Looks for the end of a child that is about to end.
    fn spin(&self, deadline: Option<Instant>) {
        let end = Instant::now() + ENDING;
        let end = deadline.map_or(end, |deadline| end.min(deadline));
        while !sync::has_one_processor() && Instant::now() < end && !sys::is_ready(self.process()) {
            std::thread::yield_now();
        }
    }

    /// How it has ended; takes its status if nobody has before. `None` while it lives.
    fn reap(&self) -> Option<WorkerExit> {
        let mut state = self.state();
        if state.how.is_none() {
            state.how = sys::reap(self.process());
            if state.how.is_some() {
                // First those who wait for something the dead held, in the whole tree; then our own.
                if let Ok(kin) = kin::kin() {
                    kin.announce_death();
                }
                state.read();
                state.early.clear();
                state.control = None;
                state.kept = None;
            }
        }
        state.how
    }

    /// Calls `callback` when the child has ended, on the thread that reaps it, or now if it has.
    pub(crate) fn on_exit(&self, callback: impl FnOnce(WorkerExit) + Send + 'static) {
        let mut state = self.state();
        match state.how {
            None => state.callbacks.push(Box::new(callback)),
            Some(how) => {
                drop(state);
                callback(how);
            }
        }
    }

    /// Waits until the child has said something or has ended; false when `deadline` has passed.
    pub(crate) fn wait_for_report(&self, deadline: Instant) -> io::Result<bool> {
        let Some(control) = self.state().control.clone() else {
            return Ok(true);
        };
        if sys::poll_any(&[control.as_fd()], Some(deadline))?.is_none() {
            return Ok(false);
        }
        let open = self.state().read();
        let in_time = Instant::now() < deadline;
        Ok(in_time && (open || self.wait(Some(deadline)).is_some()))
    }

    /// Whether the child is known to have taken the handles among its arguments.
    pub(crate) fn began(&self) -> bool {
        self.state().began
    }

    /// Looks at what the child has said so far.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&[Arrived<Report>]) -> R) -> R {
        look(&self.state().reports)
    }

    /// Takes what the child has said, and why the rest of it could not be read.
    pub(crate) fn take_reports(&self) -> (Vec<Arrived<Report>>, Option<io::Error>) {
        let mut state = self.state();
        (std::mem::take(&mut state.reports), state.failed.take())
    }

    /// Takes the ends in its result, which are not to be dropped before that is decoded.
    pub(crate) fn take_ends(&self) -> Option<Passed> {
        self.state().ends.as_mut()?.take()
    }

    fn call_back(&self, how: WorkerExit) {
        let callbacks = std::mem::take(&mut self.state().callbacks);
        for callback in callbacks {
            callback(how);
        }
    }
}

impl State {
    /// Whether the child has said its last word.
    fn is_ending(&self) -> bool {
        let last = self.reports.last();
        last.is_some_and(|report| !matches!(report.head, Report::Ready))
    }

    /// Reads what the child has said so far, as far as it is within reason; false when it can say no more.
    fn read(&mut self) -> bool {
        for _ in 0..AT_ONCE {
            let Some(control) = &self.control else {
                return false;
            };
            match control::receive_rest(control, &mut self.early, false) {
                Ok(Some(report)) => self.hear(report),
                Ok(None) => return false,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return true,
                    // Said once, before what is left to read: the child ended with our words unread.
                    io::ErrorKind::ConnectionReset => {}
                    _ => {
                        self.failed = Some(error);
                        self.early.clear();
                        return false;
                    }
                },
            }
        }
        true
    }

    /// Takes one report down. However many come, few are kept.
    fn hear(&mut self, report: Arrived<Report>) {
        match report.head {
            Report::Began => self.began = true,
            Report::Left if self.left => {}
            Report::Left => {
                self.left = true;
                keep(report);
            }
            Report::Ends if self.ends.is_none() => self.ends = Some(answer_for(report)),
            Report::Ends => {}
            Report::Ready if !self.reports.is_empty() => {}
            Report::Ready => self.reports.push(report),
            _ => {
                // The last word is what counts.
                self.reports
                    .retain(|before| matches!(before.head, Report::Ready));
                self.reports.push(report);
            }
        }
    }
}

/// Keeps what a child had kept. What cannot be had, its receivers are told.
fn keep(left: Arrived<Report>) {
    if let Some(legacy) = objects::<Legacy>(left) {
        handle::inherit(legacy);
    }
}

/// Answers for the ends in a child's result. What cannot be had, is the child's to the end.
fn answer_for(ends: Arrived<Report>) -> Option<Passed> {
    Some(handle::inherit_ends(objects::<End>(ends)?))
}

/// What a child passes on beside its result.
fn objects<T: Message>(report: Arrived<Report>) -> Option<Vec<T>> {
    control::check_lengths(&report.descriptors).ok()?;
    let body = report.body.into_bytes().ok()?;
    let decode = || message::decode::<Vec<T>>(&body);
    handle::with_descriptors(report.descriptors, decode)
        .ok()?
        .ok()
}

/// The thread's own things.
#[derive(Debug)]
pub(crate) struct Reaper {
    watched: OwnedFd,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    living: HashMap<u64, Arc<Record>>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.living.values()).finish()
    }
}

static REAPER: OnceLock<Reaper> = OnceLock::new();
static MAKING: Mutex<()> = Mutex::new(());
/// What the inbox of the road is called among the watched; no descriptor number is so large.
const ROAD: u64 = u64::MAX;

/// The process's reaper; started when there is none yet.
///
/// # Errors
///
/// What the kernel said when the thread or its descriptors were made.
pub(crate) fn reaper() -> io::Result<&'static Reaper> {
    if let Some(reaper) = REAPER.get() {
        return Ok(reaper);
    }
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reaper) = REAPER.get() {
        return Ok(reaper);
    }
    let watched = sys::above_streams(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
    // Once: who reads letters watches for them from then on.
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
    let data = epoll::EventData::new_u64(ROAD);
    epoll::add(&watched, road::letters()?, data, flags)?;
    // The thread waits here until the reaper is in its place.
    let (tell, told) = mpsc::channel::<&'static Reaper>();
    std::thread::Builder::new()
        .name("multiproc-reaper".into())
        .stack_size(256 * 1024)
        .spawn(move || {
            sys::block_signals();
            if let Ok(reaper) = told.recv() {
                reaper.run();
            }
        })?;
    let reaper = REAPER.get_or_init(|| Reaper {
        watched,
        table: Mutex::default(),
    });
    // The thread waits for nothing else.
    let _ = tell.send(reaper);
    Ok(reaper)
}

/// The living children of this process that users know of.
pub(crate) fn living() -> Vec<Arc<Record>> {
    let Some(reaper) = REAPER.get() else {
        return Vec::new();
    };
    let mut living: Vec<_> = reaper.table().living.values().cloned().collect();
    living.retain(|record| record.name.get().is_some());
    living.sort_by_key(|record| record.pid);
    living
}

impl Reaper {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches over a child from now on.
    pub(crate) fn watch(&self, record: &Arc<Record>) -> io::Result<()> {
        let token = record.token();
        // In the table first: the child may end at once.
        self.table().living.insert(token, Arc::clone(record));
        self.look_at(record).inspect_err(|_| {
            self.table().living.remove(&token);
        })
    }

    /// Has the thread woken when the child ends.
    fn look_at(&self, record: &Record) -> io::Result<()> {
        let data = epoll::EventData::new_u64(record.token());
        let flags = epoll::EventFlags::IN;
        Ok(epoll::add(&self.watched, &record.process, data, flags)?)
    }

    /// The child's end is another thread's business.
    fn look_away(&self, record: &Record) {
        // Refused only if it is that already.
        let _ = epoll::delete(&self.watched, &record.process);
    }

    /// Whether that child is watched over.
    pub(crate) fn knows(&self, pid: u32) -> bool {
        self.table().living.values().any(|record| record.pid == pid)
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.watched, spare, None) {
                Ok(_) | Err(Errno::INTR) => {}
                // Only a bad descriptor is refused: somebody has closed ours, nothing can be watched.
                Err(_) => return,
            }
            for event in &events {
                match event.data.u64() {
                    // Without a thread for it, who asks hears nothing, in a bounded time.
                    ROAD => _ = road::serve(),
                    token => self.reap(token),
                }
            }
        }
    }

    fn reap(&self, token: u64) {
        let Some(record) = self.table().living.get(&token).cloned() else {
            return;
        };
        if let Some(how) = record.reap() {
            self.bury(&record, how);
        }
    }

    /// A child has ended and is reaped.
    fn bury(&self, record: &Record, how: WorkerExit) {
        self.look_away(record);
        self.table().living.remove(&record.token());
        // What it left is here.
        road::forget_dead();
        record.call_back(how);
        if sys::adopts_orphans() {
            self.adopt_orphans();
        }
    }

    /// Watches over the zygotes that children of this process have left behind: where orphans become children
    /// of this process, nobody else takes their status. All other orphans are the program's own business.
    fn adopt_orphans(&self) {
        for pid in tree::orphans(|pid| self.knows(pid)) {
            // If it cannot be watched over now, the next death is another occasion.
            if let Ok(process) = sys::process_descriptor(pid) {
                let _ = self.watch(&Record::new(pid, process, None));
            }
        }
    }
}
