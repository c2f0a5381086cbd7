//! What the parent keeps: its zygote, and children that wait for a function.
//!
//! A child of the zygote, a *spare*, waits at its control socket for its first word. Until it is given
//! that word it has run nothing, so that whatever becomes of it or of the zygote, another child can be
//! made in its place. One thread makes zygotes and has them make spares, and whoever finds none waits for
//! that thread's next; it lives as long as the process, because the kernel ties a child's parent-death
//! signal to the thread that made it, and the zygote's children count as made by the thread that made the
//! zygote.
//!
//! A zygote's children have what the keeper's thread has handed on to the zygote: users, capabilities, filters of
//! system calls and so on. They are given to threads alone that have the same. When a thread comes that has
//! something else, either the whole process has changed, as a daemon that gives up its rights, which the
//! keeper's thread has with it: then all that was made before is ended; or that thread alone is another.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::control::{self, Another, Birth, Order};
use super::credentials::Credentials;
use super::error::SpawnError;
use super::execute::{LONGEST_VARIABLE, Place, command, end_now, execute};
use super::reaper::{Record, reaper};
use super::settings::StartMethod;
use super::{boot, tree, zygote};
use crate::kin;
use crate::sys::{self, Descriptor};

/// So many spares in a row that end before they are given anything: whatever ends them will end the next.
const LOST: usize = 32;

/// Children that wait.
const SPARES: usize = 2;

/// How long the zygote may take to begin.
const BEGINNING: Duration = Duration::from_secs(10);

/// How long the zygote may take to fork; a stopped one is given up.
const FORKING: Duration = Duration::from_secs(2);

/// The environment of a process.
pub(super) type Environment = Vec<(OsString, OsString)>;

/// What a zygote and its children have from the moment it was made.
#[derive(Debug)]
pub(super) struct Inherited {
    credentials: Credentials,
    pub(super) environment: Environment,
    /// Whether this process could look into the zygote at once, so that who cannot is more restricted.
    is_observable: bool,
}

#[derive(Debug)]
struct Zygote {
    record: Arc<Record>,
    line: Descriptor,
    inherited: Arc<Inherited>,
}

/// A child that waits for its first word.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) record: Arc<Record>,
    pub(super) inherited: Arc<Inherited>,
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
    /// How often all that was there has been ended: what is on its way then comes too late.
    endings: u64,
    /// This program can have none: what the system said.
    refused: Option<i32>,
    /// Spares of this zygote that have ended, one after another, before any was given its function.
    lost: usize,
    /// Those of the last process that was made by execution.
    last: Option<Credentials>,
    /// How often the keeper's thread was asked for its own credentials, how often it has answered, and what.
    asked: u64,
    answered: u64,
    answer: Option<Credentials>,
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
        endings: 0,
        refused: None,
        lost: 0,
        last: None,
        asked: 0,
        answered: 0,
        answer: None,
    }),
    changed: Condvar::new(),
};

/// How long those that are ended may take for it.
const ENDING: Duration = Duration::from_secs(5);

/// A child of the zygote that has not been given its function; `None` when the next is to be made by
/// execution. If the zygote is asked for, waits until there is one.
///
/// # Errors
///
/// `NoZygote` when it is asked for and there can be none.
pub(super) fn take(method: Option<StartMethod>) -> Result<Option<Spare>, SpawnError> {
    let insist = method == Some(StartMethod::Zygote);
    let deadline = Instant::now() + BEGINNING;
    // Without `/proc` nothing can be executed either, and that says so.
    let Ok(credentials) = Credentials::now() else {
        return Ok(None);
    };
    let mut has_ended = false;
    loop {
        let mut state = KEEPER.state();
        if state.has_others(&credentials) {
            // Once: the next were made with those of the keeper's thread.
            if has_ended || !KEEPER.has(state, &credentials) {
                return Ok(None);
            }
            // Those of a user that this process was before must not live on beside what follows.
            let _ = end(Some(&credentials));
            has_ended = true;
            continue;
        }
        if method == Some(StartMethod::Exec) {
            return Ok(None);
        }
        if let Some(errno) = state.refused {
            return match insist {
                true => Err(SpawnError::NoZygote {
                    error: io::Error::from_raw_os_error(errno),
                }),
                false => Ok(None),
            };
        }
        if state.lost >= LOST {
            // One more is tried, for the next call.
            state.lost = LOST - 1;
            KEEPER.changed.notify_all();
            return Ok(None);
        }
        if let Some(spare) = state.give() {
            drop(state);
            if spare.inherited.is_for(&credentials, spare.record.pid) {
                return Ok(Some(spare));
            }
            give_back(spare);
            return Ok(None);
        }
        if state.zygote.is_none() {
            if !insist {
                // One process alone is not worth a zygote; a second by such a thread may be one of many.
                if state.last.as_ref() == Some(&credentials) {
                    state.want();
                }
                state.last = Some(credentials);
                return Ok(None);
            }
            if !state.want() {
                return Ok(None);
            }
        }
        if !KEEPER.wait_for_spare(state, deadline) && KEEPER.state().refused.is_none() {
            return Ok(None);
        }
    }
}

/// Takes back a child that has been given nothing.
pub(super) fn give_back(spare: Spare) {
    let mut state = KEEPER.state();
    let is_known = |zygote: &Arc<Zygote>| Arc::ptr_eq(&zygote.inherited, &spare.inherited);
    if state.zygote.as_ref().is_some_and(is_known) {
        state.spares.insert(0, spare);
    } else {
        // All that was there may have been ended meanwhile, for a reason.
        drop(state);
        spare.discard();
    }
}

/// Ends the zygote and the children that wait, but for those that have `except`. Returns when they have ended.
fn end(except: Option<&Credentials>) -> io::Result<()> {
    let (zygote, spares) = {
        let mut state = KEEPER.state();
        state.endings += 1;
        state.is_lull = true;
        let is_other = |inherited: &Inherited| except != Some(&inherited.credentials);
        let zygote = state.zygote.take_if(|zygote| is_other(&zygote.inherited));
        let spares: Vec<Spare> = std::mem::take(&mut state.spares);
        let (others, kept) = spares
            .into_iter()
            .partition::<Vec<_>, _>(|spare| is_other(&spare.inherited));
        state.spares = kept;
        if zygote.is_some() {
            state.fail(&io::ErrorKind::BrokenPipe.into());
        }
        (zygote, others)
    };
    let mut ended: Vec<Arc<Record>> = Vec::new();
    if let Some(zygote) = zygote {
        zygote.dismiss();
        ended.push(Arc::clone(&zygote.record));
    }
    ended.extend(spares.into_iter().map(Spare::discard));
    let deadline = Instant::now() + ENDING;
    match ended
        .iter()
        .all(|record| record.wait(Some(deadline)).is_some())
    {
        true => Ok(()),
        false => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Ends this process's zygote, and those of its children that wait for a function.
///
/// They have the rights that this process had when they were made. Call it when this process has given up
/// rights, as a daemon that starts as root, and starts no process afterwards: the next one that it starts
/// would end them first. Best give up rights before the first process is started. Children that run a
/// function go on; they have what they were started with.
///
/// The next process that is started may make a zygote again. In a program that has none, nothing happens.
///
/// # Blocking
///
/// Waits until they have ended, which takes about a millisecond, and five seconds at most.
///
/// # Errors
///
/// `TimedOut` if one has not ended by then, for it is stopped and may not be killed by this process any
/// more. It ends when it goes on.
///
/// # Examples
///
/// ```
/// use multiproc::Process;
///
/// Process::spawn(|| (), ())?.join()?;
/// // Here the program gives up its rights, by `setresuid` and the like.
/// multiproc::end_zygote()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn end_zygote() -> io::Result<()> {
    if kin::forked() {
        // They are the original's.
        return Ok(());
    }
    end(None)
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
            if state.answered != state.asked {
                let asked = state.asked;
                drop(state);
                let answer = Credentials::now().ok();
                state = self.state();
                (state.answered, state.answer) = (asked, answer);
                self.changed.notify_all();
                continue;
            }
            let zygote = state.zygote.clone();
            match zygote {
                None if state.wanted => {
                    let endings = state.endings;
                    drop(state);
                    let made = make();
                    state = self.state();
                    state.wanted = false;
                    match made {
                        Ok(zygote) if endings != state.endings => {
                            zygote.dismiss();
                            state.fail(&io::ErrorKind::BrokenPipe.into());
                        }
                        // It may have ended by now.
                        Ok(zygote) if zygote.record.how().is_none() => {
                            state.zygote = Some(zygote);
                            state.lost = 0;
                        }
                        Ok(_) => state.fail(&io::ErrorKind::BrokenPipe.into()),
                        Err(error) => state.fail(&error),
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
                        Ok(spare) => _ = spare.discard(),
                        Err(error) => {
                            state.fail(&error);
                            if state.refused.is_some() {
                                // It is of no use to anybody.
                                zygote.dismiss();
                                state
                                    .zygote
                                    .take_if(|current| Arc::ptr_eq(current, &zygote));
                            }
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

    /// Whether the keeper's thread has those credentials now, which means that the whole process has them.
    fn has(&self, mut state: MutexGuard<'_, State>, credentials: &Credentials) -> bool {
        state.asked += 1;
        let asked = state.asked;
        self.changed.notify_all();
        // It may be waiting for a zygote that is stopped.
        let waited = self
            .changed
            .wait_timeout_while(state, FORKING + FORKING, |state| state.answered < asked);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out() && state.answer.as_ref() == Some(credentials)
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
        if state.zygote.is_none() && state.refused.is_none() {
            state.want();
        }
        !state.spares.is_empty()
    }

    /// A zygote, a spare or what a spare has become has ended.
    fn forget(&self, pid: u32) {
        let mut state = self.state();
        let before = state.spares.len();
        state.spares.retain(|spare| spare.record.pid != pid);
        state.lost += before - state.spares.len();
        if state.lost >= LOST {
            // Whoever waits has it executed instead.
            state.failures += 1;
        }
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
        self.lost < LOST && self.spares.len() < self.waiting.max(least)
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
                self.lost = 0;
                return Some(spare);
            }
        }
        None
    }

    /// No zygote or no child of it was to be had: nobody waits for it any longer.
    fn fail(&mut self, why: &io::Error) {
        use nix::libc::{EINVAL, ENOSYS, ENOTSUP, EPERM};
        self.failures += 1;
        // The kernel does not do it, or whatever guards this process forbids it: the next would fail as well.
        if let Some(errno @ (EINVAL | ENOSYS | ENOTSUP | EPERM)) = why.raw_os_error() {
            self.refused = Some(errno);
        }
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

    /// Whether anything there was made with other credentials.
    fn has_others(&self, credentials: &Credentials) -> bool {
        let zygote = self.zygote.iter().map(|zygote| &zygote.inherited);
        let mut all = zygote.chain(self.spares.iter().map(|spare| &spare.inherited));
        all.any(|inherited| inherited.credentials != *credentials)
    }
}

impl Spare {
    /// Ends it; the reaper takes its status.
    fn discard(self) -> Arc<Record> {
        // Refused if it has ended, or if it is another user's than this process by now; then it ends because
        // its lifeline is closed.
        let _ = sys::send_signal(self.record.process(), nix::libc::SIGKILL);
        self.record.close();
        self.record
    }
}

impl Inherited {
    /// Whether a thread that has those credentials may be given the child `pid`, which has these. They are the
    /// same as far as the kernel tells.
    fn is_for(&self, credentials: &Credentials, pid: u32) -> bool {
        match self.is_observable {
            true => sys::may_look_into(pid),
            false => !credentials.could_be_restricted(),
        }
    }
}

/// Executes this program as a zygote, and waits until it is ready. On the keeper's thread.
fn make() -> io::Result<Arc<Zygote>> {
    let image = boot::ready().map_err(io::Error::other)?;
    let credentials = Credentials::now()?;
    // Longer variables travel in each child's first word, with all that has changed since.
    let is_short =
        |(key, value): &(OsString, OsString)| key.len() + value.len() <= LONGEST_VARIABLE;
    let environment: Environment = std::env::vars_os().filter(is_short).collect();
    let (line, theirs) = sys::socket_pair()?;
    let place = Place::for_children().map_err(io::Error::other)?;
    let breed = Order::Breed(image.fingerprint);
    control::send(&line, &breed, &[], &place.descriptors())?;
    let mut command = command(theirs);
    command
        .stdout(sys::null_device()?)
        .stderr(sys::null_device()?);
    command.env_clear().envs(environment.iter().cloned());
    command.env(boot::MARK, boot::mark(image));
    let record = execute(command, None)?;
    match hear(&line, BEGINNING) {
        Ok(Birth::Ready) => {}
        Ok(Birth::Refused(errno)) => return Err(io::Error::from_raw_os_error(errno)),
        Ok(Birth::Born(_)) => return Err(io::ErrorKind::InvalidData.into()),
        Err(error) => {
            end_now(&record);
            return Err(error);
        }
    }
    let pid = record.pid;
    let zygote = Arc::new(Zygote {
        record,
        line: Descriptor::keep(line),
        inherited: Arc::new(Inherited {
            credentials,
            environment,
            is_observable: sys::may_look_into(pid),
        }),
    });
    zygote.record.on_exit(move |_| KEEPER.forget(pid));
    Ok(zygote)
}

/// What the zygote says next, within that time.
fn hear(line: impl AsFd, limit: Duration) -> io::Result<Birth> {
    let said = sys::poll_any(&[line.as_fd()], Some(Instant::now() + limit))?;
    said.ok_or(io::ErrorKind::TimedOut)?;
    match control::receive(&line, false)? {
        Some(arrived) => Ok(arrived.head),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

impl Zygote {
    /// A new child, which waits for its first word. On the keeper's thread.
    fn child(&self) -> io::Result<Spare> {
        let (ours, theirs) = sys::socket_pair()?;
        // A pipe to which nothing is ever written: the child ends when this end of it is closed.
        let (their_lifeline, lifeline) = sys::pipe()?;
        let theirs = [theirs, their_lifeline];
        let descriptors = theirs.each_ref().map(AsFd::as_fd);
        let asked = control::send(&self.line, &Another, &[], &descriptors);
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
            record.keep(Arc::new(Descriptor::keep(lifeline)));
            reaper()?.watch(&record)?;
            Ok(record)
        });
        let record = watched.inspect_err(|_| sys::end_child(pid))?;
        record.on_exit(move |_| KEEPER.forget(pid));
        Ok(Spare {
            record,
            inherited: Arc::clone(&self.inherited),
        })
    }

    /// Ends it. Its children go on.
    fn dismiss(&self) {
        // Refused if it has ended, or if it is another user's than this process by now.
        let _ = sys::send_signal(self.record.process(), nix::libc::SIGKILL);
        // It obeys this one as well; if it cannot be told, it is gone.
        let _ = control::send(&self.line, &Another, &[], &[]);
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
