//! Memory that several processes see, checked once at its door.
//!
//! # Why this file may use `unsafe`
//!
//! It turns checked offsets into references to atomics ([`View`], [`Words`]) and copies bulk bytes
//! ([`Bytes`]). A mapping never moves, never shrinks (its file is sealed against that, or is a named file
//! of this user that nobody truncates) and lives as long as the [`Segment`] that every view holds. Only
//! types made of atomics are ever seen by reference, so whatever a peer writes is a value, not undefined
//! behaviour.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::MmapRaw;
use rustix::fs::SealFlags;

use crate::error::SegmentError;
use crate::kin::{self, Kin};
use crate::layout::{
    HEADER, LaneHeader, LatchWords, MAGIC, PoolPage, QueueHeader, SHAPE_WORDS, Seat, SegmentHeader,
    SignalWords, StreamHeader, Table, TreePage, VERSION, WORD,
};
use crate::named;
use crate::roster::Life;
use crate::sealed::{Draft, Sealed};
use crate::sync::{AtomicU32, AtomicU64, Futex, Ordering};
use crate::sys;

/// A type that may be seen by reference in shared memory.
///
/// # Safety
///
/// It consists of atomics and padding-free arrays of them only, is `repr(C)` or `repr(transparent)`, is
/// valid for every bit pattern and does not depend on its address.
pub(crate) unsafe trait Shared: Sync + 'static {}

/// Lists the types of `layout` (and of the public atomics) that may be seen in shared memory.
macro_rules! shared {
    ($($ty:ty),* $(,)?) => {$(
        // SAFETY: see its definition: `repr(C)`, atomics only, every bit pattern valid.
        unsafe impl Shared for $ty {}
    )*};
}
shared!(
    AtomicU32,
    AtomicU64,
    Futex,
    SegmentHeader,
    TreePage,
    SignalWords,
    LaneHeader,
    QueueHeader,
    StreamHeader,
    LatchWords,
    PoolPage,
    Table,
    Seat
);

/// What tells a segment from any other: random at creation.
pub(crate) type Cookie = [u64; 2];

/// How much of a segment is allocated when it is made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Commit {
    /// All of it.
    All,
    /// The header and this many bytes of the body; the rest by [`Segment::commit`].
    First(u64),
}

impl Commit {
    fn bytes(self, length: u64) -> u64 {
        match self {
            Commit::All => length,
            Commit::First(bytes) => (HEADER as u64).saturating_add(bytes).min(length),
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
    fn descriptor(&self) -> &OwnedFd;
    /// The name.
    fn name(&self) -> &str;
    /// Gives the name up: from now on nobody else can attach.
    fn hide(&self);
}

#[derive(Debug)]
enum Backing {
    /// A memfd of the tree.
    Own(OwnedFd),
    /// A named file, whose one descriptor its roster keeps.
    Named(Arc<dyn Attached>),
}

impl Backing {
    fn file(&self) -> &OwnedFd {
        match self {
            Backing::Own(file) => file,
            Backing::Named(named) => named.descriptor(),
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

#[derive(Debug)]
struct Inner {
    map: MmapRaw,
    backing: Backing,
    body: u64,
    cookie: Cookie,
    shape: String,
    roster: Roster,
    /// What cannot be written any more, of a segment that travels for it.
    sealed: Option<Sealed>,
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
                .get(&self.cookie)
                .is_some_and(|segment| segment.strong_count() == 0)
            {
                mapped.remove(&self.cookie);
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
static MAPPED: Mutex<Option<HashMap<Cookie, Weak<Inner>>>> = Mutex::new(None);

/// The shape of a segment made by its users themselves.
const RAW: &str = "segment";

impl Segment {
    /// An anonymous segment of `bytes` bytes, all zero.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Empty`] for no bytes, [`SegmentError::NoSpace`] when there is not that much memory,
    /// [`SegmentError::TooManyDescriptors`].
    pub fn new(bytes: usize) -> Result<Segment, SegmentError> {
        if bytes == 0 {
            return Err(SegmentError::Empty);
        }
        Segment::build(RAW, RAW, bytes as u64, Commit::All)
    }

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
        named::create(name, RAW, bytes as u64, Commit::All, |segment| {
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
        let segment = named::open(name)?;
        segment.expect(RAW)?;
        Ok(segment)
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
        // SAFETY: the mapping has `HEADER + body` bytes, lives as long as `self`, and is page-aligned, so
        // the body is aligned for words; atomics may be changed by anyone at any time.
        unsafe { std::slice::from_raw_parts(self.base().as_ptr().add(HEADER).cast(), count) }
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
        let cookie = new_cookie()?;
        let (map, file) = memory(name, cookie, checked_length(body)?, commit)?;
        Segment::finish(map, Backing::Own(file), kin, shape, cookie, None)
    }

    /// As [`build`](Segment::build), in an unnamed file that will be linked to a name.
    pub(crate) fn build_named(
        file: Arc<dyn Attached>,
        shape: &str,
        body: u64,
        commit: Commit,
    ) -> Result<Segment, SegmentError> {
        let length = checked_length(body)?;
        let explain = |error| SegmentError::from_io(error, length);
        rustix::fs::ftruncate(file.descriptor(), length).map_err(|errno| explain(errno.into()))?;
        sys::allocate(file.descriptor(), 0, commit.bytes(length)).map_err(explain)?;
        let map = sys::map(file.descriptor(), length as usize).map_err(explain)?;
        Segment::finish(
            map,
            Backing::Named(file.clone()),
            Roster::Named(file),
            shape,
            new_cookie()?,
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
        Segment::finish(map, Backing::Own(file), kin, shape, cookie, Some(draft))
    }

    fn finish(
        map: MmapRaw,
        backing: Backing,
        roster: Roster,
        shape: &str,
        cookie: Cookie,
        draft: Option<Draft>,
    ) -> Result<Segment, SegmentError> {
        let length = map.len() as u64;
        write_header(header_of(&map), length, cookie, shape);
        let body = length - HEADER as u64;
        Ok(Segment::remember(Inner {
            map,
            backing,
            body,
            cookie,
            shape: fit(shape).to_owned(),
            roster,
            sealed: draft.map(Draft::seal).transpose()?,
        }))
    }

    /// The segment behind a descriptor that another process of this tree gave us, and what is sealed for it.
    ///
    /// If this process has it mapped already, that mapping is shared and the descriptors are dropped.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the descriptors or the headers; nothing stays mapped then.
    pub(crate) fn attach(
        file: OwnedFd,
        sealed: Option<OwnedFd>,
        cookie: Cookie,
    ) -> Result<Segment, SegmentError> {
        match Segment::known(cookie) {
            Some(known) => Ok(known),
            None => Segment::map_checked(file, sealed, Some(cookie)),
        }
    }

    /// As [`attach`](Segment::attach), for all descriptors that arrived over a control socket, each of a sealed
    /// file behind that of its segment.
    pub(crate) fn attach_all(files: Vec<OwnedFd>) -> Result<Vec<Segment>, SegmentError> {
        let mut files = files.into_iter().peekable();
        let mut segments = Vec::with_capacity(files.len());
        while let Some(file) = files.next() {
            let sealed = files.next_if(|next| sys::is_sealed_against_writing(next));
            segments.push(Segment::map_checked(file, sealed, None)?);
        }
        Ok(segments)
    }

    fn map_checked(
        file: OwnedFd,
        sealed: Option<OwnedFd>,
        wanted: Option<Cookie>,
    ) -> Result<Segment, SegmentError> {
        if !sys::seals(&file).contains(sys::SEALS) {
            return Err(SegmentError::Unsealed);
        }
        let length = checked_file(&file)?;
        let kin = Roster::Kin(kin::kin()?);
        Segment::map_backing(Backing::Own(file), kin, length, wanted, sealed)
    }

    /// The segment of a named file that this process is attached to.
    pub(crate) fn attach_named(file: Arc<dyn Attached>) -> Result<Segment, SegmentError> {
        let length = checked_file(file.descriptor())?;
        let backing = Backing::Named(file.clone());
        Segment::map_backing(backing, Roster::Named(file), length, None, None)
    }

    fn map_backing(
        backing: Backing,
        roster: Roster,
        length: u64,
        wanted: Option<Cookie>,
        sealed: Option<OwnedFd>,
    ) -> Result<Segment, SegmentError> {
        let map = sys::map(backing.file(), length as usize)
            .map_err(|error| SegmentError::from_io(error, length))?;
        let (cookie, shape) = read_header(header_of(&map), length)?;
        if wanted.is_some_and(|wanted| wanted != cookie) {
            return Err(SegmentError::NotASegment);
        }
        let body = length - HEADER as u64;
        Ok(Segment::remember(Inner {
            map,
            backing,
            body,
            cookie,
            shape,
            roster,
            sealed: sealed.map(|file| Sealed::open(file, cookie)).transpose()?,
        }))
    }

    /// A participant number of a named file that nobody had before.
    pub(crate) fn next_participant(file: &OwnedFd) -> Result<u32, SegmentError> {
        let length = checked_file(file)?;
        let map = sys::map(file, length as usize)
            .map_err(|error| SegmentError::from_io(error, length))?;
        read_header(header_of(&map), length)?;
        Ok(header_of(&map)
            .next
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1))
    }

    /// The last participant number given away, of a named segment.
    pub(crate) fn participants(&self) -> &AtomicU32 {
        &header_of(&self.0.map).next
    }

    /// Whether programs that are not of this tree may have it.
    #[inline]
    pub(crate) fn is_named(&self) -> bool {
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

    /// The segment of that cookie, if this process has it mapped.
    pub(crate) fn known(cookie: Cookie) -> Option<Segment> {
        let mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        mapped.as_ref()?.get(&cookie)?.upgrade().map(Segment)
    }

    fn remember(inner: Inner) -> Segment {
        let cookie = inner.cookie;
        let inner = Arc::new(inner);
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        let mapped = mapped.get_or_insert_with(HashMap::new);
        // Two threads may have attached at once: the first mapping is the one that stays.
        if let Some(first) = mapped.get(&cookie).and_then(Weak::upgrade) {
            return Segment(first);
        }
        mapped.insert(cookie, Arc::downgrade(&inner));
        Segment(inner)
    }

    /// Allocates a part of the body that [`Commit::First`] left out.
    pub(crate) fn commit(&self, offset: u64, len: u64) -> Result<(), SegmentError> {
        self.check(offset, len, 1)?;
        sys::allocate(self.0.backing.file(), HEADER as u64 + offset, len)
            .map_err(|error| SegmentError::from_io(error, len))
    }

    /// Makes the pages of a part present in this process; best effort.
    pub(crate) fn populate(&self, offset: u64, len: u64) {
        if self.check(offset, len, 1).is_ok() {
            sys::populate(&self.0.map, HEADER + offset as usize, len as usize);
        }
    }

    /// What the segment holds, in words: kind, type, geometry.
    pub(crate) fn shape(&self) -> &str {
        &self.0.shape
    }

    /// Refuses a segment that holds something else.
    pub(crate) fn expect(&self, shape: &str) -> Result<(), SegmentError> {
        if self.0.shape == fit(shape) {
            Ok(())
        } else {
            Err(SegmentError::WrongShape {
                found: self.0.shape.clone(),
                wanted: shape.to_owned(),
            })
        }
    }

    pub(crate) fn cookie(&self) -> Cookie {
        self.0.cookie
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.0.backing.file().as_fd()
    }

    /// What is sealed beside it.
    pub(crate) fn sealed(&self) -> Option<&Sealed> {
        self.0.sealed.as_ref()
    }

    /// Who proves the life of those attached.
    pub(crate) fn life(&self) -> &Roster {
        &self.0.roster
    }

    /// How many handles to this segment are on their way.
    pub(crate) fn in_transit(&self) -> &AtomicU32 {
        &header_of(&self.0.map).in_transit
    }

    /// One structure of the body.
    pub(crate) fn view<T: Shared>(&self, offset: u64) -> Result<View<T>, SegmentError> {
        let at = self.check(offset, size_of::<T>() as u64, align_of::<T>())?;
        Ok(View {
            at: at.cast(),
            segment: Some(self.clone()),
        })
    }

    /// One structure of the body, for a short look.
    pub(crate) fn part<T: Shared>(&self, offset: u64) -> Result<&T, SegmentError> {
        let at = self.check(offset, size_of::<T>() as u64, align_of::<T>())?;
        // SAFETY: because `check` found the structure inside and aligned, `T: Shared` is valid for any bits
        // and made of atomics, and the mapping stays as long as `self` is borrowed, the reference is good.
        Ok(unsafe { at.cast::<T>().as_ref() })
    }

    /// An array of words of the body.
    pub(crate) fn slots(&self, offset: u64, count: u64) -> Result<Words, SegmentError> {
        let len = count.checked_mul(8).ok_or(SegmentError::Corrupt(OUTSIDE))?;
        let at = self.check(offset, len, 8)?;
        Ok(Words {
            at: NonNull::slice_from_raw_parts(at.cast(), count as usize),
            segment: self.clone(),
        })
    }

    /// A part of the body to copy in and out of.
    pub(crate) fn bytes(&self, offset: u64, len: u64) -> Result<Bytes, SegmentError> {
        let at = self.check(offset, len, 1)?;
        Ok(Bytes {
            at,
            len: len as usize,
            segment: self.clone(),
        })
    }

    fn base(&self) -> NonNull<u8> {
        base(&self.0.map)
    }

    /// The address of `offset..offset + len` of the body, if that lies inside and is aligned.
    fn check(&self, offset: u64, len: u64, align: usize) -> Result<NonNull<u8>, SegmentError> {
        let end = offset
            .checked_add(len)
            .ok_or(SegmentError::Corrupt(OUTSIDE))?;
        if end > self.0.body || (HEADER as u64 + offset) % align as u64 != 0 {
            return Err(SegmentError::Corrupt(OUTSIDE));
        }
        // SAFETY: `HEADER + offset` is at most `HEADER + body`, the length of the mapping.
        Ok(unsafe { self.base().add(HEADER + offset as usize) })
    }
}

const OUTSIDE: crate::error::Corrupt = crate::error::Corrupt("a part lies outside its segment");

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("shape", &self.0.shape)
            .field("len", &self.0.body)
            .finish()
    }
}

/// A structure in a segment; holds the segment.
pub(crate) struct View<T> {
    at: NonNull<T>,
    /// None for the tree's page, which is never unmapped.
    segment: Option<Segment>,
}

/// Words in a segment; holds the segment.
pub(crate) struct Words {
    at: NonNull<[AtomicU64]>,
    segment: Segment,
}

impl<T: Shared> Deref for View<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `Segment::view` checked bounds and alignment, the mapping stays as long as `segment`,
        // and `T: Shared` is valid for any bits and made of atomics.
        unsafe { self.at.as_ref() }
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: as for `View`, checked in `Segment::slots`.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Shared> Clone for View<T> {
    fn clone(&self) -> Self {
        View {
            at: self.at,
            segment: self.segment.clone(),
        }
    }
}

impl Clone for Words {
    fn clone(&self) -> Self {
        Words {
            at: self.at,
            segment: self.segment.clone(),
        }
    }
}

// SAFETY: a view is a shared reference to a `Sync` type plus a segment that may be shared.
unsafe impl<T: Shared> Send for View<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for View<T> {}
// SAFETY: as above; `AtomicU64` is `Sync`.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl<T: Shared + fmt::Debug> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} words", self.len())
    }
}

/// Bulk bytes in a segment, only ever copied; holds the segment.
///
/// A protocol (a claimed block, a free stretch of a pipe) says who may touch which bytes when. A peer that
/// breaks it gives wrong bytes, which the reader decodes from its own copy.
#[derive(Clone)]
pub(crate) struct Bytes {
    at: NonNull<u8>,
    len: usize,
    segment: Segment,
}

// SAFETY: an address and a segment that may be shared; access is by copy only.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// The segment they are a part of.
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Bytes of the part.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies `from` to `offset`.
    ///
    /// # Panics
    ///
    /// If it does not fit: callers have checked against their own geometry.
    #[inline]
    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) {
        assert!(
            offset <= self.len && from.len() <= self.len - offset,
            "a copy beyond its part"
        );
        // SAFETY: the range lies inside the part (asserted), which lies inside the mapping (checked at
        // `Segment::bytes`); `from` is private memory and cannot overlap a shared mapping.
        unsafe {
            self.at
                .add(offset)
                .as_ptr()
                .copy_from_nonoverlapping(from.as_ptr(), from.len())
        }
    }

    /// Copies from `offset` into `to`.
    ///
    /// # Panics
    ///
    /// If it lies outside: callers have checked against their own geometry.
    #[inline]
    pub(crate) fn copy_out(&self, offset: usize, to: &mut [u8]) {
        assert!(
            offset <= self.len && to.len() <= self.len - offset,
            "a copy beyond its part"
        );
        // SAFETY: as in `copy_in`, the other way round.
        unsafe {
            self.at
                .add(offset)
                .as_ptr()
                .copy_to_nonoverlapping(to.as_mut_ptr(), to.len())
        }
    }

    /// Appends `len` bytes from `offset` to `to`.
    ///
    /// # Panics
    ///
    /// If they lie outside: callers have checked against their own geometry.
    pub(crate) fn append_to(&self, offset: usize, len: usize, to: &mut Vec<u8>) {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "a copy beyond its part"
        );
        to.reserve(len);
        // SAFETY: the range lies inside the part (asserted); `reserve` made room for `len` bytes behind
        // the vector's length, all of which the copy initialises before the length is raised.
        unsafe {
            let end = to.as_mut_ptr().add(to.len());
            self.at
                .add(offset)
                .as_ptr()
                .copy_to_nonoverlapping(end, len);
            to.set_len(to.len() + len);
        }
    }

    /// The word at `offset`.
    ///
    /// # Panics
    ///
    /// If it lies outside or across words: callers have checked against their own geometry.
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        let at = self.at(offset, 8).cast::<AtomicU64>();
        assert!(at.is_aligned(), "a word across words");
        // SAFETY: because the word lies inside the part (`at`) and is aligned (asserted), the mapping lives
        // as long as `self`, and any bits are a value, the reference is good.
        unsafe { &*at }
    }

    /// The address of `len` bytes from `offset`, for the places that may borrow (a held block).
    ///
    /// # Panics
    ///
    /// If they lie outside: callers have checked against their own geometry.
    #[inline]
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "a borrow beyond its part"
        );
        self.at.as_ptr().wrapping_add(offset)
    }

    /// The address, for the two places that may borrow (a held lock, a sealed array).
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.at.as_ptr()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {:?}", self.len, self.segment)
    }
}

fn base(map: &MmapRaw) -> NonNull<u8> {
    NonNull::new(map.as_mut_ptr()).unwrap_or(NonNull::dangling())
}

fn header_of(map: &MmapRaw) -> &SegmentHeader {
    debug_assert!(map.len() >= HEADER);
    // SAFETY: every mapping made here has at least `HEADER` bytes (`checked_length`, `checked_file`), is
    // page-aligned and lives as long as `map`; the header is atomics only.
    unsafe { base(map).cast::<SegmentHeader>().as_ref() }
}

/// A cookie that no segment has.
pub(crate) fn new_cookie() -> io::Result<Cookie> {
    Ok([sys::random()?, sys::random()?])
}

/// The end of the names of a segment's files in memory, by which a process that holds it is found.
pub(crate) fn tag(cookie: Cookie) -> String {
    format!("{:016x}{:016x}", cookie[0], cookie[1])
}

/// A new memfd, sealed and mapped.
fn memory(
    name: &str,
    cookie: Cookie,
    length: u64,
    commit: Commit,
) -> Result<(MmapRaw, OwnedFd), SegmentError> {
    let explain = |error| SegmentError::from_io(error, length);
    let name = format!("multiproc:{name}:{}", tag(cookie));
    let file = sys::memfd(&name, length).map_err(explain)?;
    sys::allocate(&file, 0, commit.bytes(length)).map_err(explain)?;
    sys::seal(&file, SealFlags::empty()).map_err(explain)?;
    let map = sys::map(&file, length as usize).map_err(explain)?;
    Ok((map, file))
}

fn checked_length(body: u64) -> Result<u64, SegmentError> {
    body.checked_add(HEADER as u64)
        .filter(|length| isize::try_from(*length).is_ok())
        .ok_or(SegmentError::NoSpace { needed: body })
}

/// The length of a file that may hold a segment.
fn checked_file(file: &OwnedFd) -> Result<u64, SegmentError> {
    let stat = rustix::fs::fstat(file).map_err(io::Error::from)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(SegmentError::NotASegment);
    }
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    if length < HEADER as u64 || isize::try_from(length).is_err() {
        return Err(SegmentError::Truncated {
            found: length,
            wanted: HEADER as u64,
        });
    }
    Ok(length)
}

/// Fills a header; the magic last, so that a segment without it is one that was never finished.
fn write_header(header: &SegmentHeader, length: u64, cookie: Cookie, shape: &str) {
    header.version.store(VERSION, Ordering::Relaxed);
    header.word.store(WORD, Ordering::Relaxed);
    header.length.store(length, Ordering::Relaxed);
    for (word, value) in header.cookie.iter().zip(cookie) {
        word.store(value, Ordering::Relaxed);
    }
    let mut text = [0u8; SHAPE_WORDS * 8];
    let shape = fit(shape).as_bytes();
    text[..shape.len()].copy_from_slice(shape);
    for (word, bytes) in header.shape.iter().zip(text.chunks_exact(8)) {
        word.store(
            u64::from_le_bytes(bytes.try_into().unwrap_or_default()),
            Ordering::Relaxed,
        );
    }
    // Edge F, maker's end; the attacher's is in `read_header`.
    header.magic.store(MAGIC, Ordering::Release);
}

/// Reads each field of a header once and checks it: the cookie and the shape.
fn read_header(header: &SegmentHeader, length: u64) -> Result<(Cookie, String), SegmentError> {
    // Edge F, attacher's end; the maker's is in `write_header`.
    if header.magic.load(Ordering::Acquire) != MAGIC {
        return Err(SegmentError::NotASegment);
    }
    let version = header.version.load(Ordering::Relaxed);
    let word = header.word.load(Ordering::Relaxed);
    if (version, word) != (VERSION, WORD) {
        return Err(SegmentError::WrongVersion {
            found: (version, word),
            wanted: (VERSION, WORD),
        });
    }
    let found = header.length.load(Ordering::Relaxed);
    if found != length {
        return Err(SegmentError::Truncated {
            found: length,
            wanted: found,
        });
    }
    let cookie = [
        header.cookie[0].load(Ordering::Relaxed),
        header.cookie[1].load(Ordering::Relaxed),
    ];
    let text: Vec<u8> = header
        .shape
        .iter()
        .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
        .collect();
    let end = text
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(text.len());
    Ok((cookie, String::from_utf8_lossy(&text[..end]).into_owned()))
}

/// As much of a shape as a header holds.
fn fit(shape: &str) -> &str {
    let limit = shape.len().min(SHAPE_WORDS * 8);
    let end = (0..=limit).rev().find(|&end| shape.is_char_boundary(end));
    &shape[..end.unwrap_or(0)]
}

/// The tree's page behind its descriptor; it has no header to check, since only kin ever get it.
pub(crate) fn tree_page(file: &OwnedFd) -> io::Result<View<TreePage>> {
    let length = (HEADER + size_of::<TreePage>()) as u64;
    let sealed = sys::seals(file).contains(sys::SEALS);
    let exact = rustix::fs::fstat(file)?.st_size == length as i64;
    if !sealed || !exact {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let map = sys::map(file, length as usize)?;
    let at = base(&map);
    // The page stays mapped for the life of the process, like the tree itself.
    std::mem::forget(map);
    // SAFETY: the mapping has `HEADER` bytes and the page behind them.
    let at = unsafe { at.add(HEADER) }.cast();
    Ok(View { at, segment: None })
}
