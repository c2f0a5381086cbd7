//! Where names live, and what stands there.
//!
//! A name is a file in a folder in memory. The user's own runtime folder comes first, where there is one,
//! since nobody else can put anything there; then the machine's, in which another user can take a name
//! before us. A name is looked for in both, so that programs started before and after there was a runtime
//! folder find each other.

use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::SegmentError;
use crate::sys::Identity;

/// The machine's file system in memory.
const MACHINE: &str = "/dev/shm";
/// What `statfs` says of a file system in memory.
const TMPFS: u64 = 0x0102_1994;

/// One of the files that a name may be.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) name: String,
    folder: String,
    pub(super) path: String,
    /// Whether what another user put here is passed over: there is a better place.
    is_second: bool,
}

/// The files that a name may be, the best first.
pub(super) fn places(name: &str) -> Result<Vec<Place>, SegmentError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(1..=64).contains(&name.len()) || name.starts_with('.') || !name.bytes().all(allowed) {
        return Err(SegmentError::BadName {
            name: name.to_owned(),
        });
    }
    let user = me();
    let own = format!("/run/user/{user}");
    let folders = is_own(&own).then_some(own);
    let folders = folders.into_iter().chain([MACHINE.to_owned()]);
    Ok(folders
        .enumerate()
        .map(|(index, folder)| Place {
            name: name.to_owned(),
            path: format!("{folder}/multiproc-{user}-{name}"),
            folder,
            is_second: index > 0,
        })
        .collect())
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether a folder is in memory, this user's, and nobody else's.
fn is_own(folder: &str) -> bool {
    let is_ours = rustix::fs::lstat(folder).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && stat.st_uid == me()
            && stat.st_mode & 0o077 == 0
    });
    is_ours && rustix::fs::statfs(folder).is_ok_and(|stat| stat.f_type as u64 == TMPFS)
}

/// Whether something can be kept in another folder when this was said of one.
pub(super) fn is_of_folder(error: &SegmentError) -> bool {
    matches!(
        error,
        SegmentError::NoFolder { .. } | SegmentError::NoSpace { .. }
    )
}

impl Place {
    /// A new file without a name in the folder.
    pub(super) fn draft(&self) -> Result<OwnedFd, SegmentError> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::open(&*self.folder, flags, mode).map_err(|e| self.no_folder(e))?;
        // Whatever the umask says.
        rustix::fs::fchmod(&file, mode).map_err(io::Error::from)?;
        Ok(file)
    }

    /// What a refusal of the folder means.
    fn no_folder(&self, errno: Errno) -> SegmentError {
        let why = match errno {
            Errno::NOENT | Errno::NOTDIR => "there is no such folder",
            Errno::ROFS => "it is read-only",
            Errno::ACCESS | Errno::PERM => "this user may not write there",
            Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL => {
                "it is on a file system of another kind"
            }
            _ => return SegmentError::from_io(errno.into(), 0),
        };
        self.nowhere(format_args!(
            "{why} ({errno}); a file system in memory that it may write to is needed there: \
             mount -t tmpfs -o mode=1777 tmpfs {}",
            self.folder
        ))
    }

    /// An error that says why nothing can be kept here.
    pub(super) fn nowhere(&self, why: impl Display) -> SegmentError {
        SegmentError::NoFolder {
            name: self.name.clone(),
            why: format!("{}: {why}", self.folder),
        }
    }

    /// What stands here, checked without opening it: this user's own plain file, or nothing.
    pub(super) fn look(&self) -> Result<Option<Stat>, SegmentError> {
        match rustix::fs::lstat(&*self.path) {
            Ok(stat) if self.is_second && stat.st_uid != me() => Ok(None),
            Ok(stat) => self.check(&stat).map(|()| Some(stat)),
            // Without the folder there is nothing in it.
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.no_folder(errno)),
        }
    }

    /// Why a new file could not be given this name, which was free a moment ago.
    pub(super) fn taken(&self) -> SegmentError {
        let there = rustix::fs::lstat(&*self.path);
        let foreign = there.ok().and_then(|stat| self.check(&stat).err());
        foreign.unwrap_or_else(|| SegmentError::AlreadyExists {
            name: self.name.clone(),
        })
    }

    fn foreign(&self, why: impl Display) -> SegmentError {
        SegmentError::Foreign {
            name: self.name.clone(),
            why: format!("{} {why}", self.path),
        }
    }

    fn check(&self, stat: &Stat) -> Result<(), SegmentError> {
        if stat.st_uid != me() {
            return Err(self.foreign(format_args!(
                "belongs to user {}, not to this one ({}): only they or root can take it away",
                stat.st_uid,
                me()
            )));
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.foreign("is not a regular file"));
        }
        if stat.st_nlink > 1 {
            return Err(self.foreign("is linked more than once"));
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(self.foreign("is open to other users"));
        }
        Ok(())
    }

    /// Opens the file without ever following a link or waiting; None if it vanished meanwhile.
    pub(super) fn open(&self) -> Result<Option<OwnedFd>, SegmentError> {
        let flags =
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        match rustix::fs::open(&*self.path, flags, Mode::empty()) {
            Ok(descriptor) => {
                self.check(&rustix::fs::fstat(&descriptor).map_err(io::Error::from)?)?;
                Ok(Some(descriptor))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Err(self.foreign("is a symbolic link")),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    /// Takes away what stands here. Gone already is as good.
    pub(super) fn remove(&self) {
        let _ = rustix::fs::unlink(&*self.path);
    }

    /// Whether that file stands here.
    pub(super) fn holds(&self, file: Identity) -> bool {
        matches!(self.look(), Ok(Some(stat)) if identity(&stat) == file)
    }
}

pub(super) fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}
