//! What the parent keeps: its zygote, and children that wait for a function.
//!
//! A child of the zygote, a *spare*, waits at its control socket for its first word. Until it is given
//! that word it has run nothing, so that whatever becomes of it or of the zygote, another child can be
//! made in its place. One thread makes zygotes and has them make spares, and whoever finds none waits for
//! that thread's next; it lives as long as the process, because the kernel ties a child's parent-death
//! signal to the thread that made it, and the zygote's children count as made by the thread that made the
//! zygote.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::control::{self, Another, Birth, Order};
use super::execute::{Place, command, end_now, execute};
use super::reaper::{Record, reaper};
use super::surroundings::Surroundings;
use super::{boot, tree, zygote};
use crate::sys;

/// Children that wait.
const SPARES: usize = 2;

/// How long the zygote may take to begin.
const BEGINNING: Duration = Duration::from_secs(10);

/// How long the zygote may take to fork; a stopped one is given up.
const FORKING: Duration = Duration::from_secs(2);

/// The environment of a process.
pub(super) type Environment = Vec<(OsString, OsString)>;

/// What a zygote and its children have from the moment it was made. Kept as long as any of them lives.
#[derive(Debug)]
pub(super) struct Stock {
    surroundings: Surroundings,
    pub(super) environment: Environment,
    /// The end of a pipe to which nothing is ever written: the children end when it is closed.
    _lifeline: OwnedFd,
}

#[derive(Debug)]
struct Zygote {
    record: Arc<Record>,
    line: OwnedFd,
    stock: Arc<Stock>,
}

/// A child that waits for its first word.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) record: Arc<Record>,
    pub(super) stock: Arc<Stock>,
}

#[derive(Default)]
struct State {
    zygote: Option<Arc<Zygote>>,
    spares: Vec<Spare>,
    /// None of them was given its function since a child has ended or another was made.
    is_lull: bool,
    /// Threads that wait for a spare.
    waiting: usize,
    /// Somebody has use for a zygote.
    wanted: bool,
    /// How often no zygote or no child of it was to be had.
    failures: u64,
    /// This program can have none.
    refused: bool,
    /// Those of the last process that was made by execution.
    last: Option<Surroundings>,
}

struct Keeper {
    state: Mutex<State>,
    changed: Condvar,
}

static KEEPER: Keeper = Keeper {
    state: Mutex::new(State {
        zygote: None,
        spares: Vec::new(),
        is_lull: true,
        waiting: 0,
        wanted: false,
        failures: 0,
        refused: false,
        last: None,
    }),
    changed: Condvar::new(),
};

/// A child of the zygote that has not been given its function; `None` when the next is to be made by
/// execution. If `insist`, waits for a zygote that is not there yet.
pub(super) fn take(insist: bool) -> Option<Spare> {
    let deadline = Instant::now() + BEGINNING;
    loop {
        let surroundings = Surroundings::now().ok()?;
        let mut state = KEEPER.state();
        if state.refused {
            return None;
        }
        state.discard_others(&surroundings);
        if let Some(spare) = state.give() {
            return Some(spare);
        }
        if state.zygote.is_none() {
            if !insist {
                // One process alone is not worth a zygote; a second in the same surroundings may be one of many.
                if state.last.as_ref() == Some(&surroundings) {
                    state.want();
                }
                state.last = Some(surroundings);
                return None;
            }
            if !state.want() {
                return None;
            }
        }
        if !KEEPER.wait_for_spare(state, deadline) {
            return None;
        }
    }
}

/// Has spares made, if none is left.
pub(super) fn refill() {
    if KEEPER.state().are_wanted() {
        KEEPER.changed.notify_all();
    }
}

impl Keeper {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn run(&self) {
        sys::block_signals();
        let mut state = self.state();
        loop {
            let zygote = state.zygote.clone();
            match zygote {
                None if state.wanted => {
                    drop(state);
                    let made = make();
                    state = self.state();
                    state.wanted = false;
                    match made {
                        // It may have ended by now.
                        Ok(zygote) if zygote.record.how().is_none() => state.zygote = Some(zygote),
                        Ok(_) => state.fail(io::ErrorKind::BrokenPipe),
                        Err(error) => state.fail(error.kind()),
                    }
                }
                Some(zygote) if state.are_wanted() => {
                    drop(state);
                    let made = zygote.child();
                    state = self.state();
                    let is_current = state
                        .zygote
                        .as_ref()
                        .is_some_and(|current| Arc::ptr_eq(current, &zygote));
                    match made {
                        Ok(spare) if is_current => {
                            state.spares.push(spare);
                            state.is_lull = true;
                            self.changed.notify_all();
                        }
                        Ok(spare) => spare.discard(),
                        Err(error) => {
                            state.fail(error.kind());
                            // There is no room for more processes now; or it is gone, and another may be wanted.
                            if is_current {
                                state = self.wait(state);
                            }
                        }
                    }
                }
                _ => state = self.wait(state),
            }
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is a spare; false if none is to be had, or not by then.
    fn wait_for_spare(&self, mut state: MutexGuard<'_, State>, deadline: Instant) -> bool {
        let failures = state.failures;
        state.waiting += 1;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(
            state,
            deadline.saturating_duration_since(Instant::now()),
            |state| state.spares.is_empty() && state.failures == failures,
        );
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.waiting -= 1;
        if state.zygote.is_none() && !state.refused {
            state.want();
        }
        !state.spares.is_empty()
    }

    /// A zygote, a spare or what a spare has become has ended.
    fn forget(&self, pid: u32) {
        let mut state = self.state();
        state.spares.retain(|spare| spare.record.pid != pid);
        if state.zygote.as_ref().is_some_and(|it| it.record.pid == pid) {
            state.zygote = None;
            state.failures += 1;
        }
        state.is_lull = true;
        self.changed.notify_all();
    }
}

impl State {
    /// Whether spares are to be made now. Not while a child has just begun and one is left, for a fork would get
    /// in its way.
    fn are_wanted(&self) -> bool {
        let least = if self.is_lull { SPARES } else { 1 };
        self.spares.len() < self.waiting.max(least)
    }

    /// The oldest spare that lives, so that none keeps what belongs to a zygote long gone.
    fn give(&mut self) -> Option<Spare> {
        while !self.spares.is_empty() {
            let spare = self.spares.remove(0);
            if spare.record.how().is_none() && !sys::is_ready(spare.record.process()) {
                if self.zygote.is_none() {
                    self.want();
                }
                self.is_lull = false;
                return Some(spare);
            }
        }
        None
    }

    /// No zygote or no child of it was to be had: nobody waits for it any longer.
    fn fail(&mut self, why: io::ErrorKind) {
        self.failures += 1;
        // The kernel does not do it, or whatever guards this process forbids it.
        self.refused |= why == io::ErrorKind::Unsupported;
        KEEPER.changed.notify_all();
    }

    /// Asks for a zygote; false if there is no thread to make it.
    fn want(&mut self) -> bool {
        static THREAD: OnceLock<bool> = OnceLock::new();
        self.wanted = true;
        KEEPER.changed.notify_all();
        *THREAD.get_or_init(|| {
            std::thread::Builder::new()
                .name("multiproc-keeper".into())
                .stack_size(256 * 1024)
                .spawn(|| KEEPER.run())
                .is_ok()
        })
    }

    /// Ends what was made in other surroundings.
    fn discard_others(&mut self, surroundings: &Surroundings) {
        let zygote = self
            .zygote
            .take_if(|zygote| zygote.stock.surroundings != *surroundings);
        if let Some(zygote) = zygote {
            self.fail(io::ErrorKind::BrokenPipe);
            // Refused only if it has ended.
            let _ = sys::send_signal(zygote.record.process(), nix::libc::SIGKILL);
        }
        let (kept, others) = std::mem::take(&mut self.spares)
            .into_iter()
            .partition(|spare: &Spare| spare.stock.surroundings == *surroundings);
        self.spares = kept;
        for spare in others {
            spare.discard();
        }
    }
}

impl Spare {
    /// Ends it; the reaper takes its status.
    fn discard(self) {
        // Refused only if it has ended.
        let _ = sys::send_signal(self.record.process(), nix::libc::SIGKILL);
    }
}

/// Executes this program as a zygote, and waits until it is ready. On the keeper's thread.
fn make() -> io::Result<Arc<Zygote>> {
    let image = boot::ready().map_err(io::Error::other)?;
    let surroundings = Surroundings::now()?;
    let environment: Environment = std::env::vars_os().collect();
    let (line, theirs) = sys::socket_pair()?;
    let place = Place::for_children()?;
    let (their_lifeline, lifeline) = sys::pipe()?;
    let mut descriptors = place.descriptors();
    descriptors.push(their_lifeline.as_fd());
    control::send(&line, &Order::Breed(image.fingerprint), &[], &descriptors)?;
    let mut command = command(theirs);
    let arguments: Vec<OsString> = std::env::args_os().take(1).collect();
    // As this process has it, for its children take it for their own.
    command.arg0(arguments.first().map_or(OsStr::new(""), |name| name));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.env_clear().envs(environment.iter().cloned());
    command.env(boot::MARK, boot::mark(image));
    let zygote = Arc::new(Zygote {
        record: execute(command, None)?,
        line,
        stock: Arc::new(Stock {
            surroundings,
            environment,
            _lifeline: lifeline,
        }),
    });
    let heard = hear(&zygote.line, BEGINNING);
    match heard {
        Ok(Birth::Ready) => {
            let pid = zygote.record.pid;
            zygote.record.on_exit(move |_| KEEPER.forget(pid));
            Ok(zygote)
        }
        Ok(Birth::Refused(errno)) => Err(io::Error::from_raw_os_error(errno)),
        Ok(Birth::Born(_)) => Err(io::ErrorKind::InvalidData.into()),
        Err(error) => {
            end_now(&zygote.record);
            Err(error)
        }
    }
}

/// What the zygote says next, within that time.
fn hear(line: &OwnedFd, limit: Duration) -> io::Result<Birth> {
    let said = sys::poll_any(&[line.as_fd()], Some(Instant::now() + limit))?;
    said.ok_or(io::ErrorKind::TimedOut)?;
    match control::receive(line, false)? {
        Some(arrived) => Ok(arrived.head),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

impl Zygote {
    /// A new child, which waits for its first word. On the keeper's thread.
    fn child(&self) -> io::Result<Spare> {
        let (ours, theirs) = sys::socket_pair()?;
        let asked = control::send(&self.line, &Another, &[], &[theirs.as_fd()]);
        drop(theirs);
        let pid = match asked.and_then(|()| hear(&self.line, FORKING)) {
            Ok(Birth::Born(pid)) => pid,
            Ok(Birth::Refused(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Ok(Birth::Ready) => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) => {
                self.give_up();
                return Err(error);
            }
        };
        let watched = sys::process_descriptor(pid).and_then(|process| {
            let record = Record::new(pid, process, Some(ours));
            record.keep(self.stock.clone());
            reaper()?.watch(&record)?;
            Ok(record)
        });
        let record = watched.inspect_err(|_| sys::end_child(pid))?;
        record.on_exit(move |_| KEEPER.forget(pid));
        Ok(Spare {
            record,
            stock: Arc::clone(&self.stock),
        })
    }

    /// Ends a zygote that does not answer, and the child that it may have made before it told of it.
    fn give_up(&self) {
        end_now(&self.record);
        for pid in tree::children_called(&zygote::short_name(self.record.pid)) {
            if reaper().is_ok_and(|reaper| !reaper.knows(pid)) {
                sys::end_child(pid);
            }
        }
    }
}
