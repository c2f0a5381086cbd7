//! The road by the tree: how a segment is fetched where the system does not let its receiver open it.
//!
//! As a rule a receiver opens its sender's descriptor through `proc`. The system refuses that where one may not trace
//! the other: other rights, another user, a process that is not dumpable, Landlock, another user namespace; and there may
//! be no `proc`. Then the receiver asks the tree. Each process that has children has an *inbox*, a socket whose sending
//! end every child is given when it starts; a process that sends handles has one too, and tells its parent, which
//! tells its own.
//!
//! A request carries a socket for the answer. Whoever has the segment sends its descriptors there; anybody else sends the
//! request on, with that same socket: down to the child in whose branch the sender is, or else up to its own parent. So
//! nobody waits but the one who asks, and that for [`LIMIT`] at most, or for as long as is left to the call that asks.
//!
//! A segment is asked for by its key, in which 128 bits are random: who knows them was given them.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::control;
use crate::handle::{self, NotFetched, Wanted};
use crate::kin;
use crate::segment::Segment;
use crate::sys;

/// How long a request may take, whoever is stopped on its way.
const LIMIT: Duration = Duration::from_secs(2);
/// How long it may take also in a call that has no time left: a message with handles is worth that much, for it is gone
/// if they are not there. A tree in which nobody is stopped answers in a hundredth of that.
const LEAST: Duration = Duration::from_millis(100);
/// When to ask again of a process that has just ended: its parent has what it left as soon as it has heard of the end.
const PAUSES: [u64; 5] = [1, 5, 20, 100, 200];
/// How long the parent may take to hear of that.
const JUST: Duration = Duration::from_millis(300);

/// What comes into an inbox.
#[derive(Debug, Serialize, Deserialize)]
enum Letter {
    /// Who has it sends it to the descriptor that comes with this.
    Fetch {
        wanted: Wanted,
        /// It came from above, and does not go there again.
        down: bool,
    },
    /// The process of that number is in the branch whose inbox is the first descriptor. The second is to be told
    /// when all above know.
    Serves(u32),
}

/// What is said to who asks.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// So many descriptors come with this.
    Found(u32),
    /// Its sender has just ended: its parent may have it in a moment.
    Later,
    Nobody,
    Known,
}

/// Where letters come in, and the end that others are given.
struct Inbox {
    ours: OwnedFd,
    theirs: OwnedFd,
}

static INBOX: OnceLock<Inbox> = OnceLock::new();
/// The sending end of the parent's inbox.
static PARENT: OnceLock<OwnedFd> = OnceLock::new();
/// Whether the thread is there that reads letters.
static IS_SERVED: AtomicBool = AtomicBool::new(false);

/// The inbox of the branch in which a process is.
struct Branch {
    inbox: Arc<OwnedFd>,
    /// Since when letters do not go there any more.
    ended: Option<Instant>,
}

static BRANCHES: Mutex<Option<HashMap<u32, Branch>>> = Mutex::new(None);

fn inbox() -> io::Result<&'static Inbox> {
    if let Some(inbox) = INBOX.get() {
        return Ok(inbox);
    }
    let (ours, theirs) = sys::socket_pair()?;
    handle::build_road(fetch, announce);
    Ok(INBOX.get_or_init(|| Inbox { ours, theirs }))
}

/// The end of this process's inbox that a child is given.
pub(super) fn for_children() -> io::Result<BorrowedFd<'static>> {
    Ok(inbox()?.theirs.as_fd())
}

/// Where letters come in, to be watched; they are read by [`serve`].
pub(super) fn letters() -> io::Result<BorrowedFd<'static>> {
    Ok(inbox()?.ours.as_fd())
}

/// Takes the sending end of the parent's inbox.
pub(super) fn take_parent(inbox: OwnedFd) {
    PARENT.get_or_init(|| inbox);
    handle::build_road(fetch, announce);
}

/// Has letters read from now on, by a thread of their own.
pub(super) fn serve() -> io::Result<()> {
    if IS_SERVED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let inbox = inbox()?;
    let read = || {
        sys::block_signals();
        loop {
            // Refused when there is no memory for a wait; then it is tried again.
            if !matches!(sys::poll_any(&[inbox.ours.as_fd()], None), Ok(Some(_))) {
                sleep(Duration::from_millis(1));
                continue;
            }
            // What is no letter is dropped: who sent it hears that its socket is closed.
            if let Ok(Some(letter)) = control::receive::<Letter>(&inbox.ours, false) {
                let descriptors = letter.descriptors.into_iter();
                match letter.head {
                    Letter::Fetch { wanted, down } => answer(&wanted, down, descriptors),
                    Letter::Serves(number) => note(number, descriptors),
                }
            }
        }
    };
    let spawned = thread::Builder::new()
        .name("multiproc-road".into())
        .stack_size(128 * 1024)
        .spawn(read);
    if spawned.is_err() {
        IS_SERVED.store(false, Ordering::Relaxed);
    }
    spawned.map(drop)
}

/// When the call that asks must have its answer.
fn end() -> Instant {
    let left = handle::time_left().unwrap_or(LIMIT);
    Instant::now() + left.clamp(LEAST, LIMIT)
}

fn say(to: &OwnedFd, answer: &Answer, descriptors: &[BorrowedFd<'_>]) {
    // Who does not hear it has given up.
    let _ = control::send(to, answer, &[], descriptors);
}

/// Answers a request, or sends it on.
fn answer(wanted: &Wanted, down: bool, mut descriptors: impl Iterator<Item = OwnedFd>) {
    let Some(reply) = descriptors.next() else {
        return;
    };
    // Who is attached by a name has one descriptor of the file, which must stay its only one.
    let known = Segment::known(&wanted.key).filter(|segment| !segment.is_named());
    if let Some(segment) = known {
        let descriptors: Vec<_> = segment.descriptors().collect();
        let count = descriptors.len() as u32;
        return say(&reply, &Answer::Found(count), &descriptors);
    }
    let send_on = |to: &OwnedFd, down: bool| {
        let wanted = wanted.clone();
        let letter = Letter::Fetch { wanted, down };
        control::send(to, &letter, &[], &[reply.as_fd()])
    };
    let branch = {
        let branches = BRANCHES.lock().unwrap_or_else(PoisonError::into_inner);
        // Not under the lock: to send may take as long as the other side likes.
        branches
            .as_ref()
            .and_then(|known| known.get(&wanted.from))
            .map(|branch| (Arc::clone(&branch.inbox), branch.ended))
    };
    let told = match branch {
        Some((inbox, ended)) => match send_on(&inbox, true) {
            Ok(()) => None,
            Err(_) if ended.is_none_or(|ended| ended.elapsed() < JUST) => {
                let mut branches = BRANCHES.lock().unwrap_or_else(PoisonError::into_inner);
                let branch = branches
                    .as_mut()
                    .and_then(|known| known.get_mut(&wanted.from));
                if let Some(branch) = branch {
                    branch.ended.get_or_insert_with(Instant::now);
                }
                Some(Answer::Later)
            }
            Err(_) => Some(Answer::Nobody),
        },
        None => match PARENT.get().filter(|_| !down) {
            Some(parent) => send_on(parent, false).is_err().then_some(Answer::Nobody),
            None => Some(Answer::Nobody),
        },
    };
    if let Some(told) = told {
        say(&reply, &told, &[]);
    }
}

/// Notes in whose branch a process is, and tells the parent.
fn note(number: u32, mut descriptors: impl Iterator<Item = OwnedFd>) {
    let (Some(inbox), Some(reply)) = (descriptors.next(), descriptors.next()) else {
        return;
    };
    let Ok(kin) = kin::kin() else { return };
    {
        let mut branches = BRANCHES.lock().unwrap_or_else(PoisonError::into_inner);
        let branches = branches.get_or_insert_default();
        // Those of children's children are kept for as long as somebody may ask for what they left.
        let dead = |number: u32, branch: &mut Branch| {
            kin.is_dead(number) && branch.ended.get_or_insert_with(Instant::now).elapsed() >= JUST
        };
        branches.retain(|number, branch| !dead(*number, branch));
        let branch = Branch {
            inbox: Arc::new(inbox),
            ended: None,
        };
        // Nobody takes the place of another.
        branches.entry(number).or_insert(branch);
    }
    let told = match PARENT.get() {
        None => Err(io::ErrorKind::NotFound.into()),
        Some(parent) => for_children().and_then(|mine| {
            let letter = Letter::Serves(number);
            control::send(parent, &letter, &[], &[mine, reply.as_fd()])
        }),
    };
    if told.is_err() {
        say(&reply, &Answer::Known, &[]);
    }
}

/// Closes the ways to those who have died, whose parents have what they left.
pub(super) fn forget_dead() {
    let mut branches = BRANCHES.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(branches), Ok(kin)) = (&mut *branches, kin::kin()) {
        branches.retain(|number, _| !kin.is_dead(*number));
    }
}

/// Before the first handle is sent through shared memory: tells all above where this process is.
fn announce() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let Some(parent) = PARENT.get() else { return };
        let Ok(kin) = kin::kin() else { return };
        let told = serve().and_then(|()| {
            let (here, there) = sys::socket_pair()?;
            let letter = Letter::Serves(kin.me());
            control::send(parent, &letter, &[], &[for_children()?, there.as_fd()])?;
            drop(there);
            sys::poll_any(&[here.as_fd()], Some(end()))
        });
        // Whoever may open descriptors of this process needs nobody else.
        let _ = told;
    });
}

/// Asks the tree for the descriptors of a segment.
fn fetch(wanted: &Wanted) -> Result<Vec<OwnedFd>, NotFetched> {
    let mine = INBOX.get().map(|inbox| &inbox.theirs);
    let Some(first) = mine.or(PARENT.get()) else {
        return Err(NotFetched::Nobody);
    };
    let end = end();
    let mut pauses = PAUSES.iter();
    let mut pause = || match pauses.next().map(|pause| Duration::from_millis(*pause)) {
        Some(pause) if Instant::now() + pause < end => {
            sleep(pause);
            Ok(())
        }
        _ => Err(NotFetched::Nobody),
    };
    loop {
        let (here, there) = sys::socket_pair()?;
        let letter = Letter::Fetch {
            wanted: wanted.clone(),
            down: false,
        };
        match control::send(first, &letter, &[], &[there.as_fd()]) {
            // Others ask as well.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                sleep(Duration::from_millis(1));
                continue;
            }
            Err(_) => return Err(NotFetched::Nobody),
            Ok(()) => {}
        }
        drop(there);
        if sys::poll_any(&[here.as_fd()], Some(end))?.is_none() {
            return Err(NotFetched::NoAnswer);
        }
        let arrived = control::receive::<Answer>(&here, false)?;
        let Some(arrived) = arrived else {
            // Whoever had the request has ended with it unread: as with a request that did not reach it.
            pause()?;
            continue;
        };
        match arrived.head {
            Answer::Found(count) if arrived.descriptors.len() < count as usize => {
                // What there was no room for the system has dropped.
                return Err(io::Error::from_raw_os_error(nix::libc::EMFILE).into());
            }
            Answer::Found(_) => return Ok(arrived.descriptors),
            Answer::Later => pause()?,
            Answer::Nobody | Answer::Known => return Err(NotFetched::Nobody),
        }
    }
}
