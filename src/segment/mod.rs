//! Memory that several processes see, checked once at its door.

mod header;
mod tail;
mod view;

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::SealFlags;
use serde::{Deserialize, Serialize};

use crate::cookie::{self, Cookie};
use crate::error::{Corrupt, SegmentError};
use crate::kin::{self, Kin};
use crate::layout::{HEADER, SegmentHeader};
use crate::mapped::Mapped;
use crate::roster::Life;
use crate::sealed::{Draft, Sealed};
use crate::sync::{AtomicU32, Ordering};
use crate::sys::{self, Descriptor, Identity};

use self::header::Lengths;

pub(crate) use tail::mapped_length;
pub(crate) use view::{Bytes, View, Words};

/// How much of a segment is allocated when it is made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Commit {
    /// All of it.
    All,
    /// The header and so many bytes of the body; the rest by [`Segment::commit`]. So many bytes of the file lie
    /// behind the body and are not mapped; they have memory when they are written ([`Segment::write_tail`]).
    First { bytes: u64, tail: u64 },
}

impl Commit {
    fn bytes(self, length: u64) -> u64 {
        match self {
            Commit::All => length,
            Commit::First { bytes, .. } => (HEADER as u64).saturating_add(bytes).min(length),
        }
    }

    fn tail(self) -> u64 {
        match self {
            Commit::All => 0,
            Commit::First { tail, .. } => tail,
        }
    }
}

/// Who proves that the processes attached to a segment live.
#[derive(Debug, Clone)]
pub(crate) enum Roster {
    /// The tree's roster: the segment is known only within the tree.
    Kin(&'static Kin),
    /// The named file's own roster.
    Named(Arc<dyn Attached>),
}

/// This process's place at one named file.
pub(crate) trait Attached: fmt::Debug + Send + Sync {
    /// My own participant number.
    fn me(&self) -> u32;
    /// Whether the participant is proven dead.
    fn is_dead(&self, participant: u32) -> bool;
    /// Whether my own proof of life was lost.
    fn is_evicted(&self) -> bool;
    /// The process's only descriptor of the file.
    fn descriptor(&self) -> &Descriptor;
    /// The name.
    fn name(&self) -> &str;
    /// Gives the name up: from now on nobody else can attach.
    fn hide(&self);
}

#[derive(Debug)]
enum Backing {
    /// A memfd of the tree.
    Own(Descriptor),
    /// A named file, whose one descriptor its roster keeps.
    Named(Arc<dyn Attached>),
}

impl Backing {
    fn file(&self) -> &Descriptor {
        match self {
            Backing::Own(file) => file,
            Backing::Named(named) => named.descriptor(),
        }
    }

    /// Bytes of the file that have memory.
    fn allocated(&self) -> Result<u64, SegmentError> {
        match self {
            Backing::Own(file) => sys::allocated(file).map_err(SegmentError::Io),
            // A plain file, which may lose it at any time: see `Segment::is_named`.
            Backing::Named(_) => Ok(u64::MAX),
        }
    }
}

impl Life for Roster {
    fn me(&self) -> u32 {
        match self {
            Roster::Kin(kin) => kin.me(),
            Roster::Named(named) => named.me(),
        }
    }

    fn is_dead(&self, participant: u32) -> bool {
        match self {
            Roster::Kin(kin) => kin.is_dead(participant),
            Roster::Named(named) => named.is_dead(participant),
        }
    }

    fn is_evicted(&self) -> bool {
        match self {
            Roster::Kin(kin) => kin.is_evicted(),
            Roster::Named(named) => named.is_evicted(),
        }
    }
}

/// Tells a segment from any other: what the kernel says of the file behind the descriptor that was made here or
/// arrived here, and the cookie that stands in it. A peer that copies the cookie of another segment has another file
/// still, so it cannot make its own pass for that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    device: u64,
    inode: u64,
    pub(crate) cookie: Cookie,
}

impl Key {
    pub(crate) fn of(file: impl AsFd, cookie: Cookie) -> Result<Key, SegmentError> {
        let stat = rustix::fs::fstat(file).map_err(std::io::Error::from)?;
        Ok(Key {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            cookie,
        })
    }

    /// Whether it is a key of that file, whatever its cookie.
    fn is_of(&self, file: impl AsFd) -> Result<bool, SegmentError> {
        Ok(Key::of(file, self.cookie)? == *self)
    }
}

#[derive(Debug)]
struct Inner {
    map: Mapped,
    backing: Backing,
    body: u64,
    /// Bytes of the file behind it.
    tail: u64,
    key: Key,
    /// Bytes that had memory when it was made here or arrived here; of a file in memory of the tree's own.
    allocated: u64,
    shape: String,
    roster: Roster,
    /// What it travels for. The last field: it is closed after the segment, for those who take both from outside.
    beside: Option<Beside>,
}

/// What a segment without a body travels for.
#[derive(Debug)]
enum Beside {
    /// Memory that cannot be written any more.
    Sealed(Sealed),
    /// A file of the program's.
    File(Descriptor),
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The table may have been locked when this copy was forked.
        if kin::forked() {
            return;
        }
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapped) = mapped.as_mut() {
            // Another mapping of the same segment may have taken the place since.
            if mapped
                .get(&self.key)
                .is_some_and(|segment| segment.strong_count() == 0)
            {
                mapped.remove(&self.key);
            }
        }
    }
}

/// A piece of memory that several processes see; a clone is another handle to the same one.
///
/// Anonymous segments are sealed and preallocated: a machine without memory is an error at creation,
/// never a crash later. A `Segment` inside a message or an argument reaches any process of the same tree.
///
/// # If a process dies
///
/// The memory lives as long as any process holds it; the kernel frees it after the last.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::Ordering;
///
/// let segment = multiproc::Segment::new(4096)?;
/// segment.words()[0].store(7, Ordering::Relaxed);
/// assert_eq!(segment.clone().words()[0].load(Ordering::Relaxed), 7);
/// # Ok::<(), multiproc::SegmentError>(())
/// ```
#[derive(Clone)]
pub struct Segment(Arc<Inner>);

/// The segments this process has mapped, each once however often it is sent here.
static MAPPED: Mutex<Option<HashMap<Key, Weak<Inner>>>> = Mutex::new(None);

/// The shape of a segment made by its users themselves.
pub(crate) const RAW: &str = "segment";
/// The shape of a segment that travels for a file of the program's.
pub(crate) const FILE: &str = "file";

impl Segment {
    /// An anonymous segment of `bytes` bytes, all zero.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Empty`] for no bytes, [`SegmentError::NoSpace`] when there is not that much memory,
    /// [`SegmentError::FileTooLarge`], [`SegmentError::TooManyDescriptors`], [`SegmentError::Forked`],
    /// [`SegmentError::Evicted`].
    pub fn new(bytes: usize) -> Result<Segment, SegmentError> {
        if bytes == 0 {
            return Err(SegmentError::Empty);
        }
        Segment::build(RAW, RAW, bytes as u64, Commit::All)
    }

    /// Bytes the segment holds.
    pub fn len(&self) -> usize {
        self.0.body as usize
    }

    /// Whether it holds none: never.
    pub fn is_empty(&self) -> bool {
        self.0.body == 0
    }

    /// The segment as 64-bit atomics, the last partial word left out.
    ///
    /// Every process that has the segment may change any of them at any time.
    pub fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        let count = self.0.body as usize / 8;
        match self.0.map.array(HEADER, count) {
            Some(words) => words,
            None => unreachable!("a mapping holds its header and its body"),
        }
    }

    /// A new anonymous segment: allocated, mapped, its header complete, its body zero.
    pub(crate) fn build(
        name: &str,
        shape: &str,
        body: u64,
        commit: Commit,
    ) -> Result<Segment, SegmentError> {
        if kin::forked() {
            return Err(SegmentError::Forked);
        }
        let kin = Roster::Kin(kin::kin()?);
        let cookie = cookie::new()?;
        let (map, file) = memory(name, cookie, header::checked_length(body)?, commit)?;
        let tail = commit.tail();
        Segment::finish(map, tail, Backing::Own(file), kin, shape, cookie, None)
    }

    /// As [`build`](Segment::build), in an unnamed file that will be linked to a name.
    pub(crate) fn build_named(
        file: Arc<dyn Attached>,
        shape: &str,
        body: u64,
        commit: Commit,
    ) -> Result<Segment, SegmentError> {
        let length = header::checked_length(body)?;
        let explain = |error| SegmentError::from_io(error, length);
        let whole = length.saturating_add(commit.tail());
        sys::set_length(file.descriptor(), whole).map_err(explain)?;
        sys::allocate(file.descriptor(), 0, commit.bytes(length)).map_err(explain)?;
        let map = Mapped::new(file.descriptor(), length as usize).map_err(explain)?;
        Segment::finish(
            map,
            commit.tail(),
            Backing::Named(file.clone()),
            Roster::Named(file),
            shape,
            cookie::new()?,
            None,
        )
    }

    /// A segment that travels for a draft, which is sealed.
    pub(crate) fn build_sealed(
        name: &str,
        shape: &str,
        draft: Draft,
    ) -> Result<Segment, SegmentError> {
        if kin::forked() {
            return Err(SegmentError::Forked);
        }
        let kin = Roster::Kin(kin::kin()?);
        let cookie = draft.cookie();
        let (map, file) = memory(name, cookie, HEADER as u64, Commit::All)?;
        let beside = Beside::Sealed(draft.seal()?);
        Segment::finish(map, 0, Backing::Own(file), kin, shape, cookie, Some(beside))
    }

    /// A segment that travels for a file of the program's.
    pub(crate) fn build_for_file(file: OwnedFd) -> Result<Segment, SegmentError> {
        if kin::forked() {
            return Err(SegmentError::Forked);
        }
        let kin = Roster::Kin(kin::kin()?);
        let cookie = cookie::new()?;
        let beside = Beside::File(Descriptor::new(file)?);
        let (map, file) = memory("file", cookie, HEADER as u64, Commit::All)?;
        Segment::finish(map, 0, Backing::Own(file), kin, FILE, cookie, Some(beside))
    }

    fn finish(
        map: Mapped,
        tail: u64,
        backing: Backing,
        roster: Roster,
        shape: &str,
        cookie: Cookie,
        beside: Option<Beside>,
    ) -> Result<Segment, SegmentError> {
        let lengths = Lengths {
            mapped: map.len() as u64,
            tail,
        };
        header::write(header_of(&map), lengths, cookie, shape);
        let body = lengths.mapped - HEADER as u64;
        let key = Key::of(backing.file(), cookie)?;
        let allocated = backing.allocated()?;
        Ok(Segment::remember(Inner {
            map,
            backing,
            body,
            tail,
            key,
            allocated,
            shape: header::fit(shape).to_owned(),
            roster,
            beside,
        }))
    }

    /// The segment behind a descriptor that another process of this tree gave us, and what it travels for.
    ///
    /// If this process has it mapped already, that mapping is shared and the descriptors are dropped.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the descriptors or the headers; nothing stays mapped then.
    pub(crate) fn attach(
        file: OwnedFd,
        beside: Option<OwnedFd>,
        key: &Key,
    ) -> Result<Segment, SegmentError> {
        if !key.is_of(&file)? {
            return Err(SegmentError::NotASegment);
        }
        match Segment::known(key) {
            Some(known) => {
                if known.0.shape == FILE {
                    beside.map(theirs).transpose()?;
                }
                Ok(known)
            }
            None => Segment::map_checked(file, Some(key.cookie), |_| beside),
        }
    }

    /// As [`attach`](Segment::attach), for all descriptors that arrived over a control socket, each of what a
    /// segment travels for behind that of the segment.
    pub(crate) fn attach_all(files: Vec<OwnedFd>) -> Result<Vec<Segment>, SegmentError> {
        let mut files = files.into_iter().peekable();
        let mut segments = Vec::with_capacity(files.len());
        while let Some(file) = files.next() {
            let segment = Segment::map_checked(file, None, |shape| match shape {
                FILE => files.next(),
                _ => files.next_if(|next| sys::is_sealed_against_writing(next)),
            });
            segments.push(segment?);
        }
        Ok(segments)
    }

    fn map_checked(
        file: OwnedFd,
        wanted: Option<Cookie>,
        beside: impl FnOnce(&str) -> Option<OwnedFd>,
    ) -> Result<Segment, SegmentError> {
        if !sys::seals(&file).contains(sys::SEALS) {
            return Err(SegmentError::Unsealed);
        }
        let lengths = header::checked_file(&file)?;
        let kin = Roster::Kin(kin::kin()?);
        let backing = Backing::Own(Descriptor::new(file)?);
        Segment::map_backing(backing, kin, lengths, wanted, beside)
    }

    /// The segment of a named file that this process is attached to.
    pub(crate) fn attach_named(file: Arc<dyn Attached>) -> Result<Segment, SegmentError> {
        let lengths = header::checked_file(file.descriptor())?;
        let backing = Backing::Named(file.clone());
        Segment::map_backing(backing, Roster::Named(file), lengths, None, |_| None)
    }

    fn map_backing(
        backing: Backing,
        roster: Roster,
        lengths: Lengths,
        wanted: Option<Cookie>,
        beside: impl FnOnce(&str) -> Option<OwnedFd>,
    ) -> Result<Segment, SegmentError> {
        let length = lengths.mapped;
        let map = Mapped::new(backing.file(), length as usize)
            .map_err(|error| SegmentError::from_io(error, length))?;
        let (cookie, shape) = header::read(header_of(&map), length)?;
        if wanted.is_some_and(|wanted| wanted != cookie) {
            return Err(SegmentError::NotASegment);
        }
        let body = length - HEADER as u64;
        let key = Key::of(backing.file(), cookie)?;
        let allocated = backing.allocated()?;
        let beside = match beside(&shape) {
            None => None,
            Some(file) if shape == FILE => Some(Beside::File(theirs(file)?)),
            Some(file) => Some(Beside::Sealed(Sealed::open(file, cookie)?)),
        };
        Ok(Segment::remember(Inner {
            map,
            backing,
            body,
            tail: lengths.tail,
            key,
            allocated,
            shape,
            roster,
            beside,
        }))
    }

    /// A participant number of a named file that nobody had before.
    pub(crate) fn next_participant(file: &Descriptor) -> Result<u32, SegmentError> {
        let length = header::checked_file(file)?.mapped;
        let map = Mapped::new(file, length as usize)
            .map_err(|error| SegmentError::from_io(error, length))?;
        header::read(header_of(&map), length)?;
        Ok(header_of(&map)
            .next
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1))
    }

    /// The last participant number given away, of a named segment.
    pub(crate) fn participants(&self) -> &AtomicU32 {
        &header_of(&self.0.map).next
    }

    /// Whether it has, or had, a name, so that programs which are not of this tree may have it.
    ///
    /// A named segment is a plain file in memory: a program of the same user could shorten it, which ends whoever
    /// touches it then. A segment that arrives in a message is a named one only if this process has opened that name
    /// itself, or was given the segment by its parent or over something that it opened by a name.
    #[inline]
    pub fn is_named(&self) -> bool {
        matches!(self.0.backing, Backing::Named(_))
    }

    /// The name, of a named segment.
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.0.backing {
            Backing::Own(_) => None,
            Backing::Named(named) => Some(named.name()),
        }
    }

    /// Gives the name up, if it has one: nobody else can attach any more, and nothing is left of it at the end.
    pub(crate) fn hide(&self) {
        if let Backing::Named(named) = &self.0.backing {
            named.hide();
        }
    }

    /// Refuses a file of this crate's own, by its device and inode, where one of the program's is wanted.
    pub(crate) fn check_not_ours(identity: Identity) -> Result<(), SegmentError> {
        let kin = kin::kin()?.descriptors();
        let is_kin = kin
            .iter()
            .any(|kept| sys::identity(kept).ok() == Some(identity));
        let is_mapped = || {
            let mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
            let mut keys = mapped.iter().flat_map(HashMap::keys);
            keys.any(|key| (key.device, key.inode) == identity)
        };
        match is_kin || is_mapped() {
            false => Ok(()),
            true => Err(SegmentError::Corrupt(Corrupt(
                "a file of this crate's own was sent as one of the program's",
            ))),
        }
    }

    /// The segment of that key, if this process has it mapped.
    pub(crate) fn known(key: &Key) -> Option<Segment> {
        let mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        mapped.as_ref()?.get(key)?.upgrade().map(Segment)
    }

    fn remember(inner: Inner) -> Segment {
        let key = inner.key;
        let inner = Arc::new(inner);
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        let mapped = mapped.get_or_insert_with(HashMap::new);
        // Two threads may have attached at once: the first mapping is the one that stays.
        if let Some(first) = mapped.get(&key).and_then(Weak::upgrade) {
            return Segment(first);
        }
        mapped.insert(key, Arc::downgrade(&inner));
        Segment(inner)
    }

    /// Allocates a part of the body that [`Commit::First`] left out.
    pub(crate) fn commit(&self, offset: u64, len: u64) -> Result<(), SegmentError> {
        self.bytes(offset, len)?;
        let file = self.0.backing.file();
        file.check()
            .and_then(|()| sys::allocate(file, HEADER as u64 + offset, len))
            .map_err(|error| SegmentError::from_io(error, len))
    }

    /// Gives the memory of a part of the body back to the system, whole pages of it: it reads as zero.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> Result<(), SegmentError> {
        self.bytes(offset, len)?;
        let file = self.0.backing.file();
        file.check()?;
        Ok(sys::punch(file, HEADER as u64 + offset, len)?)
    }

    /// Leaves it out of this process's core dumps; best effort. For a segment that is far longer than the memory it has:
    /// a dump would give memory to all of it.
    pub(crate) fn leave_out_of_dumps(&self) {
        self.0.map.leave_out_of_dumps();
    }

    /// Makes the pages of a part present in this process; best effort.
    pub(crate) fn populate(&self, offset: u64, len: u64) {
        if self.bytes(offset, len).is_ok() {
            self.0.map.populate(HEADER + offset as usize, len as usize);
        }
    }

    /// What the segment holds, in words: kind, type, geometry.
    pub(crate) fn shape(&self) -> &str {
        &self.0.shape
    }

    /// Refuses a segment that holds something else, or whose memory is not all there: whoever touches it first would
    /// have to find the rest.
    pub(crate) fn expect(&self, shape: &str) -> Result<(), SegmentError> {
        self.expect_shape(shape)?;
        self.expect_allocated(self.0.body)
    }

    /// Refuses a segment whose first bytes have no memory of their own.
    pub(crate) fn expect_allocated(&self, bytes: u64) -> Result<(), SegmentError> {
        let wanted = bytes.saturating_add(HEADER as u64);
        match self.0.allocated >= wanted {
            true => Ok(()),
            false => Err(SegmentError::Sparse {
                found: self.0.allocated,
                wanted,
            }),
        }
    }

    /// Refuses a segment that holds something else.
    pub(crate) fn expect_shape(&self, shape: &str) -> Result<(), SegmentError> {
        if self.0.shape == header::fit(shape) {
            Ok(())
        } else {
            Err(SegmentError::WrongShape {
                found: self.0.shape.clone(),
                wanted: shape.to_owned(),
            })
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.0.key
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.0.backing.file().as_fd()
    }

    /// Fails when the program has closed a descriptor of the segment's: its number may be that of another file.
    pub(crate) fn check_descriptor(&self) -> Result<(), SegmentError> {
        self.0.backing.file().check()?;
        if let Some(Beside::File(file)) = &self.0.beside {
            file.check()?;
        }
        Ok(())
    }

    /// What is sealed beside it.
    pub(crate) fn sealed(&self) -> Option<&Sealed> {
        match &self.0.beside {
            Some(Beside::Sealed(sealed)) => Some(sealed),
            _ => None,
        }
    }

    /// The file of the program's that it travels for.
    pub(crate) fn file_beside(&self) -> Option<&Descriptor> {
        match &self.0.beside {
            Some(Beside::File(file)) => Some(file),
            _ => None,
        }
    }

    /// The descriptors of the segment and of what it travels for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let beside = self.0.beside.as_ref().map(|beside| match beside {
            Beside::Sealed(sealed) => sealed.as_fd(),
            Beside::File(file) => file.as_fd(),
        });
        std::iter::once(self.file()).chain(beside)
    }

    /// Who proves the life of those attached.
    pub(crate) fn life(&self) -> &Roster {
        &self.0.roster
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("shape", &self.0.shape)
            .field("len", &self.0.body)
            .finish()
    }
}

fn header_of(map: &Mapped) -> &SegmentHeader {
    match map.part(0) {
        Some(header) => header,
        None => unreachable!("no mapping is made that is shorter than a header"),
    }
}

/// A file that somebody sends as one of the program's.
///
/// Whoever takes it closes it one day, and with that drops this process's locks on it. On a file of this crate's own
/// they are its proof of life, so one of those stays open.
fn theirs(file: OwnedFd) -> Result<Descriptor, SegmentError> {
    if let Err(ours) = Segment::check_not_ours(sys::identity(&file)?) {
        let _ = file.into_raw_fd();
        return Err(ours);
    }
    Ok(Descriptor::new(file)?)
}

/// A new memfd, sealed and mapped.
fn memory(
    name: &str,
    cookie: Cookie,
    length: u64,
    commit: Commit,
) -> Result<(Mapped, Descriptor), SegmentError> {
    let explain = |error| SegmentError::from_io(error, length);
    let name = format!("multiproc:{name}:{}", cookie::tag(cookie));
    let whole = length.saturating_add(commit.tail());
    let file = sys::memfd(&name, whole).map_err(explain)?;
    sys::allocate(&file, 0, commit.bytes(length)).map_err(explain)?;
    sys::seal(&file, SealFlags::empty()).map_err(explain)?;
    let map = Mapped::new(&file, length as usize).map_err(explain)?;
    Ok((map, Descriptor::new(file)?))
}
