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

mod place;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;

use crate::error::SegmentError;
use crate::kin::{self, MAX_PARTICIPANT};
use crate::segment::{Attached, Commit, RAW, Segment};
use crate::sync::Ordering;
use crate::sys::{self, Descriptor, Identity};

use self::place::{Place, identity, places};

/// Offset of the byte locks, beyond any file's end.
const ROSTER: u64 = 1 << 48;
/// The maker's participant number; an opener's is above.
const FIRST: u32 = 1;
/// How long to wait for another process that attaches, detaches or removes, where nobody set a time.
const BUSY: Duration = Duration::from_secs(5);

/// The named files this process is attached to. An entry stays until its descriptor is closed.
static ATTACHED: Mutex<Option<Table>> = Mutex::new(None);

/// This process's one descriptor of a named file, and its place in the file's roster.
pub(crate) struct File {
    descriptor: Option<Descriptor>,
    identity: Identity,
    place: Place,
    me: u32,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("name", &self.place.name)
            .field("me", &self.me)
            .finish()
    }
}

impl Attached for File {
    fn me(&self) -> u32 {
        self.me
    }

    fn is_dead(&self, participant: u32) -> bool {
        // As in `Kin::is_dead`: what is asked of another file proves nothing.
        participant != self.me
            && sys::byte_is_held(self.descriptor(), ROSTER + u64::from(participant), 1)
                .is_ok_and(|held| !held)
            && self.descriptor().is_intact()
    }

    fn is_evicted(&self) -> bool {
        !self.descriptor().is_intact()
            || sys::byte_is_mine(self.descriptor(), ROSTER + u64::from(self.me))
                .is_ok_and(|mine| !mine)
    }

    fn descriptor(&self) -> &Descriptor {
        match &self.descriptor {
            Some(descriptor) => descriptor,
            None => unreachable!("a file is closed only when it is dropped"),
        }
    }

    fn name(&self) -> &str {
        &self.place.name
    }

    fn hide(&self) {
        // While this process lives, nobody takes the file away, nor puts another one in its place.
        if self.place.holds(self.identity) {
            self.place.remove();
        }
    }
}

impl Segment {
    /// A segment of `bytes` bytes, all zero, that other programs of this user [`open`](Segment::open) by name.
    ///
    /// # Errors
    ///
    /// As [`new`](Segment::new), and [`SegmentError::BadName`], [`SegmentError::AlreadyExists`] when a living
    /// process has that name, [`SegmentError::Foreign`] when something else stands there,
    /// [`SegmentError::NoFolder`] when there is no folder in memory for names, [`SegmentError::Busy`] when other
    /// processes kept the name busy for 5 s.
    ///
    /// # If a process dies
    ///
    /// The name is free again as soon as no living process has the segment.
    pub fn create(name: &str, bytes: usize) -> Result<Segment, SegmentError> {
        if bytes == 0 {
            return Err(SegmentError::Empty);
        }
        let deadline = patience();
        create(name, RAW, bytes as u64, Commit::All, deadline, |segment| {
            Ok(segment.clone())
        })
    }

    /// The segment that a living process has under that name.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NotFound`], [`SegmentError::BadName`], [`SegmentError::Foreign`], [`SegmentError::Busy`],
    /// [`SegmentError::WrongShape`] when it is a queue, say, and what a damaged header says.
    pub fn open(name: &str) -> Result<Segment, SegmentError> {
        let segment = open(name, patience())?;
        segment.expect(RAW)?;
        Ok(segment)
    }
}

/// When whoever set no time gives up waiting for others.
pub(crate) fn patience() -> Instant {
    Instant::now() + BUSY
}

/// Makes a segment of that name; `init` fills its body, and takes its place in it, before anyone can see it.
///
/// # Errors
///
/// [`SegmentError::AlreadyExists`] when a living process has it, [`SegmentError::Busy`] when others were busy
/// with the name until `deadline`.
pub(crate) fn create<R, E: From<SegmentError>>(
    name: &str,
    shape: &str,
    body: u64,
    commit: Commit,
    deadline: Instant,
    init: impl FnOnce(&Segment) -> Result<R, E>,
) -> Result<R, E> {
    let places = places(name)?;
    let segment = draft(&places, shape, body, commit, deadline)?;
    let made = init(&segment.0)?;
    publish(&places, segment, deadline)?;
    Ok(made)
}

/// A segment that has no name yet, and the file of it.
type Draft = (Segment, Arc<File>);

/// A segment that will have that name, which is free now: in the first folder that has room.
fn draft(
    places: &[Place],
    shape: &str,
    body: u64,
    commit: Commit,
    deadline: Instant,
) -> Result<Draft, SegmentError> {
    begin()?;
    for place in places {
        wait(place, deadline, || free(place))?;
    }
    let mut refusals = Vec::new();
    for place in places {
        match draft_at(place, shape, body, commit) {
            Err(refusal) if place::is_of_folder(&refusal) => refusals.push(refusal),
            other => return other,
        }
    }
    // If there is a folder at all, that it is full says more than that there might have been another.
    let full = |refusal: &SegmentError| matches!(refusal, SegmentError::NoSpace { .. });
    let said = refusals.iter().rposition(full).unwrap_or(0);
    Err(refusals.swap_remove(said))
}

fn draft_at(place: &Place, shape: &str, body: u64, commit: Commit) -> Result<Draft, SegmentError> {
    let descriptor = Descriptor::new(place.draft()?)?;
    let me = FIRST;
    sys::lock_byte(&descriptor, ROSTER + u64::from(me))?;
    let identity = sys::identity(&descriptor)?;
    // Nobody may be told of the file before it is in the table.
    let file = remember(File {
        descriptor: Some(descriptor),
        identity,
        place: place.clone(),
        me,
    });
    let built = Segment::build_named(file.clone(), shape, body, commit);
    let segment = built.map_err(|error| match error {
        SegmentError::Io(error) => place.nowhere(error),
        other => other,
    })?;
    // The maker's number is given away, once and for all.
    segment.participants().store(FIRST, Ordering::Relaxed);
    Ok((segment, file))
}

/// Attaches to the segment of that name.
///
/// # Errors
///
/// [`SegmentError::NotFound`] when no living process has it, [`SegmentError::Foreign`] when something else
/// stands at the name, [`SegmentError::Busy`] when others were busy with it until `deadline`.
pub(crate) fn open(name: &str, deadline: Instant) -> Result<Segment, SegmentError> {
    begin()?;
    for place in places(name)? {
        if let Some(file) = wait(&place, deadline, || attach(&place))? {
            // Outside the table: if the header is refused, the file is dropped, and that needs the table.
            return Segment::attach_named(file);
        }
    }
    Err(SegmentError::NotFound {
        name: name.to_owned(),
    })
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
    let places = places(name)?;
    // Each round that comes to nothing is one in which somebody else made it, or left it.
    loop {
        let deadline = patience();
        match open(name, deadline) {
            Ok(segment) => return join(segment),
            Err(SegmentError::NotFound { .. }) => {}
            Err(other) => return Err(other.into()),
        }
        let segment = match draft(&places, shape, body, commit, deadline) {
            Err(SegmentError::AlreadyExists { .. }) => continue,
            other => other?,
        };
        let made = init(&segment.0)?;
        match publish(&places, segment, deadline) {
            Err(SegmentError::AlreadyExists { .. }) => {}
            other => return other.map(|()| made).map_err(E::from),
        }
    }
}

/// Gives a complete segment its name.
fn publish(
    places: &[Place],
    (_segment, file): Draft,
    deadline: Instant,
) -> Result<(), SegmentError> {
    let (place, descriptor) = (&file.place, file.descriptor());
    descriptor.check()?;
    let source = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
    let path = &*place.path;
    let linked = match rustix::fs::linkat(CWD, source, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        // Without `proc`, those may who may read every file, and on newer kernels whoever has made it.
        Err(Errno::NOENT) => rustix::fs::linkat(descriptor, "", CWD, path, AtFlags::EMPTY_PATH),
        other => other,
    };
    match linked {
        Ok(()) => {}
        Err(Errno::EXIST) => return Err(place.taken()),
        Err(Errno::NOENT) => {
            return Err(place.nowhere("a name is given through /proc, which is not mounted"));
        }
        Err(errno) => return Err(place.nowhere(errno)),
    }
    // Somebody may have made it in the other folder meanwhile, if one of them had no room.
    for other in places.iter().filter(|other| other.path != *path) {
        if let Err(error) = wait(other, deadline, || free(other)) {
            place.remove();
            return Err(error);
        }
    }
    Ok(())
}

/// What every maker and opener does first: a forked copy may not, and the mark that tells one must be set.
fn begin() -> Result<(), SegmentError> {
    if kin::forked() {
        return Err(SegmentError::Forked);
    }
    kin::kin()?;
    Ok(())
}

fn exists(place: &Place) -> SegmentError {
    SegmentError::AlreadyExists {
        name: place.name.clone(),
    }
}

enum Attempt<T> {
    Done(T),
    /// Another process, or thread, is in the middle of something short.
    Busy,
}

/// Tries again while others are in the middle of something short.
fn wait<T>(
    place: &Place,
    deadline: Instant,
    attempt: impl Fn() -> Result<Attempt<T>, SegmentError>,
) -> Result<T, SegmentError> {
    loop {
        match attempt()? {
            Attempt::Done(done) => return Ok(done),
            Attempt::Busy if Instant::now() < deadline => sleep(Duration::from_micros(200)),
            Attempt::Busy => {
                return Err(SegmentError::Busy {
                    name: place.name.clone(),
                });
            }
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
    Others(Descriptor, Identity),
}

fn look_up(attached: &Table, place: &Place) -> Result<Attempt<Found>, SegmentError> {
    let Some(stat) = place.look()? else {
        return Ok(Attempt::Done(Found::Nothing));
    };
    if let Some(known) = attached.get(&identity(&stat)) {
        // If it cannot be had, another thread is closing it and waits for the table.
        let mine = known.upgrade().map(Found::Mine);
        return Ok(mine.map_or(Attempt::Busy, Attempt::Done));
    }
    let Some(descriptor) = place.open()? else {
        return Ok(Attempt::Busy);
    };
    let opened = sys::identity(&descriptor)?;
    if attached.contains_key(&opened) {
        // The path was replaced meanwhile by a file we have: closing this second descriptor would drop
        // our locks, so it is kept as long as the process lives.
        std::mem::forget(descriptor);
        return Ok(Attempt::Busy);
    }
    let descriptor = Descriptor::new(descriptor)?;
    if !sys::lock_byte(&descriptor, ROSTER)? {
        return Ok(Attempt::Busy);
    }
    // Dropping the descriptor on any return below gives the byte back.
    if !place.holds(opened) {
        return Ok(Attempt::Busy);
    }
    if !anybody_lives(&descriptor)? {
        place.remove();
        return Ok(Attempt::Done(Found::Nothing));
    }
    Ok(Attempt::Done(Found::Others(descriptor, opened)))
}

/// Attaches to what stands there; `None` if nothing does.
fn attach(place: &Place) -> Result<Attempt<Option<Arc<File>>>, SegmentError> {
    let mut attached = ATTACHED.lock().unwrap_or_else(PoisonError::into_inner);
    let attached = attached.get_or_insert_default();
    let (descriptor, identity) = match look_up(attached, place)? {
        Attempt::Busy => return Ok(Attempt::Busy),
        Attempt::Done(Found::Mine(file)) => return Ok(Attempt::Done(Some(file))),
        Attempt::Done(Found::Nothing) => return Ok(Attempt::Done(None)),
        Attempt::Done(Found::Others(descriptor, identity)) => (descriptor, identity),
    };
    let me = enter(&descriptor)?;
    sys::unlock_byte(&descriptor, ROSTER)?;
    let file = Arc::new(File {
        descriptor: Some(descriptor),
        identity,
        place: place.clone(),
        me,
    });
    attached.insert(identity, Arc::downgrade(&file));
    Ok(Attempt::Done(Some(file)))
}

/// Makes sure that no living process has the name, and that nothing stands there.
fn free(place: &Place) -> Result<Attempt<()>, SegmentError> {
    let mut attached = ATTACHED.lock().unwrap_or_else(PoisonError::into_inner);
    match look_up(attached.get_or_insert_default(), place)? {
        Attempt::Busy => Ok(Attempt::Busy),
        Attempt::Done(Found::Nothing) => Ok(Attempt::Done(())),
        // Whatever its header says, it is in use. Closed before another thread can attach to the same file.
        Attempt::Done(Found::Others(..)) => Err(exists(place)),
        Attempt::Done(Found::Mine(file)) => {
            // If this is the last of it, it needs the table.
            drop(attached);
            drop(file);
            Err(exists(place))
        }
    }
}

/// Takes the next participant number of the file and its byte.
fn enter(descriptor: &Descriptor) -> Result<u32, SegmentError> {
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
        if !self.descriptor().is_intact() {
            return;
        }
        let deadline = Instant::now() + Duration::from_millis(100);
        while let Ok(false) = sys::lock_byte(self.descriptor(), ROSTER) {
            if Instant::now() > deadline {
                // A stale name costs memory until somebody creates or opens it again.
                return;
            }
            sleep(Duration::from_micros(100));
        }
        let alone = anybody_lives(self.descriptor()).is_ok_and(|others| !others);
        if alone && self.place.holds(self.identity) {
            self.place.remove();
        }
    }
}

/// Whether any *other* process holds a participant's byte.
fn anybody_lives(descriptor: &Descriptor) -> io::Result<bool> {
    sys::byte_is_held(descriptor, ROSTER + 1, u64::from(MAX_PARTICIPANT))
}
