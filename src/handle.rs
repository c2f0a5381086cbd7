//! How segments travel: inside messages, from any process of a tree to any other.
//!
//! On the wire a segment is where its sender holds it (process and descriptor) and its cookie. The
//! receiver first asks its own table, so that a segment is mapped once however often it is sent; then it
//! opens the sender's descriptor through `proc` and checks seals, size and cookie. Over a control socket
//! the descriptors themselves travel beside the bytes.
//!
//! Whoever passes a handle on keeps the segment alive until it has been taken: the segment counts its
//! handles in transit, and the sender's process holds it while that count is above zero. A handle that
//! is lost on its way (its message was in the hands of a process that died) costs the sender's process
//! the memory until it ends, nothing else.
//!
//! A process whose function has returned, or panicked, gives what it still keeps to its parent, which keeps the
//! last of it instead; a receiver that does not find a segment where its handle says looks for it at every process, by the
//! cookie in its name. So does one whose sender was killed, and it finds the segment if anybody else has it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::cookie::{self, Cookie};
use crate::error::SegmentError;
use crate::kin;
use crate::named;
use crate::segment::Segment;
use crate::sync::{AtomicU32, Ordering};
use crate::sys;

/// A segment on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Wire {
    cookie: Cookie,
    pid: i32,
    descriptor: i32,
    /// Whether the sender keeps the segment until this handle is taken.
    kept: bool,
    /// Where the sender holds what is sealed beside it.
    sealed: Option<i32>,
    /// A named segment is found by its name.
    name: Option<String>,
}

/// How the bytes that hold a handle travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Through shared memory, without descriptors: the sender's process must keep the segment.
    Ring,
    /// Over a socket, together with the descriptors ([`Passed::descriptors`]).
    Socket,
}

/// Something reserved for a handle while it travels, such as a lane for a sender.
pub(crate) trait Ticket: Send {
    /// The handle will not be sent after all.
    fn undo(&self);
}

struct Item {
    segment: Segment,
    ticket: Option<Box<dyn Ticket>>,
}

/// The segments named in one encoded message. Dropped, it takes back what was reserved for them.
pub(crate) struct Passed {
    items: Vec<Item>,
    transport: Transport,
}

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
    static ITEMS: RefCell<Vec<Item>> = const { RefCell::new(Vec::new()) };
    /// Segments whose descriptors arrived beside the message being decoded.
    static ARRIVED: RefCell<Vec<Segment>> = const { RefCell::new(Vec::new()) };
}

/// Runs `encode` and collects the segments that it named.
#[inline]
pub(crate) fn collect<R>(transport: Transport, encode: impl FnOnce() -> R) -> (R, Passed) {
    let outer = COLLECTING.replace(Collecting {
        transport: Some(transport),
        items: 0,
    });
    let restore = Restore { outer, transport };
    let result = encode();
    (result, restore.finish())
}

/// Puts the outer collection back, also when encoding panics; what was collected is then taken back.
struct Restore {
    outer: Collecting,
    transport: Transport,
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
            transport: self.transport,
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
    ITEMS.with_borrow_mut(|items| items.split_off(items.len().saturating_sub(count)))
}

/// Names a segment in the message being encoded; to be called from `Serialize`.
fn pass(segment: &Segment, ticket: Option<Box<dyn Ticket>>) -> Result<Wire, &'static str> {
    if kin::forked() {
        return Err(
            "this process was forked by the user; handles of its parent cannot be sent from here",
        );
    }
    let collecting = COLLECTING.get();
    let Some(transport) = collecting.transport else {
        if let Some(ticket) = ticket {
            ticket.undo();
        }
        return Err(
            "a handle can travel only inside a message, an argument or a result of this crate",
        );
    };
    let kept = transport == Transport::Ring;
    if kept {
        segment.in_transit().fetch_add(1, Ordering::Relaxed);
    }
    let item = Item {
        segment: segment.clone(),
        ticket,
    };
    ITEMS.with_borrow_mut(|items| items.push(item));
    COLLECTING.set(Collecting {
        items: collecting.items + 1,
        ..collecting
    });
    Ok(Wire {
        cookie: segment.cookie(),
        pid: std::process::id() as i32,
        descriptor: segment.file().as_raw_fd(),
        kept,
        sealed: segment.sealed().map(|sealed| sealed.as_fd().as_raw_fd()),
        name: segment.name().map(str::to_owned),
    })
}

/// Serializes a segment, and what is reserved for it, as a handle.
pub(crate) fn serialize<S: Serializer>(
    segment: &Segment,
    ticket: Option<Box<dyn Ticket>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    pass(segment, ticket)
        .map_err(ser::Error::custom)?
        .serialize(serializer)
}

/// The segment of a handle.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Segment, D::Error> {
    take(Wire::deserialize(deserializer)?).map_err(de::Error::custom)
}

impl Serialize for Segment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self, None, serializer)
    }
}

impl<'de> Deserialize<'de> for Segment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

/// Runs `decode` with the descriptors that arrived beside its bytes.
pub(crate) fn with_descriptors<R>(
    files: Vec<OwnedFd>,
    decode: impl FnOnce() -> R,
) -> Result<R, SegmentError> {
    let segments = Segment::attach_all(files)?;
    let outer = ARRIVED.with(|cell| cell.replace(segments));
    let result = decode();
    ARRIVED.with(|cell| cell.replace(outer));
    Ok(result)
}

fn take(wire: Wire) -> Result<Segment, SegmentError> {
    let segment = match Segment::known(wire.cookie) {
        Some(known) => known,
        None => open(&wire)?,
    };
    if wire.kept {
        count_down(segment.in_transit());
    }
    Ok(segment)
}

fn open(wire: &Wire) -> Result<Segment, SegmentError> {
    if let Some(name) = &wire.name {
        let segment = named::open(name)?;
        let same = segment.cookie() == wire.cookie;
        return if same {
            Ok(segment)
        } else {
            Err(SegmentError::Gone { pid: wire.pid })
        };
    }
    match open_at(wire, wire.pid, wire.descriptor, wire.sealed) {
        Err(SegmentError::Gone { .. }) if wire.kept => search(wire),
        other => other,
    }
}

fn open_at(
    wire: &Wire,
    pid: i32,
    descriptor: i32,
    sealed: Option<i32>,
) -> Result<Segment, SegmentError> {
    let file = open_theirs(pid, descriptor, OFlags::RDWR)?;
    let sealed = sealed.map(|sealed| open_theirs(pid, sealed, OFlags::RDONLY));
    match Segment::attach(file, sealed.transpose()?, wire.cookie) {
        Err(
            SegmentError::NotASegment | SegmentError::Unsealed | SegmentError::Truncated { .. },
        ) => Err(SegmentError::Gone { pid }),
        other => other,
    }
}

/// How the names of sealed files in memory begin.
const SEALED: &str = "multiproc:sealed:";

/// Asks every process for a segment whose sender has ended, and again after these pauses: the sender's parent
/// has it as soon as it has heard of the end.
fn search(wire: &Wire) -> Result<Segment, SegmentError> {
    const PAUSES: [u64; 5] = [0, 1, 5, 20, 100];
    let tag = cookie::tag(wire.cookie);
    for pause in PAUSES {
        sleep(Duration::from_millis(pause));
        for (pid, held) in sys::holders(&tag) {
            let number = |sealed: bool| {
                let mut of_kind = held
                    .iter()
                    .filter(|(_, name)| name.starts_with(SEALED) == sealed);
                Some(of_kind.next()?.0)
            };
            let found = number(false).map(|file| open_at(wire, pid, file, number(true)));
            if let Some(Ok(segment)) = found {
                return Ok(segment);
            }
        }
    }
    Err(SegmentError::Gone { pid: wire.pid })
}
/// What the links of descriptors of files in memory start with, if they are of this crate.
const MEMORY: &[u8] = b"/memfd:multiproc:";
const ROSTER: &[u8] = b"/memfd:multiproc:roster";

/// Opens what another process holds as that descriptor.
fn open_theirs(pid: i32, descriptor: i32, access: OFlags) -> Result<OwnedFd, SegmentError> {
    let explain = |errno| match errno {
        rustix::io::Errno::MFILE => SegmentError::from_io(errno.into(), 0),
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

fn count_down(count: &AtomicU32) {
    // Never below zero, whatever a peer wrote.
    let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
}

/// Segments this process keeps because handles to them are on their way.
static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

#[derive(Default)]
struct Kept {
    segments: HashMap<Cookie, Segment>,
    sweep_at: usize,
    /// What children kept that have ended, the last of it.
    left: VecDeque<Segment>,
}

/// Segments of ended children that are kept: handles may have been lost with whoever was to receive them.
const LEFT: usize = 32;

impl Kept {
    fn sweep(&mut self) {
        let is_on_its_way = |segment: &Segment| segment.in_transit().load(Ordering::Relaxed) > 0;
        self.segments.retain(|_, segment| is_on_its_way(segment));
        self.left.retain(is_on_its_way);
        self.sweep_at = (self.segments.len() * 2).max(8);
    }
}

/// Keeps what a child had kept, which has ended.
pub(crate) fn keep_left(segments: Vec<Segment>) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_default();
    kept.sweep();
    kept.left.extend(segments);
    let beyond = kept.left.len().saturating_sub(LEFT);
    kept.left.drain(..beyond);
}

/// What this process keeps and another must keep when it ends. Who has a named segment finds it by its name.
pub(crate) fn kept() -> Vec<Segment> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(kept) = kept.as_mut() else {
        return Vec::new();
    };
    kept.sweep();
    let segments = kept.left.iter().chain(kept.segments.values());
    segments.filter(|one| !one.is_named()).cloned().collect()
}

impl Passed {
    /// Whether the message names no segment at all.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The message has been published: everything it names stays alive until it is taken.
    pub(crate) fn sent(mut self) {
        let items = std::mem::take(&mut self.items);
        if self.transport != Transport::Ring || items.is_empty() {
            return;
        }
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get_or_insert_default();
        for item in items {
            kept.segments.insert(item.segment.cookie(), item.segment);
        }
        if kept.segments.len() >= kept.sweep_at {
            kept.sweep();
        }
    }

    /// The descriptors that must travel beside the bytes: of each segment once, followed by that of what is
    /// sealed beside it.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut found = Vec::new();
        let mut descriptors = Vec::new();
        for Item { segment, .. } in &self.items {
            let by_name = segment.name().is_some();
            if !by_name && !found.contains(&segment.cookie()) {
                found.push(segment.cookie());
                descriptors.push(segment.file());
                descriptors.extend(segment.sealed().map(AsFd::as_fd));
            }
        }
        descriptors
    }
}

impl Drop for Passed {
    #[inline]
    fn drop(&mut self) {
        for item in &self.items {
            if self.transport == Transport::Ring {
                count_down(item.segment.in_transit());
            }
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
    fn a_number_that_means_the_roster_by_now_costs_nobody_the_proof_of_life() {
        let kin = kin::kin().unwrap();
        let [roster, page] = kin.descriptors();
        for file in [roster, page] {
            let wire = Wire {
                cookie: [1, 2],
                pid: std::process::id() as i32,
                descriptor: file.as_raw_fd(),
                kept: false,
                sealed: None,
                name: None,
            };
            let gone = SegmentError::Gone { pid: wire.pid };
            assert_eq!(take(wire).unwrap_err().to_string(), gone.to_string());
            assert!(!kin.is_evicted());
        }
    }
}
