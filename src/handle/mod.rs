//! How segments travel: inside messages, from any process of a tree to any other.
//!
//! On the wire a segment is its key (the file's device and inode, and its cookie) and where its sender holds
//! it (process and descriptor). The receiver first asks its own table, so that a segment is mapped once however
//! often it is sent; then it opens the sender's descriptor through `proc`, and believes what arrived: it must be
//! the file of that key, sealed, of its own length, with that cookie. Over a control socket the descriptors
//! themselves travel beside the bytes.
//!
//! A handle lives as long as what carries it (see [`hold`]), and to decode it changes nothing. It means something
//! inside this crate's own codec alone: any other serde format is refused, both ways.
//!
//! A process whose function has returned, or panicked, gives what it still holds to its parent. A receiver that is
//! refused its sender's descriptor, or finds something else there, asks the tree (see `process/road.rs`): its
//! parent, who has the segment or knows in whose branch the sender is. So does one whose sender was killed,
//! and it gets the segment if one of those has it.

mod ends;
mod fd;
mod hold;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::error::{SegmentError, cannot_read};
use crate::kin::{self, Kin};
use crate::named;
use crate::roster::Owner;
use crate::segment::{Key, RAW, Segment};
use crate::sys::{self, Identity};

pub(crate) use self::ends::{End, inherit_ends};
pub use self::fd::Fd;
pub(crate) use self::hold::{Carriage, Legacy, Over, inherit, legacy, look};

/// A segment on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Wire {
    key: Key,
    pid: i32,
    /// The sender's number in the tree.
    from: u32,
    descriptor: i32,
    /// Where the sender holds what it travels for.
    beside: Option<Beside>,
    /// A named segment is found by its name.
    name: Option<String>,
}

/// What a segment travels for, as the sender's descriptor.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Beside {
    Sealed(i32),
    /// A file of the program's, with its device and inode.
    File(i32, Identity),
}

/// What a handle is called among newtype structs. The codec of this crate knows the name and calls [`admit`].
pub(crate) const NAME: &str = "multiproc::Handle";

thread_local! {
    /// Whether the codec has just come to a handle.
    static ADMITTED: Cell<bool> = const { Cell::new(false) };
    /// Whether a handle may name what this process does not have open by that name.
    static NAMES: Cell<bool> = const { Cell::new(false) };
    /// How long the call has in which a handle is read or written.
    static TIME: Cell<Time> = const { Cell::new(Time::Any) };
}

/// Says that what comes next is a handle in a message of this crate: no other format can say so.
#[cold]
pub(crate) fn admit() {
    ADMITTED.set(true);
}

fn is_admitted() -> bool {
    ADMITTED.replace(false)
}

const OUTSIDE: &str = "a handle can travel only inside a message, an argument or a result of this crate, not in \
                       another format such as JSON";

/// Runs `decode`, in which handles may name what this process has not opened itself.
///
/// For what was asked for by name, and for what a parent gives its child. Anybody else could have a plain file
/// mapped here, and shorten it.
pub(crate) fn with_names<R>(allowed: bool, decode: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            NAMES.set(self.0);
        }
    }
    let _restore = Restore(NAMES.replace(allowed));
    decode()
}

/// How long a call has for what is in a message, beyond its own work.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Time {
    /// It has no limit.
    Any,
    AtMost(Duration),
    Until(Instant),
}

/// Runs `act`, in which the tree is asked for no longer than that.
#[inline]
pub(crate) fn in_time<R>(time: Time, act: impl FnOnce() -> R) -> R {
    struct Restore(Time);
    impl Drop for Restore {
        fn drop(&mut self) {
            TIME.set(self.0);
        }
    }
    let _restore = Restore(TIME.replace(time));
    act()
}

/// What is left to the call in which a handle is read or written; `None` if it has no limit.
pub(crate) fn time_left() -> Option<Duration> {
    match TIME.get() {
        Time::Any => None,
        Time::AtMost(time) => Some(time),
        Time::Until(end) => Some(end.saturating_duration_since(Instant::now())),
    }
}

/// How the bytes that hold a handle travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Through shared memory, without descriptors: the sender's process holds the segment ([`Passed::sent`]).
    Ring,
    /// As that, to be decoded by any number of processes, for as long as the [`Passed`] is there.
    Kept,
    /// Over a socket, together with the descriptors ([`Passed::descriptors`]).
    Socket,
}

/// Something reserved for a handle while it travels, such as a lane for a sender.
pub(crate) trait Ticket: Send {
    /// The handle will not be sent after all, or its message is over: what was not taken is given back.
    fn undo(&self);

    /// What says that it is on its way: offset of the owner word in its segment, and that word.
    fn word(&self) -> (u64, Owner);
}

/// A tag for an owner word that is on its way. As good as unique in the tree, where another process may come to
/// answer for it.
pub(crate) fn tag() -> Result<u32, SegmentError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let from = kin::kin()?.me().wrapping_mul(0x9e37_79b1);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(from.wrapping_add(next) & (u32::MAX >> 1))
}

struct Item {
    segment: Segment,
    ticket: Option<Box<dyn Ticket>>,
}

/// The segments named in one encoded message. Dropped, it takes back what was reserved for them and not taken.
pub(crate) struct Passed {
    items: Vec<Item>,
}

/// A segment of any shape, for those who look themselves what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Travelling(pub(crate) Segment);

/// What the message being encoded has named so far. Copied in and out, so that a message without handles
/// costs two stores.
#[derive(Debug, Clone, Copy)]
struct Collecting {
    /// None while no message is being encoded.
    transport: Option<Transport>,
    /// How many of [`ITEMS`], the last ones, are this message's.
    items: usize,
}

thread_local! {
    static COLLECTING: Cell<Collecting> = const {
        Cell::new(Collecting { transport: None, items: 0 })
    };
    /// What [`pass`] adds to.
    /// Without a destructor, so that it is there for the destructors of a thread's other values and at the
    /// program's exit. Nothing leaks: between messages both are empty, and have no memory of their own.
    static ITEMS: RefCell<ManuallyDrop<Vec<Item>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
    /// Segments whose descriptors arrived beside the message being decoded.
    static ARRIVED: RefCell<ManuallyDrop<Vec<Segment>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// Runs `encode` and collects the segments that it named.
#[inline]
pub(crate) fn collect<R>(transport: Transport, encode: impl FnOnce() -> R) -> (R, Passed) {
    let outer = COLLECTING.replace(Collecting {
        transport: Some(transport),
        items: 0,
    });
    let restore = Restore { outer };
    let result = encode();
    (result, restore.finish())
}

/// Puts the outer collection back, also when encoding panics; what was collected is then taken back.
struct Restore {
    outer: Collecting,
}

impl Restore {
    #[inline]
    fn finish(self) -> Passed {
        let passed = self.passed();
        std::mem::forget(self);
        passed
    }

    #[inline]
    fn passed(&self) -> Passed {
        let inner = COLLECTING.replace(self.outer);
        Passed {
            items: match inner.items {
                0 => Vec::new(),
                count => last_items(count),
            },
        }
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.passed();
    }
}

#[cold]
fn last_items(count: usize) -> Vec<Item> {
    ITEMS.with_borrow_mut(|items| match items.len().saturating_sub(count) {
        // With its memory, which nobody would give back when the thread ends.
        0 => std::mem::take(&mut **items),
        outer => items.split_off(outer),
    })
}

/// Whether what is being encoded goes to one process, which an end then moves to; else it stays, and others come.
pub(crate) fn moves() -> bool {
    COLLECTING.get().transport != Some(Transport::Kept)
}

/// Names a segment in the message being encoded.
fn pass(segment: &Segment, ticket: Option<Box<dyn Ticket>>) -> Result<Wire, &'static str> {
    let item = Item {
        segment: segment.clone(),
        ticket,
    };
    // What is refused gives back what was reserved for it.
    let refused = |item| {
        drop(Passed { items: vec![item] });
    };
    let is_admitted = is_admitted();
    let from = kin::kin().map_or(0, Kin::me);
    if kin::forked() {
        refused(item);
        return Err(
            "this process was forked by the user; handles of its parent cannot be sent from here",
        );
    }
    let collecting = COLLECTING.get();
    if !is_admitted || collecting.transport.is_none() {
        refused(item);
        return Err(OUTSIDE);
    }
    let beside = item.segment.check_descriptor().ok();
    let Some(beside) = beside.and_then(|()| beside_of(&item.segment).ok()) else {
        // Its number may lead to a file of the program's, which is not for others.
        refused(item);
        return Err(crate::error::EVICTED);
    };
    if collecting.transport != Some(Transport::Socket) {
        // Before it is published: who cannot open it asks for it.
        if let Some(road) = ROAD.get() {
            (road.announce)();
        }
    }
    ITEMS.with_borrow_mut(|items| items.push(item));
    COLLECTING.set(Collecting {
        items: collecting.items + 1,
        ..collecting
    });
    Ok(Wire {
        key: segment.key(),
        pid: std::process::id() as i32,
        from,
        descriptor: segment.file().as_raw_fd(),
        beside,
        name: segment.name().map(str::to_owned),
    })
}

fn beside_of(segment: &Segment) -> io::Result<Option<Beside>> {
    let number = |file: BorrowedFd<'_>| file.as_raw_fd();
    if let Some(file) = segment.file_beside() {
        let identity = sys::identity(file)?;
        return Ok(Some(Beside::File(number(file.as_fd()), identity)));
    }
    let sealed = segment.sealed().map(AsFd::as_fd);
    Ok(sealed.map(number).map(Beside::Sealed))
}

/// A segment inside a handle, with what is reserved for it.
struct Going<'a> {
    segment: &'a Segment,
    ticket: &'a Cell<Option<Box<dyn Ticket>>>,
}

impl Serialize for Going<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        pass(self.segment, self.ticket.take())
            .map_err(ser::Error::custom)?
            .serialize(serializer)
    }
}

/// A segment that is serialized as a handle together with what is reserved in it, once.
pub(crate) struct Moved<'a> {
    segment: &'a Segment,
    ticket: Cell<Option<Box<dyn Ticket>>>,
}

impl<'a> Moved<'a> {
    pub(crate) fn new(segment: &'a Segment, ticket: impl Ticket + 'static) -> Moved<'a> {
        Moved {
            segment,
            ticket: Cell::new(Some(Box::new(ticket))),
        }
    }
}

impl Serialize for Moved<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let going = Going {
            segment: self.segment,
            ticket: &self.ticket,
        };
        serializer.serialize_newtype_struct(NAME, &going)
    }
}

impl Drop for Moved<'_> {
    fn drop(&mut self) {
        // Still here: a format that does not serialize what it is given. Nothing else will give it back.
        if let Some(ticket) = self.ticket.take() {
            ticket.undo();
        }
    }
}

/// Serializes a segment as a handle.
pub(crate) fn serialize<S: Serializer>(
    segment: &Segment,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let ticket = Cell::new(None);
    let going = Going {
        segment,
        ticket: &ticket,
    };
    serializer.serialize_newtype_struct(NAME, &going)
}

/// The segment of a handle, whatever it holds.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Segment, D::Error> {
    struct Handle;

    impl<'de> de::Visitor<'de> for Handle {
        type Value = Segment;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a handle in a message of this crate")
        }

        fn visit_newtype_struct<D: Deserializer<'de>>(
            self,
            deserializer: D,
        ) -> Result<Segment, D::Error> {
            match is_admitted() {
                true => take(Wire::deserialize(deserializer)?).map_err(cannot_read),
                false => Err(de::Error::custom(OUTSIDE)),
            }
        }
    }

    deserializer.deserialize_newtype_struct(NAME, Handle)
}

impl Serialize for Travelling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Travelling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Travelling)
    }
}

impl Serialize for Segment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Segment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let segment = deserialize(deserializer)?;
        // Its words would be those of a lock, a queue or whatever else it holds.
        segment.expect(RAW).map_err(cannot_read)?;
        Ok(segment)
    }
}

/// Runs `decode` with the descriptors that arrived beside its bytes.
pub(crate) fn with_descriptors<R>(
    files: Vec<OwnedFd>,
    decode: impl FnOnce() -> R,
) -> Result<R, SegmentError> {
    let segments = Segment::attach_all(files)?;
    let outer = ARRIVED.with_borrow_mut(|arrived| std::mem::replace(&mut **arrived, segments));
    let result = decode();
    let segments = ARRIVED.with_borrow_mut(|arrived| std::mem::replace(&mut **arrived, outer));
    drop(segments);
    Ok(result)
}

fn take(wire: Wire) -> Result<Segment, SegmentError> {
    // A copy of a process would take what was sent to the process itself.
    if kin::forked() {
        return Err(SegmentError::Forked);
    }
    match Segment::known(&wire.key) {
        Some(known) => Ok(known),
        None => open(&wire),
    }
}

/// How long another process may be busy with a named segment whose handle has arrived.
const BUSY: Duration = Duration::from_millis(10);

fn open(wire: &Wire) -> Result<Segment, SegmentError> {
    if let Some(name) = &wire.name {
        if !NAMES.get() {
            return Err(SegmentError::NotOpen { name: name.clone() });
        }
        // Whoever sent it may be keeping the file busy, and the call that decodes may have a limit.
        let segment = named::open(name, Instant::now() + BUSY)?;
        let same = segment.key() == wire.key;
        return if same {
            Ok(segment)
        } else {
            Err(SegmentError::Gone { pid: wire.pid })
        };
    }
    let (open, last): (fn(&Wire) -> _, _) = match wire.beside {
        Some(Beside::File(..)) => (take_directly, &REFUSED_FILES),
        _ => (open_directly, &REFUSED),
    };
    let refused = match last.load(Ordering::Relaxed) {
        0 => match open(wire) {
            Err(SegmentError::Gone { .. }) => 0,
            Err(SegmentError::Refused { errno, .. }) => errno.raw_os_error().unwrap_or(0),
            other => return other,
        },
        errno => errno,
    };
    // Once refused, always refused, as a rule: the next goes the other way at once.
    last.store(refused, Ordering::Relaxed);
    let wanted = Wanted {
        key: wire.key,
        from: wire.from,
    };
    let fetched = match ROAD.get() {
        Some(road) => (road.fetch)(&wanted),
        None => Err(NotFetched::Nobody),
    };
    match fetched {
        Ok(files) => {
            let mut files = files.into_iter();
            let file = files.next().ok_or(SegmentError::NotASegment)?;
            Segment::attach(file, files.next(), &wire.key)
        }
        Err(NotFetched::Io(error)) => Err(SegmentError::from_io(error, 0)),
        Err(NotFetched::Nobody) if refused == 0 => Err(SegmentError::Gone { pid: wire.pid }),
        Err(why) => Err(SegmentError::Refused {
            pid: wire.pid,
            errno: io::Error::from_raw_os_error(match refused {
                0 => nix::libc::ESRCH,
                errno => errno,
            }),
            others: match why {
                NotFetched::NoAnswer => "gave no answer in time",
                _ => "do not have it",
            },
        }),
    }
}

/// The way by the tree, where there is one.
struct Road {
    fetch: fn(&Wanted) -> Result<Vec<OwnedFd>, NotFetched>,
    announce: fn(),
}

static ROAD: OnceLock<Road> = OnceLock::new();
/// Why the direct way was refused last; 0 if it was not.
static REFUSED: AtomicI32 = AtomicI32::new(0);
/// The same of files of the program's, for which the system asks more.
static REFUSED_FILES: AtomicI32 = AtomicI32::new(0);

/// What the tree is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) key: Key,
    /// Who has sent it.
    pub(crate) from: u32,
}

/// Why the tree did not give it.
#[derive(Debug)]
pub(crate) enum NotFetched {
    Nobody,
    NoAnswer,
    Io(io::Error),
}

impl From<io::Error> for NotFetched {
    fn from(error: io::Error) -> NotFetched {
        NotFetched::Io(error)
    }
}

/// Says how the tree is asked, and how it is told that this process sends handles.
pub(crate) fn build_road(fetch: fn(&Wanted) -> Result<Vec<OwnedFd>, NotFetched>, announce: fn()) {
    ROAD.get_or_init(|| Road { fetch, announce });
}

fn open_directly(wire: &Wire) -> Result<Segment, SegmentError> {
    let sealed = match wire.beside {
        Some(Beside::Sealed(sealed)) => Some(open_theirs(wire.pid, sealed, OFlags::RDONLY)?),
        _ => None,
    };
    attach_theirs(wire, sealed)
}

/// Takes the sender's descriptor of a file of the program's, which cannot be opened once more: a socket, a pipe, a
/// place in a file.
fn take_directly(wire: &Wire) -> Result<Segment, SegmentError> {
    let pid = wire.pid;
    let Some(Beside::File(number, identity)) = wire.beside else {
        return Err(SegmentError::NotASegment);
    };
    let explain = |errno| match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => SegmentError::from_io(errno.into(), 0),
        Errno::SRCH | Errno::BADF | Errno::NOENT => SegmentError::Gone { pid },
        errno => SegmentError::Refused {
            pid,
            errno: errno.into(),
            others: "were not asked",
        },
    };
    // By now the number may mean a file that this process may not close. So it is looked at before it is taken.
    let there = rustix::fs::stat(format!("/proc/{pid}/fd/{number}")).map_err(explain)?;
    if (there.st_dev as u64, there.st_ino as u64) != identity {
        return Err(SegmentError::Gone { pid });
    }
    Segment::check_not_ours(identity)?;
    let file = sys::take_descriptor(pid, number).map_err(explain)?;
    // The sender closes the segment before the file: if that is there still, what was taken is the file.
    attach_theirs(wire, Some(file))
}

/// The segment that the sender holds, with what it travels for.
fn attach_theirs(wire: &Wire, beside: Option<OwnedFd>) -> Result<Segment, SegmentError> {
    let pid = wire.pid;
    let file = open_theirs(pid, wire.descriptor, OFlags::RDWR)?;
    match Segment::attach(file, beside, &wire.key) {
        Err(
            SegmentError::NotASegment | SegmentError::Unsealed | SegmentError::Truncated { .. },
        ) => Err(SegmentError::Gone { pid }),
        other => other,
    }
}

/// What the links of descriptors of files in memory start with, if they are of this crate.
const MEMORY: &[u8] = b"/memfd:multiproc:";
const ROSTER: &[u8] = b"/memfd:multiproc:roster";

/// Opens what another process holds as that descriptor.
fn open_theirs(pid: i32, descriptor: i32, access: OFlags) -> Result<OwnedFd, SegmentError> {
    let refused = |errno: Errno| SegmentError::Refused {
        pid,
        errno: errno.into(),
        others: "were not asked",
    };
    let explain = |errno| match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => SegmentError::from_io(errno.into(), 0),
        Errno::ACCESS | Errno::PERM => refused(errno),
        Errno::NOENT if rustix::fs::stat("/proc/self/fd").is_err() => refused(errno),
        _ => SegmentError::Gone { pid },
    };
    // The numbers may mean another file by now. So it is first held without being opened: to open and close
    // a file on which this process has a lock, a roster, would drop that lock, which is its proof of life.
    let theirs = format!("/proc/{pid}/fd/{descriptor}");
    let held = rustix::fs::open(theirs, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let held = held.map_err(explain)?;
    let ours = format!("/proc/self/fd/{}", held.as_raw_fd());
    let name = rustix::fs::readlink(&*ours, Vec::new()).map_err(explain)?;
    if !name.to_bytes().starts_with(MEMORY) || name.to_bytes().starts_with(ROSTER) {
        return Err(SegmentError::Gone { pid });
    }
    let flags = access | OFlags::CLOEXEC;
    rustix::fs::open(ours, flags, Mode::empty()).map_err(explain)
}

impl Passed {
    fn of(items: Vec<Item>) -> Passed {
        Passed { items }
    }

    /// Whether the message names no segment at all.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The message has been published in shared memory: everything it names is held until it is over.
    #[inline]
    pub(crate) fn sent(self, carriage: impl FnOnce() -> Carriage) {
        if !self.is_empty() {
            hold::hold(carriage(), self);
        }
    }

    /// The message is in the receiver's hands: nothing that was reserved is given back any more.
    pub(crate) fn forget(mut self) {
        for item in &mut self.items {
            item.ticket = None;
        }
    }

    /// The descriptors that must travel beside the bytes: of each segment once, followed by that of what it
    /// travels for.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut found = Vec::new();
        let mut descriptors = Vec::new();
        for Item { segment, .. } in &self.items {
            let by_name = segment.name().is_some();
            if !by_name && !found.contains(&segment.key()) {
                found.push(segment.key());
                descriptors.extend(segment.descriptors());
            }
        }
        descriptors
    }
}

impl Drop for Passed {
    #[inline]
    fn drop(&mut self) {
        for item in &self.items {
            if let Some(ticket) = &item.ticket {
                ticket.undo();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use rustix::fs::SealFlags;

    use super::*;
    use crate::sys;

    #[test]
    fn descriptors_of_what_is_no_segment_are_refused() {
        let whole = Segment::new(64).unwrap();
        let mut bytes = vec![0; whole.len() + crate::layout::HEADER];
        let file = File::from(whole.file().try_clone_to_owned().unwrap());
        file.read_exact_at(&mut bytes, 0).unwrap();
        let file = |bytes: &[u8], sealed: bool| {
            let file = sys::memfd("multiproc:test", bytes.len() as u64).unwrap();
            let file = File::from(file);
            file.write_all_at(bytes, 0).unwrap();
            let file = OwnedFd::from(file);
            if sealed {
                sys::seal(&file, SealFlags::empty()).unwrap();
            }
            file
        };
        let attach = |file: OwnedFd| with_descriptors(vec![file], || ());
        attach(file(&bytes, true)).unwrap();
        let refused = |file: OwnedFd| attach(file).unwrap_err();
        let changed = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            file(&bytes, true)
        };
        assert!(matches!(
            refused(file(&bytes, false)),
            SegmentError::Unsealed
        ));
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        assert!(matches!(refused(pipe), SegmentError::Unsealed));
        assert!(matches!(
            refused(file(&[0; 4096], true)),
            SegmentError::NotASegment
        ));
        assert!(matches!(refused(changed(0)), SegmentError::NotASegment));
        assert!(matches!(
            refused(changed(8)),
            SegmentError::WrongVersion { .. }
        ));
        assert!(matches!(
            refused(changed(16)),
            SegmentError::Truncated { .. }
        ));
        for short in [0, 1, bytes.len() - 1] {
            let error = refused(file(&bytes[..short], true));
            assert!(matches!(error, SegmentError::Truncated { .. }), "{error}");
        }
    }

    #[test]
    fn what_has_holes_is_refused() {
        use crate::layout::{HEADER, sealed_header};

        let whole = Segment::new(1 << 20).unwrap();
        let mut header = [0; HEADER];
        let file = File::from(whole.file().try_clone_to_owned().unwrap());
        file.read_exact_at(&mut header, 0).unwrap();
        let length = (whole.len() + HEADER) as u64;
        let sparse = File::from(sys::memfd("multiproc:test", length).unwrap());
        sparse.write_all_at(&header, 0).unwrap();
        sys::seal(&sparse, SealFlags::empty()).unwrap();
        let key = Key::of(&sparse, whole.key().cookie).unwrap();
        let segment = Segment::attach(sparse.into(), None, &key).unwrap();
        let refused = segment.expect(RAW);
        assert!(matches!(refused, Err(SegmentError::Sparse { .. })));
        whole.expect(RAW).unwrap();

        let sparse = File::from(sys::memfd("multiproc:test", 1 << 30).unwrap());
        let header = sealed_header(1 << 30, [1, 2]);
        sparse
            .write_all_at(bytemuck::cast_slice(&header), 0)
            .unwrap();
        sys::seal_against_writing(&sparse).unwrap();
        let refused = crate::sealed::Sealed::open(sparse.into(), [1, 2]);
        assert!(matches!(refused, Err(SegmentError::Sparse { .. })));
    }

    #[test]
    fn a_copied_cookie_names_nothing_of_ours() {
        let ours = Segment::new(64).unwrap();
        let mut bytes = vec![0; ours.len() + crate::layout::HEADER];
        let file = File::from(ours.file().try_clone_to_owned().unwrap());
        file.read_exact_at(&mut bytes, 0).unwrap();
        let copy = File::from(sys::memfd("multiproc:test", bytes.len() as u64).unwrap());
        copy.write_all_at(&bytes, 0).unwrap();
        sys::seal(&copy, SealFlags::empty()).unwrap();
        let key = Key::of(&copy, ours.key().cookie).unwrap();
        let theirs = with_descriptors(vec![copy.into()], || Segment::known(&key)).unwrap();
        let theirs = theirs.unwrap();
        theirs.words()[0].store(1, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(
            ours.words()[0].load(std::sync::atomic::Ordering::Relaxed),
            0
        );
        assert_ne!(theirs.key(), ours.key());
    }

    #[test]
    fn a_roster_sent_as_a_file_costs_nobody_the_proof_of_life() {
        let kin = kin::kin().unwrap();
        for kept in kin.descriptors() {
            let copy = kept.try_clone_to_owned().unwrap();
            let forged = ManuallyDrop::new(Segment::build_for_file(copy).unwrap());
            let passed = Passed::of(vec![Item {
                segment: Segment::clone(&forged),
                ticket: None,
            }]);
            let files = passed.descriptors().into_iter();
            let files = files.map(|file| file.try_clone_to_owned().unwrap());
            let refused = with_descriptors(files.collect(), || ());
            assert!(matches!(refused, Err(SegmentError::Corrupt(_))));
            let wire = Wire {
                // Not in this process's own table.
                key: Key::of(forged.file(), [3, 4]).unwrap(),
                pid: std::process::id() as i32,
                from: kin.me(),
                descriptor: forged.file().as_raw_fd(),
                beside: beside_of(&forged).unwrap(),
                name: None,
            };
            assert!(matches!(take(wire), Err(SegmentError::Corrupt(_))));
            assert!(!kin.is_evicted());
        }
    }

    #[test]
    fn a_number_that_means_the_roster_by_now_costs_nobody_the_proof_of_life() {
        let kin = kin::kin().unwrap();
        let [roster, page] = kin.descriptors();
        for file in [roster, page] {
            let wire = Wire {
                key: Key::of(file, [1, 2]).unwrap(),
                pid: std::process::id() as i32,
                from: kin.me(),
                descriptor: file.as_raw_fd(),
                beside: None,
                name: None,
            };
            let gone = SegmentError::Gone { pid: wire.pid };
            assert_eq!(take(wire).unwrap_err().to_string(), gone.to_string());
            assert!(!kin.is_evicted());
        }
    }
}
