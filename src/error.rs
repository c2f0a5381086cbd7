//! Every public error, in families by what the caller can do.

/// Shared memory says something that no process of this crate writes.
///
/// The handle that reports it should be dropped: a peer has scribbled over the segment, or it belongs to
/// another version. Nothing outside the segment is affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shared memory is corrupt: {0}")]
pub struct Corrupt(pub(crate) &'static str);

/// Why a segment could not be made or attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A segment of no bytes was asked for.
    #[error("a segment needs at least 1 byte, 0 were asked for")]
    Empty,
    /// There is not that much memory: the file system in memory is full, or a memory limit is reached.
    #[error("no space for a segment of {needed} bytes")]
    NoSpace {
        /// Bytes that were asked for.
        needed: u64,
    },
    /// The process may not open more files.
    #[error("too many open descriptors, the limit (RLIMIT_NOFILE) is {limit}")]
    TooManyDescriptors {
        /// The limit in force.
        limit: u64,
    },
    /// Nobody has made a segment of that name, or everybody who had it is gone.
    #[error("no segment is named {name:?}")]
    NotFound {
        /// The name asked for.
        name: String,
    },
    /// A living process holds that name.
    #[error("a segment named {name:?} exists already")]
    AlreadyExists {
        /// The name asked for.
        name: String,
    },
    /// The name is not 1 to 64 letters, digits, dots, dashes and underscores, or starts with a dot.
    #[error(
        "{name:?} is not a segment name: 1 to 64 of A-Z a-z 0-9 . _ - are, not starting with a dot"
    )]
    BadName {
        /// The name asked for.
        name: String,
    },
    /// What stands at that name belongs to somebody else, or is not a plain file of this user alone.
    #[error("{name:?} is not this user's own segment: {why}")]
    Foreign {
        /// The name asked for.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another version of this crate, or a program of another word size, made it.
    #[error("segment has layout version {}.{}, this program needs {}.{}", found.0, found.1, wanted.0, wanted.1)]
    WrongVersion {
        /// Layout version and word size of the segment.
        found: (u32, u32),
        /// Layout version and word size of this program.
        wanted: (u32, u32),
    },
    /// It holds something else.
    #[error("segment holds {found}, not {wanted}")]
    WrongShape {
        /// What it holds.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// It is shorter or longer than it says.
    #[error("segment has {found} bytes where {wanted} are needed")]
    Truncated {
        /// Bytes it has.
        found: u64,
        /// Bytes it should have.
        wanted: u64,
    },
    /// Its size could still be changed by others.
    #[error("segment is not sealed against shrinking and growing")]
    Unsealed,
    /// The descriptor is something else.
    #[error("descriptor is not a segment")]
    NotASegment,
    /// The process that sent the handle ended before the handle was taken.
    #[error(
        "the process that sent this handle (pid {pid}) is gone and nobody else keeps the segment"
    )]
    Gone {
        /// The sender.
        pid: i32,
    },
    /// Handles of this kind belong to the process that made them: this is a forked copy of it.
    #[error("this process was forked by the user; handles of its parent cannot be used here")]
    Forked,
    /// See [`Corrupt`].
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The operating system refused.
    #[error("operating system: {0}")]
    Io(#[from] std::io::Error),
}

impl SegmentError {
    /// Names the limit behind an error of the operating system.
    pub(crate) fn from_io(error: std::io::Error, needed: u64) -> SegmentError {
        use nix::libc::{EDQUOT, EFBIG, EMFILE, ENOMEM, ENOSPC};
        match error.raw_os_error() {
            Some(ENOSPC | ENOMEM | EDQUOT | EFBIG) => SegmentError::NoSpace { needed },
            Some(EMFILE) => SegmentError::TooManyDescriptors {
                limit: descriptor_limit(),
            },
            _ => SegmentError::Io(error),
        }
    }
}

fn descriptor_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
}
