//! Proof of life: one byte lock per participant, dropped by the kernel at death and only then.
//!
//! The lock is a POSIX record lock: a zombie has lost it, a stopped process keeps it, a forked child
//! does not have it, and it is right across PID namespaces. Closing *any* descriptor of the locked file
//! drops it, so the file is opened once per process and never closed.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

fn byte(kind: libc::c_int, offset: u64, len: u64) -> io::Result<libc::flock> {
    let out_of_range = |_| io::Error::from_raw_os_error(libc::EOVERFLOW);
    Ok(libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::try_from(offset).map_err(out_of_range)?,
        l_len: i64::try_from(len).map_err(out_of_range)?,
        l_pid: 0,
    })
}

/// Takes the byte at `offset`; false if another process has it. Never waits.
pub(crate) fn lock_byte(file: impl AsFd, offset: u64) -> io::Result<bool> {
    match fcntl(
        file.as_fd(),
        FcntlArg::F_SETLK(&byte(libc::F_WRLCK, offset, 1)?),
    ) {
        Ok(_) => Ok(true),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Gives the byte at `offset` back.
pub(crate) fn unlock_byte(file: impl AsFd, offset: u64) -> io::Result<()> {
    fcntl(
        file.as_fd(),
        FcntlArg::F_SETLK(&byte(libc::F_UNLCK, offset, 1)?),
    )?;
    Ok(())
}

/// Whether *another* process has any of the `len` bytes from `offset` (0: to the end of time).
pub(crate) fn byte_is_held(file: impl AsFd, offset: u64, len: u64) -> io::Result<bool> {
    let mut lock = byte(libc::F_WRLCK, offset, len)?;
    fcntl(file.as_fd(), FcntlArg::F_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// Whether *this* process still has the byte at `offset`: a stray `close` elsewhere may have dropped it.
pub(crate) fn byte_is_mine(file: impl AsFd, offset: u64) -> io::Result<bool> {
    // An open-file-description probe sees this process's own record lock as somebody else's.
    let mut lock = byte(libc::F_WRLCK, offset, 1)?;
    match fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) => Ok(lock.l_type != libc::F_UNLCK as libc::c_short),
        // The descriptor itself was closed, and the lock went with it.
        Err(Errno::EBADF) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
