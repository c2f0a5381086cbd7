//! What parent and child say to each other over their socket.
//!
//! A message is a head (plain data), a body (bytes of arguments or of a result) and descriptors. What
//! fits travels in the socket itself; more travels in a sealed file in memory, sent by its descriptor,
//! so that nobody ever waits for the other side to read.
//!
//! ```text
//! 0        4          8           16
//! +--------+----------+-----------+---------+---------+
//! | flags  | head len | body len  | head    | body    |   descriptors: [file in memory] [those of the body]
//! +--------+----------+-----------+---------+---------+
//! ```

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::SealFlags;
use serde::{Deserialize, Serialize};

use super::task::TaskName;
use crate::message::{self, Message};
use crate::sys;

/// Bytes of head and body that travel in the socket itself.
const IN_SOCKET: usize = 32 * 1024;
const HEADER: usize = 16;
/// Head and body are in the first descriptor.
const IN_FILE: u32 = 1;
/// This message carries descriptors of the next one.
const MORE: u32 = 2;
/// More bytes than any message has: a length above it is not ours.
const LIMIT: u64 = 1 << 46;

/// The parent's first word.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Run a function and end.
    Run(Start),
    /// Make children: become the zygote. With the parent's image.
    Breed(u64),
}

/// All that a child must know.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The parent's image; the child's must be the same.
    pub(crate) image: u64,
    pub(crate) task: TaskName,
    pub(crate) name: String,
    /// Numbers of the ancestors and of the child itself: `[1, 2]` for `Process-1:2`.
    pub(crate) lineage: Vec<u32>,
    pub(crate) parent_name: String,
    pub(crate) parent_pid: u32,
    /// The parent's number in the tree.
    pub(crate) parent_number: u32,
    /// What becomes of the standard streams; those given are the first of the descriptors.
    pub(crate) streams: [Given; 3],
    /// Whether the working directory is the next of the descriptors.
    pub(crate) directory: bool,
    /// What is other than in the environment that the child has: values, or that there is none.
    pub(crate) environment: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) affinity: Option<Vec<usize>>,
    pub(crate) nice: Option<i32>,
    /// Whether the thread that made the child lives as long as it; else it has no tie to that thread.
    pub(crate) tied: bool,
    /// Whether the parent waits for [`Report::Ready`].
    pub(crate) say_ready: bool,
}

/// Where a child finds one of its standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Given {
    /// In its place.
    Already,
    /// Among the descriptors.
    Here,
    /// Nowhere: it gets none.
    #[default]
    Nothing,
}

/// What the zygote is asked for: one more child, whose control socket is the descriptor; or, without a
/// descriptor, to end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Another;

/// What the zygote says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Birth {
    /// It can make children.
    Ready,
    /// A child was made: its number.
    Born(u32),
    /// No child was made, or none can ever be.
    Refused(i32),
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// What was asked for is set up; the function runs next.
    Ready,
    /// It cannot begin.
    Refused(Step, i32),
    /// The arguments are decoded, the handles in them taken.
    Began,
    /// The body is the ends in the result, which comes next: the parent answers for them from now on.
    Ends,
    /// The function returned; the body is its result.
    Returned,
    /// The function panicked.
    Panicked {
        message: String,
        location: String,
        backtrace: String,
    },
    /// The arguments could not be decoded.
    BadArguments(String),
    /// The result could not be encoded.
    BadResult(String),
    /// The last word: the body is what the child kept for others, which the parent keeps from now on.
    Left,
}

/// What a child does before its function runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Image,
    Kin,
    Streams,
    Directory,
    Signals,
    Affinity,
    Nice,
    Watch,
}

/// One received message.
#[derive(Debug)]
pub(crate) struct Arrived<H> {
    pub(crate) head: H,
    pub(crate) body: Body,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// The bytes of a message, read out of their file only when they are wanted.
#[derive(Debug)]
pub(crate) enum Body {
    Here(Vec<u8>),
    File { file: File, len: usize },
}

impl Body {
    pub(crate) fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Body::Here(bytes) => Ok(bytes),
            Body::File { mut file, len } => {
                let mut bytes = Vec::new();
                bytes
                    .try_reserve_exact(len)
                    .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
                file.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// Sends one message. Never waits for the other side.
///
/// # Errors
///
/// What the kernel said; `BrokenPipe` when the other side is gone.
pub(crate) fn send(
    socket: impl AsFd,
    head: &impl Message,
    body: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut encoded = Vec::new();
    message::encode(head, &mut encoded).map_err(io::Error::other)?;
    let head = encoded;
    let mut flags = 0;
    let mut all = Vec::with_capacity(descriptors.len() + 1);
    let file;
    if head.len() + body.len() > IN_SOCKET {
        flags |= IN_FILE;
        file = written(&head, body)?;
        all.push(file.as_fd());
    }
    all.extend_from_slice(descriptors);
    let mut rest = all.as_slice();
    while rest.len() > sys::DESCRIPTORS_PER_MESSAGE {
        let (now, later) = rest.split_at(sys::DESCRIPTORS_PER_MESSAGE);
        sys::send(&socket, &[IoSlice::new(&header(MORE, 0, 0))], now)?;
        rest = later;
    }
    let header = header(flags, head.len(), body.len());
    let mut parts = vec![IoSlice::new(&header)];
    if flags & IN_FILE == 0 {
        parts.extend([IoSlice::new(&head), IoSlice::new(body)]);
    }
    sys::send(&socket, &parts, rest)
}

fn header(flags: u32, head: usize, body: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&flags.to_ne_bytes());
    header[4..8].copy_from_slice(&(head as u32).to_ne_bytes());
    header[8..].copy_from_slice(&(body as u64).to_ne_bytes());
    header
}

/// A sealed file in memory that holds `head` and `body`.
fn written(head: &[u8], body: &[u8]) -> io::Result<File> {
    let mut file = File::from(sys::memfd("multiproc:message", 0)?);
    file.write_all(head)?;
    file.write_all(body)?;
    sys::seal(&file, SealFlags::WRITE)?;
    io::Seek::rewind(&mut file)?;
    Ok(file)
}

/// Receives one message; `None` when the other side is gone.
///
/// # Errors
///
/// `WouldBlock` if there is none and `wait` is false; what the kernel said.
pub(crate) fn receive<H: Message>(socket: impl AsFd, wait: bool) -> io::Result<Option<Arrived<H>>> {
    let mut descriptors = Vec::new();
    loop {
        // Asked first: a child would touch much memory for the largest.
        let mut buffer = vec![0; sys::next_message(&socket, wait)?];
        let len = sys::receive(&socket, &mut buffer, &mut descriptors, wait)?;
        if len == 0 {
            return Ok(None);
        }
        let Some((header, inline)) = buffer[..len].split_at_checked(HEADER) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let (flags, head_len, body_len) = parse(header)?;
        if flags & MORE != 0 {
            continue;
        }
        let (head, body) = if flags & IN_FILE == 0 {
            let parts = inline.split_at_checked(head_len);
            let (head, body) = parts.ok_or(io::ErrorKind::InvalidData)?;
            (head.to_vec(), Body::Here(body.to_vec()))
        } else {
            if descriptors.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut file = File::from(descriptors.remove(0));
            // Nothing is allocated for bytes that are not there.
            let len = body_len;
            if file.metadata()?.len() < head_len as u64 + len as u64 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut head = vec![0; head_len];
            file.read_exact(&mut head)?;
            (head, Body::File { file, len })
        };
        return Ok(Some(Arrived {
            head: message::decode(&head).map_err(io::Error::other)?,
            body,
            descriptors,
        }));
    }
}

fn parse(header: &[u8]) -> io::Result<(u32, usize, usize)> {
    let word = |at: usize| header[at..at + 4].try_into().map(u32::from_ne_bytes);
    let body = header[8..HEADER].try_into().map(u64::from_ne_bytes);
    match (word(0), word(4), body) {
        (Ok(flags), Ok(head), Ok(body)) if body < LIMIT => {
            Ok((flags, head as usize, body as usize))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_size_and_any_number_of_descriptors_arrives() {
        for (len, count) in [(0, 0), (10, 1), (IN_SOCKET, 0), (1 << 20, 3), (5, 600)] {
            let (here, there) = sys::socket_pair().unwrap();
            let body: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let files = vec![here.as_fd(); count];
            send(&here, &"head".to_string(), &body, &files).unwrap();
            let arrived = receive::<String>(&there, false).unwrap().unwrap();
            assert_eq!(arrived.head, "head");
            assert_eq!(arrived.body.into_bytes().unwrap(), body);
            assert_eq!(arrived.descriptors.len(), count);
            let nothing = receive::<String>(&there, false).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            drop(files);
            drop((here, arrived.descriptors));
            assert!(receive::<String>(&there, false).unwrap().is_none());
        }
    }

    #[test]
    fn arbitrary_bytes_are_an_error() {
        let (here, there) = sys::socket_pair().unwrap();
        for bytes in [vec![1], vec![255; HEADER], vec![1; 40], vec![0; 40]] {
            sys::send(&here, &[IoSlice::new(&bytes)], &[]).unwrap();
            assert!(receive::<Order>(&there, false).is_err());
        }
    }
}
