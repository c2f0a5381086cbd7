//! Segments that unrelated programs of one user find by name.
//!
//! A named segment is a file in memory. It is built without a name and linked when it is complete, so
//! nobody ever sees half of one. Its roster is the file itself: participant *n* holds the byte lock at
//! [`ROSTER`] + *n*, far beyond the file's end, and the kernel drops it at death. A name nobody living holds
//! is free: the next `create` removes it, and `open` does not find it.
//!
//! Whoever attaches, detaches or removes holds the byte at [`ROSTER`] itself meanwhile, so that nobody
//! attaches to a file that is being removed. If that process is killed, the kernel lets go for it.
//!
//! Closing *any* descriptor of a file drops all of the process' byte locks on it. So a process opens each
//! named file once, keeps that descriptor while it is attached, and never opens the path again before
//! asking [`ATTACHED`].

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::SegmentError;
use crate::kin::{self, MAX_PARTICIPANT};
use crate::segment::{Attached, Commit, RAW, Segment};
use crate::sync::Ordering;
use crate::sys;

/// Where names live: the machine's file system in memory.
const FOLDER: &str = "/dev/shm";
/// Offset of the byte locks, beyond any file's end.
const ROSTER: u64 = 1 << 48;
/// The maker's participant number; an opener's is above.
const FIRST: u32 = 1;
/// How long to wait for another process that attaches, detaches or removes.
const BUSY: Duration = Duration::from_secs(5);

/// A file is known by device and inode, never by its path.
type Identity = (u64, u64);

/// The named files this process is attached to. An entry stays until its descriptor is closed.
static ATTACHED: Mutex<Option<Table>> = Mutex::new(None);

/// This process's one descriptor of a named file, and its place in the file's roster.
pub(crate) struct File {
    descriptor: Option<OwnedFd>,
    identity: Identity,
    path: String,
    name: String,
    me: u32,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("name", &self.name)
            .field("me", &self.me)
            .finish()
    }
}

impl Attached for File {
    fn me(&self) -> u32 {
        self.me
    }

    fn is_dead(&self, participant: u32) -> bool {
        participant != self.me
            && sys::byte_is_held(self.descriptor(), ROSTER + u64::from(participant), 1)
                .is_ok_and(|held| !held)
    }

    fn is_evicted(&self) -> bool {
        sys::byte_is_mine(self.descriptor(), ROSTER + u64::from(self.me)).is_ok_and(|mine| !mine)
    }

    fn descriptor(&self) -> &OwnedFd {
        match &self.descriptor {
            Some(descriptor) => descriptor,
            None => unreachable!("a file is closed only when it is dropped"),
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn hide(&self) {
        // While this process lives, nobody takes the file away, nor puts another one in its place.
        if self.is_mine() {
            remove(&self.path);
        }
    }
}

impl Segment {
    /// A segment of `bytes` bytes, all zero, that other programs of this user [`open`](Segment::open) by name.
    ///
    /// # Errors
    ///
    /// As [`new`](Segment::new), and [`SegmentError::BadName`], [`SegmentError::AlreadyExists`] when a living
    /// process has that name, [`SegmentError::Foreign`] when something else stands there.
    ///
    /// # If a process dies
    ///
    /// The name is free again as soon as no living process has the segment.
    pub fn create(name: &str, bytes: usize) -> Result<Segment, SegmentError> {
        if bytes == 0 {
            return Err(SegmentError::Empty);
        }
        create(name, RAW, bytes as u64, Commit::All, |segment| {
            Ok(segment.clone())
        })
    }

    /// The segment that a living process has under that name.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NotFound`], [`SegmentError::BadName`], [`SegmentError::Foreign`],
    /// [`SegmentError::WrongShape`] when it is a queue, say, and what a damaged header says.
    pub fn open(name: &str) -> Result<Segment, SegmentError> {
        let segment = open(name)?;
        segment.expect(RAW)?;
        Ok(segment)
    }
}

/// Makes a segment of that name; `init` fills its body, and takes its place in it, before anyone can see it.
///
/// # Errors
///
/// [`SegmentError::AlreadyExists`] when a living process has it.
pub(crate) fn create<R, E: From<SegmentError>>(
    name: &str,
    shape: &str,
    body: u64,
    commit: Commit,
    init: impl FnOnce(&Segment) -> Result<R, E>,
) -> Result<R, E> {
    let path = path_of(name)?;
    let segment = draft(name, &path, shape, body, commit)?;
    let made = init(&segment)?;
    publish(name, &path, &segment)?;
    Ok(made)
}

/// A segment that will have that name, which is free now.
fn draft(
    name: &str,
    path: &str,
    shape: &str,
    body: u64,
    commit: Commit,
) -> Result<Segment, SegmentError> {
    begin()?;
    wait(|| free(name, path))?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(FOLDER, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|e| explain(e.into(), body))?;
    // Whatever the umask says.
    rustix::fs::fchmod(&descriptor, Mode::RUSR | Mode::WUSR).map_err(io::Error::from)?;
    let me = FIRST;
    sys::lock_byte(&descriptor, ROSTER + u64::from(me))?;
    let identity = identity(&rustix::fs::fstat(&descriptor).map_err(io::Error::from)?);
    // Nobody may be told of the file before it is in the table.
    let file = remember(File {
        descriptor: Some(descriptor),
        identity,
        path: path.to_owned(),
        name: name.to_owned(),
        me,
    });
    let segment = Segment::build_named(file, shape, body, commit)?;
    // The maker's number is given away, once and for all.
    segment.participants().store(FIRST, Ordering::Relaxed);
    Ok(segment)
}

/// Attaches to the segment of that name.
///
/// # Errors
///
/// [`SegmentError::NotFound`] when no living process has it, [`SegmentError::Foreign`] when something else
/// stands at the name.
pub(crate) fn open(name: &str) -> Result<Segment, SegmentError> {
    let path = path_of(name)?;
    begin()?;
    let file = wait(|| attach(name, &path))?;
    // Outside the table: if the header is refused, the file is dropped, and that needs the table.
    Segment::attach_named(file)
}

/// Opens the segment of that name and goes on with `join`, or makes it if no living process has it.
pub(crate) fn open_or_create<R, E: From<SegmentError>>(
    name: &str,
    shape: &str,
    body: u64,
    commit: Commit,
    join: impl FnOnce(Segment) -> Result<R, E>,
    init: impl Fn(&Segment) -> Result<R, E>,
) -> Result<R, E> {
    let path = path_of(name)?;
    // Each round that comes to nothing is one in which somebody else made it, or left it.
    loop {
        match open(name) {
            Ok(segment) => return join(segment),
            Err(SegmentError::NotFound { .. }) => {}
            Err(other) => return Err(other.into()),
        }
        let segment = match draft(name, &path, shape, body, commit) {
            Err(SegmentError::AlreadyExists { .. }) => continue,
            other => other?,
        };
        let made = init(&segment)?;
        match publish(name, &path, &segment) {
            Err(SegmentError::AlreadyExists { .. }) => {}
            other => return other.map(|()| made).map_err(E::from),
        }
    }
}

/// Gives a complete segment its name.
fn publish(name: &str, path: &str, segment: &Segment) -> Result<(), SegmentError> {
    let source = format!("/proc/self/fd/{}", segment.file().as_raw_fd());
    match rustix::fs::linkat(CWD, source, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(exists(name)),
        Err(errno) => Err(explain(errno.into(), segment.len() as u64)),
    }
}

/// What every maker and opener does first: a forked copy may not, and the mark that tells one must be set.
fn begin() -> Result<(), SegmentError> {
    if kin::forked() {
        return Err(SegmentError::Forked);
    }
    kin::kin()?;
    Ok(())
}

fn exists(name: &str) -> SegmentError {
    SegmentError::AlreadyExists {
        name: name.to_owned(),
    }
}

enum Attempt<T> {
    Done(T),
    /// Another process, or thread, is in the middle of something short.
    Busy,
}

/// Tries again while others are in the middle of something short.
fn wait<T>(attempt: impl Fn() -> Result<Attempt<T>, SegmentError>) -> Result<T, SegmentError> {
    let deadline = Instant::now() + BUSY;
    loop {
        match attempt()? {
            Attempt::Done(done) => return Ok(done),
            Attempt::Busy if Instant::now() < deadline => sleep(Duration::from_micros(200)),
            Attempt::Busy => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}

type Table = HashMap<Identity, Weak<File>>;

/// What stands at a name.
enum Found {
    /// Nothing, any more: what nobody living had is removed.
    Nothing,
    /// A file this process is attached to.
    Mine(Arc<File>),
    /// A file others are attached to. While its descriptor is open, nobody else attaches, detaches or
    /// removes: it holds the byte at [`ROSTER`].
    Others(OwnedFd, Identity),
}

fn look_up(attached: &Table, name: &str, path: &str) -> Result<Attempt<Found>, SegmentError> {
    let Some(stat) = look_at(name, path)? else {
        return Ok(Attempt::Done(Found::Nothing));
    };
    if let Some(known) = attached.get(&identity(&stat)) {
        // If it cannot be had, another thread is closing it and waits for the table.
        let mine = known.upgrade().map(Found::Mine);
        return Ok(mine.map_or(Attempt::Busy, Attempt::Done));
    }
    let Some(descriptor) = open_file(name, path)? else {
        return Ok(Attempt::Busy);
    };
    let opened = identity(&rustix::fs::fstat(&descriptor).map_err(io::Error::from)?);
    if attached.contains_key(&opened) {
        // The path was replaced meanwhile by a file we have: closing this second descriptor would drop
        // our locks, so it is kept as long as the process lives.
        std::mem::forget(descriptor);
        return Ok(Attempt::Busy);
    }
    if !sys::lock_byte(&descriptor, ROSTER)? {
        return Ok(Attempt::Busy);
    }
    // Dropping the descriptor on any return below gives the byte back.
    if look_at(name, path)?.map(|stat| identity(&stat)) != Some(opened) {
        return Ok(Attempt::Busy);
    }
    if !anybody_lives(&descriptor)? {
        remove(path);
        return Ok(Attempt::Done(Found::Nothing));
    }
    Ok(Attempt::Done(Found::Others(descriptor, opened)))
}

fn attach(name: &str, path: &str) -> Result<Attempt<Arc<File>>, SegmentError> {
    let mut attached = ATTACHED.lock().unwrap_or_else(PoisonError::into_inner);
    let attached = attached.get_or_insert_default();
    let (descriptor, identity) = match look_up(attached, name, path)? {
        Attempt::Busy => return Ok(Attempt::Busy),
        Attempt::Done(Found::Mine(file)) => return Ok(Attempt::Done(file)),
        Attempt::Done(Found::Nothing) => {
            return Err(SegmentError::NotFound {
                name: name.to_owned(),
            });
        }
        Attempt::Done(Found::Others(descriptor, identity)) => (descriptor, identity),
    };
    let me = enter(&descriptor)?;
    sys::unlock_byte(&descriptor, ROSTER)?;
    let file = Arc::new(File {
        descriptor: Some(descriptor),
        identity,
        path: path.to_owned(),
        name: name.to_owned(),
        me,
    });
    attached.insert(identity, Arc::downgrade(&file));
    Ok(Attempt::Done(file))
}

/// Makes sure that no living process has the name, and that nothing stands there.
fn free(name: &str, path: &str) -> Result<Attempt<()>, SegmentError> {
    let mut attached = ATTACHED.lock().unwrap_or_else(PoisonError::into_inner);
    match look_up(attached.get_or_insert_default(), name, path)? {
        Attempt::Busy => Ok(Attempt::Busy),
        Attempt::Done(Found::Nothing) => Ok(Attempt::Done(())),
        // Whatever its header says, it is in use. Closed before another thread can attach to the same file.
        Attempt::Done(Found::Others(..)) => Err(exists(name)),
        Attempt::Done(Found::Mine(file)) => {
            // If this is the last of it, it needs the table.
            drop(attached);
            drop(file);
            Err(exists(name))
        }
    }
}

/// Takes the next participant number of the file and its byte.
fn enter(descriptor: &OwnedFd) -> Result<u32, SegmentError> {
    for _ in 0..1_000 {
        let me = Segment::next_participant(descriptor)?;
        if me > 0 && me < MAX_PARTICIPANT && sys::lock_byte(descriptor, ROSTER + u64::from(me))? {
            return Ok(me);
        }
    }
    Err(crate::error::Corrupt("no participant number of this named segment is free").into())
}

fn remember(file: File) -> Arc<File> {
    let mut attached = ATTACHED.lock().unwrap_or_else(PoisonError::into_inner);
    let identity = file.identity;
    let file = Arc::new(file);
    attached
        .get_or_insert_default()
        .insert(identity, Arc::downgrade(&file));
    file
}

impl Drop for File {
    fn drop(&mut self) {
        // A forked copy has no locks here, and the table may have been locked when it was forked.
        if kin::forked() {
            return;
        }
        let mut attached = ATTACHED.lock().unwrap_or_else(PoisonError::into_inner);
        self.leave();
        // Closing drops the byte locks; only then may this process open the file again.
        self.descriptor = None;
        if let Some(attached) = attached.as_mut() {
            attached.remove(&self.identity);
        }
    }
}

impl File {
    /// Removes the name if nobody else is attached.
    fn leave(&self) {
        let deadline = Instant::now() + Duration::from_millis(100);
        while let Ok(false) = sys::lock_byte(self.descriptor(), ROSTER) {
            if Instant::now() > deadline {
                // A stale name costs memory until somebody creates or opens it again.
                return;
            }
            sleep(Duration::from_micros(100));
        }
        let alone = anybody_lives(self.descriptor()).is_ok_and(|others| !others);
        if alone && self.is_mine() {
            remove(&self.path);
        }
    }

    /// Whether the name leads to this file.
    fn is_mine(&self) -> bool {
        let there = look_at(&self.name, &self.path);
        matches!(there, Ok(Some(stat)) if identity(&stat) == self.identity)
    }
}

fn remove(path: &str) {
    // Gone already is as good.
    let _ = rustix::fs::unlink(path);
}

/// Whether any *other* process holds a participant's byte.
fn anybody_lives(descriptor: &OwnedFd) -> io::Result<bool> {
    sys::byte_is_held(descriptor, ROSTER + 1, u64::from(MAX_PARTICIPANT))
}

/// What stands at the path, checked without opening it: this user's own plain file, or nothing.
fn look_at(name: &str, path: &str) -> Result<Option<Stat>, SegmentError> {
    let stat = match rustix::fs::lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(io::Error::from(errno).into()),
    };
    check(name, &stat)?;
    Ok(Some(stat))
}

fn check(name: &str, stat: &Stat) -> Result<(), SegmentError> {
    let foreign = |why| {
        Err(SegmentError::Foreign {
            name: name.to_owned(),
            why,
        })
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return foreign("not a regular file");
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return foreign("owned by another user");
    }
    if stat.st_nlink > 1 {
        return foreign("linked more than once");
    }
    if stat.st_mode & 0o077 != 0 {
        return foreign("open to other users");
    }
    Ok(())
}

/// Opens the file without ever following a link or waiting; None if it vanished meanwhile.
fn open_file(name: &str, path: &str) -> Result<Option<OwnedFd>, SegmentError> {
    let flags =
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => {
            check(
                name,
                &rustix::fs::fstat(&descriptor).map_err(io::Error::from)?,
            )?;
            Ok(Some(descriptor))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP) => Err(SegmentError::Foreign {
            name: name.to_owned(),
            why: "a symbolic link",
        }),
        Err(errno) => Err(explain(errno.into(), 0)),
    }
}

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

fn explain(error: io::Error, needed: u64) -> SegmentError {
    SegmentError::from_io(error, needed)
}

/// The path of a name, if it is one.
fn path_of(name: &str) -> Result<String, SegmentError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(1..=64).contains(&name.len()) || name.starts_with('.') || !name.bytes().all(allowed) {
        return Err(SegmentError::BadName {
            name: name.to_owned(),
        });
    }
    Ok(format!(
        "{FOLDER}/multiproc-{}-{name}",
        rustix::process::geteuid().as_raw()
    ))
}
