//! Files of the program's in messages.

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::error::SegmentError;
use crate::segment::{FILE, Segment};

/// A file, a socket or anything else behind a descriptor, as it travels in messages.
///
/// `T` is any of std's types that own a descriptor (`OwnedFd`, `File`, `TcpListener`, `TcpStream`, `UdpSocket`,
/// `UnixStream`, ..), or one like them: `AsFd + From<OwnedFd>`. Like every handle it travels inside any message, argument
/// or result, to any process of the same tree, in no other format of serde. The receiver has a descriptor of its own
/// of the *same* open file: place in the file, flags such as `O_NONBLOCK`, and a socket's options are shared, as after
/// `dup`. It is closed on exec.
///
/// # When it is closed
///
/// From when it is sent until the message has been received or cannot be any more, and at most 100 ms longer, the sender
/// keeps the file open as well (two descriptors for each). So a peer may see the end of a connection that late when its
/// last user only drops it; `shutdown` ends it at once. As with every duplicate, to close one drops the `fcntl` locks
/// that the process has on the file.
///
/// # If a process dies
///
/// What it held is closed. A message whose sender was killed before it was received brings an error
/// ([`RecvError::Decode`](crate::RecvError::Decode)) if nobody else has what was sent, as with other handles.
///
/// # Errors
///
/// A message that holds one cannot be sent when there is no descriptor left for the duplicate, and from a copy of the
/// process that the program itself has forked.
///
/// # Examples
///
/// ```
/// use multiproc::{Fd, Process};
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
///
/// fn greet(stream: Fd<UnixStream>) {
///     (&*stream).write_all(b"hello").unwrap();
/// }
///
/// let (mut ours, theirs) = UnixStream::pair()?;
/// let child = Process::spawn(greet, (Fd::from(theirs),))?;
/// let mut text = String::new();
/// ours.read_to_string(&mut text)?; // Until nobody has the other end.
/// assert_eq!(text, "hello");
/// child.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias("DupFd", "send_handle", "recv_handle", "OwnedFd", "SCM_RIGHTS"))]
pub struct Fd<T>(T);

impl<T> Fd<T> {
    /// The file, socket or other thing itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsFd + From<OwnedFd>> From<T> for Fd<T> {
    fn from(file: T) -> Fd<T> {
        Fd(file)
    }
}

impl<T> Deref for Fd<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Fd<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: AsFd> AsFd for Fd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<T: AsFd> Serialize for Fd<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The sender may close its own as soon as it has sent the message.
        let copy = self.0.as_fd().try_clone_to_owned();
        let segment = copy
            .map_err(SegmentError::from)
            .and_then(Segment::build_for_file)
            .map_err(ser::Error::custom)?;
        super::serialize(&segment, serializer)
    }
}

impl<'de, T: From<OwnedFd>> Deserialize<'de> for Fd<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fd<T>, D::Error> {
        let segment = super::deserialize(deserializer)?;
        // A message may be read more than once.
        let copy = segment.expect_shape(FILE).and_then(|()| {
            let file = segment.file_beside().ok_or(SegmentError::NotASegment)?;
            Ok(file.as_fd().try_clone_to_owned()?)
        });
        Ok(Fd(T::from(copy.map_err(de::Error::custom)?)))
    }
}
