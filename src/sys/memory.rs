//! Memory that several processes map, and the page that a fork wipes.
//!
//! # Why this file may use `unsafe`
//!
//! It asks the kernel for mappings and keeps the one private page whose address never changes.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice as MmAdvice, madvise};

use super::above_streams;
use crate::error::Forbidden;

/// The seals every segment carries: its size and its seals can never change.
pub(crate) const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// A new anonymous file in memory of `len` bytes, none of them allocated yet.
pub(crate) fn memfd(name: &str, len: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know the flag.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        other => other,
    };
    let file = above_streams(file.map_err(|errno| refused("memfd_create", errno))?)?;
    set_length(&file, len)?;
    Ok(file)
}

/// The error of a system call that this crate cannot do without and that a sandbox may forbid.
pub(crate) fn refused(call: &'static str, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    match errno {
        Errno::PERM | Errno::ACCESS | Errno::NOSYS => Forbidden::error(call, error),
        _ => error,
    }
}

/// Gives a file that length.
///
/// # Errors
///
/// `EFBIG` if files of this process may not be that long (`RLIMIT_FSIZE`).
pub(crate) fn set_length(file: impl AsFd, length: u64) -> io::Result<()> {
    expect_length(length)?;
    Ok(rustix::fs::ftruncate(file, length)?)
}

/// Bytes that a file of this process may have, if that is limited.
pub(crate) fn longest_file() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current
}

/// Fails if files of this process may not be that long: to try would send it a signal that ends it.
fn expect_length(length: u64) -> io::Result<()> {
    match longest_file() {
        Some(limit) if length > limit => Err(Errno::FBIG.into()),
        _ => Ok(()),
    }
}

/// Allocates `len` bytes from `offset`, so that touching them can never fail.
///
/// # Errors
///
/// `ENOSPC` when the file system, the memory limit or the machine has less than that left. Without asking
/// first, the kernel would rather kill somebody than refuse.
pub(crate) fn allocate(file: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    expect_memory(0, len)?;
    loop {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), offset, len) {
            Err(Errno::INTR) => continue,
            other => return Ok(other?),
        }
    }
}

/// Gives the memory of `len` bytes from `offset` back to the system: they read as zero, and every process that has
/// them mapped has lost those pages. Whoever touches them next takes memory again.
pub(crate) fn punch(file: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, flags, offset, len)?)
}

/// Bytes of a file that have memory; a file in memory may have holes, which get theirs when they are touched.
pub(crate) fn allocated(file: impl AsFd) -> io::Result<u64> {
    let blocks = rustix::fs::fstat(file)?.st_blocks;
    Ok(u64::try_from(blocks).unwrap_or(0).saturating_mul(512))
}

/// Fails if a file that has grown to `length` cannot grow by `more`.
pub(crate) fn expect_room(length: u64, more: u64) -> io::Result<()> {
    expect_length(length.saturating_add(more))?;
    expect_memory(length, more)
}

/// Fails if the machine has less memory left than that; asks only every [`WORTH_ASKING`] bytes.
fn expect_memory(length: u64, more: u64) -> io::Result<()> {
    let steps = |length: u64| length / WORTH_ASKING;
    let worth_asking = steps(length) != steps(length.saturating_add(more));
    if worth_asking && memory_left().is_some_and(|left| more > left) {
        return Err(Errno::NOSPC.into());
    }
    Ok(())
}

/// Seals a memfd against writing as well, by anyone and for ever.
///
/// # Errors
///
/// `EBUSY` while anyone could still write to it through a mapping.
pub(crate) fn seal_against_writing(file: impl AsFd) -> io::Result<()> {
    seal(file, SealFlags::WRITE)
}

/// Whether that has been done.
pub(crate) fn is_sealed_against_writing(file: impl AsFd) -> bool {
    seals(file).contains(SEALS | SealFlags::WRITE)
}

/// The same file through a descriptor that can only read.
pub(crate) fn reopen_for_reading(file: impl AsFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    above_streams(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Seals a memfd; `more` are added to [`SEALS`].
pub(crate) fn seal(file: impl AsFd, more: SealFlags) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(file, SEALS | more)?)
}

/// The seals a descriptor carries; none if it is not a memfd.
pub(crate) fn seals(file: impl AsFd) -> SealFlags {
    rustix::fs::fcntl_get_seals(file).unwrap_or(SealFlags::empty())
}

/// Maps `len` bytes of `file` for reading and writing, kept out of core dumps.
pub(crate) fn map(file: impl AsFd, len: usize) -> io::Result<MmapRaw> {
    let map = MmapOptions::new()
        .len(len)
        .map_raw(file.as_fd().as_raw_fd())?;
    // Best effort: an old kernel only makes core dumps larger.
    let _ = map.advise(Advice::DontDump);
    Ok(map)
}

/// Leaves a mapping out of core dumps; best effort. Whoever dumps a file with holes gives memory to each of them.
pub(crate) fn leave_out_of_dumps(map: &MmapRaw) {
    let _ = map.advise(Advice::DontDump);
}

/// Makes the pages of `offset..offset + len` present and writable now; best effort.
pub(crate) fn populate(map: &MmapRaw, offset: usize, len: usize) {
    // Only a hint: where it is refused the pages come at first touch.
    let _ = map.advise_range(Advice::PopulateWrite, offset, len);
}

/// Bytes of memory that the machine has, in use or not; 4 GiB if it does not say.
pub(crate) fn machine_memory() -> u64 {
    use nix::unistd::{SysconfVar, sysconf};
    let pages = sysconf(SysconfVar::_PHYS_PAGES).ok().flatten();
    let pages = pages.and_then(|pages| u64::try_from(pages).ok());
    let bytes = pages.and_then(|pages| pages.checked_mul(rustix::param::page_size() as u64));
    // An address space of 32 bits holds only so much.
    bytes.unwrap_or(4 << 30).min(isize::MAX as u64 / 4)
}

/// Random bits for a segment's cookie.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Err(Errno::INTR) => continue,
            other => filled += other?,
        }
    }
    Ok(u64::from_ne_bytes(bytes))
}

/// One private page: 1 in the process that set it, 0 in every process forked from it.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());

/// Sets this process's mark; from now on [`fork_mark_lost`] tells a forked copy from the original.
pub(crate) fn set_fork_mark() -> io::Result<()> {
    let mut address = MARK.load(Ordering::Acquire);
    if address.is_null() {
        let page = MmapRaw::from(MmapMut::map_anon(rustix::param::page_size())?);
        address = page.as_mut_ptr().cast::<AtomicU32>();
        // SAFETY: the page was mapped just now and nothing else knows it; the advice changes only what a
        // forked child finds there.
        unsafe { madvise(address.cast(), page.len(), MmAdvice::LinuxWipeOnFork) }?;
        // The page lives as long as the process, so that `MARK` is valid for ever.
        std::mem::forget(page);
    }
    // SAFETY: the address is that of a whole page, mapped above, zero-filled, never unmapped and only
    // ever seen as this one atomic; therefore the reference is valid for ever.
    unsafe { &*address }.store(1, Ordering::Relaxed);
    // Only now: a thread that finds a page without the mark takes this process for a forked copy.
    MARK.store(address, Ordering::Release);
    Ok(())
}

/// The word that says 1 in the process that called [`set_fork_mark`] and 0 in its forked copies.
#[inline]
pub(crate) fn fork_mark() -> Option<&'static AtomicU32> {
    // SAFETY: `MARK` is null or the address of a page that stays mapped for ever (see `set_fork_mark`);
    // the kernel wipes it to zero in a forked child but keeps it mapped.
    unsafe { MARK.load(Ordering::Acquire).as_ref() }
}

/// Whether this process is a forked copy of the one that called [`set_fork_mark`].
#[inline]
pub(crate) fn fork_mark_lost() -> bool {
    fork_mark().is_some_and(|mark| mark.load(Ordering::Relaxed) == 0)
}

/// Allocations below this are not worth reading three small files first.
const WORTH_ASKING: u64 = 16 << 20;

/// Bytes that can still be allocated: what the machine has, or what this process's memory limit leaves.
fn memory_left() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |field: &str| {
        let line = machine.lines().find(|line| line.starts_with(field))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let machine = (kib("MemAvailable:")? + kib("SwapFree:").unwrap_or(0)) * 1024;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        match (parts.next()?, parts.next()?) {
            ("", group) => group_left("/sys/fs/cgroup", group, &SECOND),
            ("memory", group) => group_left("/sys/fs/cgroup/memory", group, &FIRST),
            _ => None,
        }
    });
    limits.chain([machine]).min()
}

/// Where a control group says what its memory is.
struct GroupFiles {
    limit: &'static str,
    usage: &'static str,
    /// Those numbers of `memory.stat` that count pages of files that are read again when they are needed.
    reclaimable: [&'static str; 3],
}

/// The first version of control groups.
const FIRST: GroupFiles = GroupFiles {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: ["total_active_file", "total_inactive_file", ""],
};

/// The second.
const SECOND: GroupFiles = GroupFiles {
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: ["active_file", "inactive_file", "slab_reclaimable"],
};

/// What the tightest limit from this group up to the root of its tree leaves.
fn group_left(root: &str, group: &str, files: &GroupFiles) -> Option<u64> {
    let read =
        |group: &str, file: &str| std::fs::read_to_string(format!("{root}{group}/{file}")).ok();
    let number = |group: &str, file: &str| read(group, file)?.trim().parse::<u64>().ok();
    // The kernel gives the cache back before it refuses anything, so it counts as free. What lies in files in
    // memory is not among it.
    let reclaimable = |group: &str| {
        let stat = read(group, "memory.stat").unwrap_or_default();
        let fields = stat.lines().filter_map(|line| line.split_once(' '));
        fields
            .filter(|(field, _)| files.reclaimable.contains(field))
            .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
            .fold(0, u64::saturating_add)
    };
    let mut group = group.trim_end_matches('/');
    let mut least = None;
    loop {
        if let (Some(limit), Some(usage)) = (number(group, files.limit), number(group, files.usage))
        {
            let left = limit.saturating_sub(usage.saturating_sub(reclaimable(group)));
            least = Some(least.map_or(left, |least: u64| least.min(left)));
        }
        match group.rfind('/') {
            Some(parent) => group = &group[..parent],
            None => return least,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The files of a control group, at a place of their own.
    struct Group(std::path::PathBuf);

    impl Group {
        fn new(name: &str) -> Group {
            let root =
                std::env::temp_dir().join(format!("multiproc-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("a/b")).unwrap();
            Group(root)
        }

        fn say(&self, path: &str, text: &str) {
            fs::write(self.0.join(path), text).unwrap();
        }

        fn left(&self, files: &GroupFiles) -> Option<u64> {
            group_left(self.0.to_str().unwrap(), "/a/b", files)
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn cache_that_can_be_given_back_counts_as_free() {
        let group = Group::new("cache");
        assert_eq!(group.left(&SECOND), None);
        group.say("a/memory.max", "1000\n");
        group.say("a/memory.current", "990\n");
        assert_eq!(group.left(&SECOND), Some(10));
        group.say("a/memory.stat", "anon 90\nfile 900\nshmem 100\nactive_file 300\ninactive_file 450\nslab_reclaimable 50\n");
        assert_eq!(group.left(&SECOND), Some(810));
        // The tighter of two.
        group.say("a/b/memory.max", "500\n");
        group.say("a/b/memory.current", "400\n");
        group.say("a/b/memory.stat", "inactive_file 7\n");
        assert_eq!(group.left(&SECOND), Some(107));
        group.say("a/b/memory.max", "max\n");
        assert_eq!(group.left(&SECOND), Some(810));
    }

    #[test]
    fn cache_counts_as_free_in_control_groups_of_the_first_version() {
        let group = Group::new("first");
        group.say("a/b/memory.limit_in_bytes", "1000\n");
        group.say("a/b/memory.usage_in_bytes", "1000\n");
        group.say(
            "a/b/memory.stat",
            "active_file 1\ntotal_active_file 20\ntotal_inactive_file 300\n",
        );
        assert_eq!(group.left(&FIRST), Some(320));
    }

    #[test]
    fn a_refused_call_is_named() {
        let error = refused("memfd_create", Errno::PERM);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("memfd_create"), "{error}");
        assert!(error.to_string().contains("sandbox"), "{error}");
        let error = refused("memfd_create", Errno::MFILE);
        assert_eq!(error.raw_os_error(), Some(nix::libc::EMFILE));
    }
}
