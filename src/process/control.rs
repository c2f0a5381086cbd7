//! What parent and child say to each other over their socket.
//!
//! A message is a head (plain data), a body (bytes of arguments or of a result) and descriptors. What
//! fits travels in the socket itself; more travels in a sealed file in memory, sent by its descriptor,
//! so that nobody ever waits for the other side to read.
//!
//! A child may be hostile, so whoever receives believes nothing beyond these bounds: a head has at most
//! [`HEAD`] bytes, a message at most [`DESCRIPTORS`] descriptors and, in the socket itself, [`IN_SOCKET`]
//! bytes; a file is one in memory that can no longer change, and all of it that counts is there, not
//! holes. To read a message never waits for anything, and takes no more memory than its sender has given.
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
use std::os::unix::fs::MetadataExt;

use rustix::fs::SealFlags;
use serde::{Deserialize, Serialize};

use super::task::TaskName;
use crate::message::{self, Message};
use crate::segment;
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
/// Bytes of a head at most.
const HEAD: usize = 16 << 20;
/// Bytes of one text in a report at most; a longer one is cut.
const TEXT: usize = 1 << 20;
/// Descriptors of a message at most.
const DESCRIPTORS: usize = 4096;
/// Bytes of memory that the descriptors of one report may bring with them: the largest object there is.
const MAPPED: u64 = 1 << 40;

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

impl Report {
    /// The same with its texts cut to what a report may hold.
    pub(crate) fn cut(mut self) -> Report {
        let texts = match &mut self {
            Report::Panicked {
                message,
                location,
                backtrace,
            } => vec![message, location, backtrace],
            Report::BadArguments(why) | Report::BadResult(why) => vec![why],
            Report::Ready
            | Report::Refused(..)
            | Report::Began
            | Report::Ends
            | Report::Returned
            | Report::Left => Vec::new(),
        };
        for text in texts {
            if text.len() > TEXT {
                let end = (0..=TEXT).rev().find(|&end| text.is_char_boundary(end));
                text.truncate(end.unwrap_or(0));
            }
        }
        self
    }
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
    pub(crate) fn len(&self) -> usize {
        match self {
            Body::Here(bytes) => bytes.len(),
            Body::File { len, .. } => *len,
        }
    }

    pub(crate) fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Body::Here(bytes) => Ok(bytes),
            Body::File { file, len } => {
                let mut bytes = Vec::new();
                bytes
                    .try_reserve_exact(len)
                    .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
                file.take(len as u64).read_to_end(&mut bytes)?;
                // Whoever sent the file can still move where it is read from.
                if bytes.len() != len {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(bytes)
            }
        }
    }
}

/// Sends one message. Never waits for the other side.
///
/// # Errors
///
/// What the kernel said; `BrokenPipe` when the other side is gone; `InvalidInput` if the head or the
/// descriptors are beyond the bounds.
pub(crate) fn send(
    socket: impl AsFd,
    head: &impl Message,
    body: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut encoded = Vec::new();
    message::encode(head, &mut encoded).map_err(io::Error::other)?;
    let head = encoded;
    if head.len() > HEAD || descriptors.len() > DESCRIPTORS {
        let why = format!(
            "a message between processes holds at most {HEAD} bytes of settings and {DESCRIPTORS} descriptors, \
             this one has {} and {}",
            head.len(),
            descriptors.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
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
    let len = head.len() as u64 + body.len() as u64;
    let file = sys::memfd("multiproc:message", len).map_err(|error| match error.raw_os_error() {
        Some(nix::libc::EFBIG) => io::Error::new(
            error.kind(),
            format!(
                "{len} bytes are more than a file of this process may have (RLIMIT_FSIZE, `ulimit -f`)"
            ),
        ),
        _ => error,
    })?;
    let mut file = File::from(file);
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
    receive_rest(socket, &mut Vec::new(), wait)
}

/// As [`receive`]; `early` keeps the descriptors of a message of which the rest has not come yet, until the
/// next call.
///
/// # Errors
///
/// As [`receive`].
pub(crate) fn receive_rest<H: Message>(
    socket: impl AsFd,
    early: &mut Vec<OwnedFd>,
    wait: bool,
) -> io::Result<Option<Arrived<H>>> {
    loop {
        // Asked first: a child would touch much memory for the largest.
        let len = sys::next_message(&socket, wait)?;
        if len > HEADER + IN_SOCKET {
            // Taken from the socket all the same, so that it does not stand before the next one.
            let _ = sys::receive(&socket, &mut [0; HEADER], &mut Vec::new(), wait);
            return Err(beyond("a message is longer than any"));
        }
        let mut buffer = vec![0; len];
        let before = early.len();
        let len = sys::receive(&socket, &mut buffer, early, wait)?;
        if len == 0 {
            return Ok(None);
        }
        let Some((header, inline)) = buffer[..len].split_at_checked(HEADER) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let (flags, head_len, body_len) = parse(header)?;
        if early.len() > DESCRIPTORS {
            return Err(beyond("a message has too many descriptors"));
        }
        if flags & MORE != 0 {
            // Each brings some, so that there is an end to them.
            if early.len() == before {
                return Err(beyond("a part of a message has no descriptors"));
            }
            continue;
        }
        let mut descriptors = std::mem::take(early);
        let (head, body) = if flags & IN_FILE == 0 {
            let parts = inline.split_at_checked(head_len);
            let (head, body) = parts.ok_or(io::ErrorKind::InvalidData)?;
            (head.to_vec(), Body::Here(body.to_vec()))
        } else {
            if descriptors.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut file = File::from(descriptors.remove(0));
            let len = body_len;
            check_file(&file, head_len, len)?;
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

fn beyond(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Refuses a file that could change, that waits for somebody when it is read, or that has less in it than
/// is to be read from it.
fn check_file(file: &File, head: usize, body: usize) -> io::Result<()> {
    // Only files in memory carry seals.
    if !sys::is_sealed_against_writing(file) {
        return Err(beyond("the file of a message is not sealed"));
    }
    if head > HEAD {
        return Err(beyond("the head of a message is longer than any"));
    }
    let needed = head as u64 + body as u64;
    let its = file.metadata()?;
    // A hole costs its sender nothing and whoever reads it as much as data.
    if its.len() < needed || its.blocks().saturating_mul(512) < needed {
        return Err(beyond("the file of a message is not all there"));
    }
    Ok(())
}

/// Refuses descriptors that would take more of this process's address space than any object needs.
pub(crate) fn check_lengths(files: &[OwnedFd]) -> io::Result<()> {
    let mut all = 0_u64;
    // Nothing else is ever mapped.
    let mapped = files
        .iter()
        .filter(|file| sys::seals(file).contains(sys::SEALS));
    for file in mapped {
        all = all.saturating_add(segment::mapped_length(file)?);
    }
    match all <= MAPPED {
        true => Ok(()),
        false => Err(beyond(
            "the memory that a child passes on is larger than any",
        )),
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
    fn descriptors_that_come_early_are_kept() {
        let (here, there) = sys::socket_pair().unwrap();
        let mut early = Vec::new();
        sys::send(&here, &[IoSlice::new(&header(MORE, 0, 0))], &[here.as_fd()]).unwrap();
        let nothing = receive_rest::<String>(&there, &mut early, false).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        send(&here, &"rest".to_string(), &[], &[here.as_fd()]).unwrap();
        let arrived = receive_rest::<String>(&there, &mut early, false)
            .unwrap()
            .unwrap();
        assert_eq!(
            (arrived.head.as_str(), arrived.descriptors.len()),
            ("rest", 2)
        );
        assert!(early.is_empty());
    }

    #[test]
    fn what_is_sent_stays_within_the_bounds() {
        let (here, there) = sys::socket_pair().unwrap();
        let error = send(&here, &"x".repeat(HEAD + 1), &[], &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let files = vec![here.as_fd(); DESCRIPTORS + 1];
        let error = send(&here, &String::new(), &[], &files).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let report = Report::Panicked {
            message: "\u{e9}".repeat(TEXT),
            location: String::new(),
            backtrace: "x".repeat(TEXT + 1),
        };
        send(&here, &report.cut(), &[], &[]).unwrap();
        let arrived = receive::<Report>(&there, false).unwrap().unwrap();
        assert!(
            matches!(arrived.head, Report::Panicked { message, backtrace, .. }
                if message.len() == TEXT && backtrace.len() == TEXT)
        );
    }

    #[test]
    fn arbitrary_bytes_are_an_error() {
        let (here, there) = sys::socket_pair().unwrap();
        let long = vec![0; HEADER + IN_SOCKET + 1];
        for bytes in [vec![1], vec![255; HEADER], vec![1; 40], vec![0; 40], long] {
            sys::send(&here, &[IoSlice::new(&bytes)], &[]).unwrap();
            let error = receive::<Order>(&there, false).unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock);
            let nothing = receive::<Order>(&there, false).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
