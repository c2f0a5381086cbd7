//! Descriptors that this process keeps for long, in a program that may do as it likes with descriptors.
//!
//! A program may close descriptors that it has not opened: its standard streams before it knows of us, or
//! everything from 3 on when it becomes a daemon. Then the number of a file of ours is soon that of a file
//! of the program's. So none of ours ever stands at 0, 1 or 2, where the program's own output would go into
//! it ([`above_streams`]), and what is kept for long is known by device and inode: before it is changed, or
//! closed, it is checked that it is still there ([`Descriptor::is_intact`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use rustix::io::Errno;

/// What tells a file from any other: its device and its inode.
pub(crate) type Identity = (u64, u64);

/// The same file, at a number that is not one of a standard stream.
pub(crate) fn above_streams(file: OwnedFd) -> io::Result<OwnedFd> {
    if file.as_raw_fd() > 2 {
        return Ok(file);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&file, 3)?)
}

/// The device and inode behind a descriptor.
pub(crate) fn identity(file: impl AsFd) -> io::Result<Identity> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// A descriptor, and the file that it leads to as long as nobody else has closed it.
#[derive(Debug)]
pub(crate) struct Descriptor {
    /// None only while it is dropped.
    file: Option<OwnedFd>,
    identity: Identity,
}

impl Descriptor {
    pub(crate) fn new(file: OwnedFd) -> io::Result<Descriptor> {
        Ok(Descriptor::keep(above_streams(file)?))
    }

    /// Of a file that stands at its number already.
    pub(crate) fn keep(file: OwnedFd) -> Descriptor {
        Descriptor {
            // Refused only where it is not open: then it is not to be closed either.
            identity: identity(&file).unwrap_or_default(),
            file: Some(file),
        }
    }

    /// Whether the number still leads to the file: the program may have closed it, and opened another.
    pub(crate) fn is_intact(&self) -> bool {
        identity(self).is_ok_and(|now| now == self.identity)
    }

    /// Fails with `EBADF` where [`is_intact`](Descriptor::is_intact) says no.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.is_intact() {
            true => Ok(()),
            false => Err(Errno::BADF.into()),
        }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.file {
            Some(file) => file.as_fd(),
            None => unreachable!("it is taken only when it is dropped"),
        }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let intact = self.is_intact();
        // A number that is the program's by now is the program's to close.
        match self.file.take() {
            Some(file) if !intact => _ = file.into_raw_fd(),
            file => drop(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// A number far above those that other tests of this process are given.
    const FAR: i32 = 900;

    fn far(file: &File) -> OwnedFd {
        rustix::io::fcntl_dupfd_cloexec(file, FAR).unwrap()
    }

    #[test]
    fn what_stands_at_the_number_of_a_closed_file_is_left_alone() {
        let ours = tempfile();
        let mut kept = Descriptor::new(far(&ours)).unwrap();
        assert!(kept.is_intact());
        let number = kept.as_fd().as_raw_fd();
        let theirs = tempfile();
        rustix::io::dup2(&theirs, kept.file.as_mut().unwrap()).unwrap();
        assert!(!kept.is_intact());
        let refused = kept.check().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(nix::libc::EBADF));
        drop(kept);
        let there = std::fs::metadata(format!("/proc/self/fd/{number}")).unwrap();
        assert_eq!(there.ino(), theirs.metadata().unwrap().ino());
    }

    fn tempfile() -> File {
        File::from(crate::sys::memfd("multiproc:test", 1).unwrap())
    }
}
