//! This process's place in its tree: its number, its proof of life, and the tree's count of deaths.
//!
//! The first use of the crate in a program makes it the root of a tree: a memfd whose byte locks are the
//! roster, and a page everyone maps. Children are given both at boot and [`adopt`] them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{Mode, SealFlags};

use crate::error::Evicted;
use crate::layout::{HEADER, TreePage};
use crate::mapped::Mapped;
use crate::sync::{AtomicU32, Futex, Ordering, asymmetric};
use crate::sys::{self, Descriptor};

/// What a process knows of its tree.
#[derive(Debug)]
pub(crate) struct Kin {
    me: u32,
    pid: u32,
    /// Held locked at byte `me`. Never given to anyone but a child at boot, never closed.
    roster: Descriptor,
    page_file: Descriptor,
    page: &'static TreePage,
}

static KIN: OnceLock<Kin> = OnceLock::new();
static MAKING: Mutex<()> = Mutex::new(());

/// This process's place in its tree; makes the tree when there is none yet.
///
/// # Errors
///
/// What the kernel said when the root's two small memfds were made; [`Evicted`] when the program has closed
/// them since.
pub(crate) fn kin() -> io::Result<&'static Kin> {
    if let Some(kin) = KIN.get() {
        return kin.check().map(|()| kin);
    }
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kin) = KIN.get() {
        return Ok(kin);
    }
    let roster = sys::memfd("multiproc:roster", 0)?;
    // To open and close the file once more would drop this process's lock on it, its proof of life. So nobody
    // can who is not root: tools, and the program itself, that open everything in `proc/self/fd`.
    rustix::fs::fchmod(&roster, Mode::empty())?;
    let page = sys::memfd("multiproc:tree", PAGE as u64)?;
    sys::allocate(&page, 0, PAGE as u64)?;
    sys::seal(&page, SealFlags::empty())?;
    let kin = enter(roster, page)?;
    Ok(KIN.get_or_init(|| kin))
}

/// Takes the place that the parent has prepared. To be called at boot, before anything else.
///
/// # Errors
///
/// What the kernel said, or that this process has a tree already.
pub(crate) fn adopt(roster: OwnedFd, page: OwnedFd) -> io::Result<()> {
    let kin = enter(roster, page)?;
    KIN.set(kin)
        .map_err(|_| io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Fails when this process has a tree and the program has closed its descriptors.
pub(crate) fn check() -> io::Result<()> {
    KIN.get().map_or(Ok(()), Kin::check)
}

fn enter(roster: OwnedFd, page_file: OwnedFd) -> io::Result<Kin> {
    let roster = Descriptor::new(roster)?;
    let page_file = Descriptor::new(page_file)?;
    let page = page_of(&page_file)?;
    // Numbers are never used twice, so a number in a shared word means one process for ever.
    let mut tries = 0..TRIES;
    let me = loop {
        // Only a process that has locked what is not its own, or has written to the page, makes this fail.
        tries.next().ok_or(rustix::io::Errno::NOLCK)?;
        let me = page.next.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if me != 0 && me < MAX_PARTICIPANT && sys::lock_byte(&roster, u64::from(me))? {
            break me;
        }
    };
    sys::set_fork_mark()?;
    asymmetric();
    Ok(Kin {
        me,
        pid: std::process::id(),
        roster,
        page_file,
        page,
    })
}

/// The tree's page behind its descriptor; it has no header to check, since only kin ever get it.
fn page_of(file: &Descriptor) -> io::Result<&'static TreePage> {
    let length = PAGE as u64;
    let sealed = sys::seals(file).contains(sys::SEALS);
    let exact = rustix::fs::fstat(file)?.st_size == length as i64;
    if !sealed || !exact {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // It stays mapped for the life of the process, like the tree itself.
    Mapped::new(file, PAGE)?
        .part_for_ever(HEADER)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Numbers that a process tries for itself; the first is free unless somebody is hostile.
const TRIES: usize = 1024;

/// Bytes of the file of the tree's page.
const PAGE: usize = HEADER + size_of::<TreePage>();

/// Participant numbers stay below this, so that they fit beside a flag and leave one value to mean nobody.
pub(crate) const MAX_PARTICIPANT: u32 = (1 << 31) - 1;

impl Kin {
    /// My own number.
    pub(crate) fn me(&self) -> u32 {
        #[cfg(fuzzing)]
        if let Some(other) = pretend::who() {
            return other;
        }
        self.me
    }

    /// This process's ID, without asking the system.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether that process is proven dead.
    pub(crate) fn is_dead(&self, participant: u32) -> bool {
        #[cfg(fuzzing)]
        if let Some(dead) = pretend::is_dead(participant) {
            return dead;
        }
        // A probe that fails proves nothing, nor does one of a file that is the program's: asked afterwards,
        // since it may have been closed in between.
        participant != self.me
            && sys::byte_is_held(&self.roster, u64::from(participant), 1).is_ok_and(|held| !held)
            && self.roster.is_intact()
    }

    /// Whether others see this process dead; if so, it must not write to shared memory any more.
    pub(crate) fn is_evicted(&self) -> bool {
        !self.roster.is_intact()
            || sys::byte_is_mine(&self.roster, u64::from(self.me)).is_ok_and(|mine| !mine)
    }

    /// Fails when the program has closed descriptors of this crate.
    ///
    /// Whoever closes what he does not know closes all of it, so these two stand for the others as well, of
    /// which not all can be told from the program's own.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.roster.is_intact() && self.page_file.is_intact() {
            true => Ok(()),
            false => Err(io::Error::other(Evicted)),
        }
    }

    /// What a child must be given to [`adopt`]: the roster and the tree page.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.roster.as_fd(), self.page_file.as_fd()]
    }

    /// The word that goes up with every death in the tree.
    pub(crate) fn deaths(&self) -> &Futex {
        &self.page.deaths
    }

    /// Tells every sleeper in the tree that somebody has died. To be called by whoever reaped a child.
    pub(crate) fn announce_death(&self) {
        // Pairs with the acquire of `deaths` in `signal`: who sees the count sees the byte lock gone.
        self.page.deaths.fetch_add(1, Ordering::Release);
        self.page.deaths.wake(u32::MAX);
    }
}

/// The word that is 0 in a process made by the user's own `fork`, for those who look at it often.
pub(crate) fn fork_mark() -> io::Result<&'static AtomicU32> {
    sys::fork_mark().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Whether this process was made by the user's own `fork`: it may not use what it inherited.
#[inline]
pub(crate) fn forked() -> bool {
    sys::fork_mark_lost()
}

/// For fuzz targets: processes that are not there, all in one thread.
#[cfg(fuzzing)]
pub(crate) mod pretend {
    use std::cell::{Cell, RefCell};
    use std::collections::HashSet;

    /// Numbers from here on are those of processes that are not there.
    const FIRST: u32 = super::MAX_PARTICIPANT / 2;

    thread_local! {
        static WHO: Cell<Option<u32>> = const { Cell::new(None) };
        static DEAD: RefCell<HashSet<u32>> = RefCell::default();
    }

    pub(crate) fn be<R>(process: u32, act: impl FnOnce() -> R) -> R {
        let outer = WHO.replace(Some(FIRST + process));
        let result = act();
        WHO.set(outer);
        result
    }

    pub(crate) fn begin() {
        DEAD.with_borrow_mut(HashSet::clear);
    }

    pub(crate) fn bury(process: u32) {
        DEAD.with_borrow_mut(|dead| dead.insert(FIRST + process));
    }

    pub(super) fn who() -> Option<u32> {
        WHO.get()
    }

    pub(super) fn is_dead(participant: u32) -> Option<bool> {
        (participant >= FIRST).then(|| DEAD.with_borrow(|dead| dead.contains(&participant)))
    }
}
