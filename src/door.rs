//! The doors through which the fuzz targets come in. Compiled for them alone.
//!
//! A fuzzer builds everything with `--cfg fuzzing`; there is nothing of this in any other build.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::SealFlags;

use crate::handle::{self, Transport};
use crate::message::{self, DecodeError, EncodeError, Message};
use crate::{kin, pool, process, sys};

/// Nobody may keep a call busy for longer.
const BOUND: Duration = Duration::from_secs(5);

/// The bytes of a value.
///
/// # Errors
///
/// Why it has none.
pub fn encode<T: Message>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    message::encode(value, &mut bytes)?;
    Ok(bytes)
}

/// The value of some bytes.
///
/// # Errors
///
/// Why they are none.
pub fn decode<T: Message>(bytes: &[u8]) -> Result<T, DecodeError> {
    message::decode(bytes)
}

/// The bytes and descriptors of a value, as they travel over a socket.
///
/// # Errors
///
/// Why it has none.
pub fn pack<T: Message>(value: &T) -> Result<(Vec<u8>, Vec<OwnedFd>), EncodeError> {
    let (bytes, passed) = handle::collect(Transport::Socket, || encode(value));
    let bytes = bytes?;
    let files = passed.descriptors();
    let files = files.iter().map(|file| file.try_clone_to_owned());
    let files = files.collect::<io::Result<Vec<_>>>().unwrap_or_default();
    passed.forget();
    Ok((bytes, files))
}

/// The value of bytes and descriptors that came over a socket.
///
/// # Errors
///
/// Why they are none, in words.
pub fn unpack<T: Message>(bytes: &[u8], files: Vec<OwnedFd>) -> Result<T, String> {
    handle::with_descriptors(files, || decode(bytes))
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

/// A sealed file in memory that holds these bytes, as a stranger may offer it.
///
/// # Errors
///
/// What the system said.
pub fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = sys::memfd("multiproc:offered", 0)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    sys::seal(&file, SealFlags::empty())?;
    Ok(file)
}

/// A sealed file in memory that says it is so long, and has nothing in it.
///
/// # Errors
///
/// What the system said.
pub fn hole(length: u64) -> io::Result<OwnedFd> {
    let file = sys::memfd("multiproc:offered", 0)?;
    rustix::fs::ftruncate(&file, length)?;
    sys::seal(&file, SealFlags::WRITE)?;
    Ok(file)
}

/// What a child, and what a parent, makes of messages that come over and over again, as fast as they are read: so many
/// calls each.
///
/// # Errors
///
/// What the system said when there was no socket.
pub fn listen_without_end(frames: &[&[u8]], files: &[OwnedFd], calls: usize) -> io::Result<()> {
    for child in [true, false] {
        let (here, there) = sys::socket_pair()?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
                while !over.load(Ordering::Relaxed) {
                    for frame in frames {
                        // What does not fit into a socket now is sent the next time.
                        let _ = sys::send(&here, &[IoSlice::new(frame)], &files);
                    }
                }
            });
            for _ in 0..calls {
                let start = Instant::now();
                // Refused or understood; or there was nothing at that moment.
                let _ = process::listen(&there, child);
                assert!(start.elapsed() < BOUND, "took {:?}", start.elapsed());
            }
            over.store(true, Ordering::Relaxed);
        });
    }
    Ok(())
}

/// What a child, and what a parent, makes of messages that came over their socket: how many each understood.
///
/// # Errors
///
/// What the system said when there was no socket.
pub fn listen(frames: &[&[u8]], files: &[OwnedFd]) -> io::Result<[usize; 2]> {
    let mut understood = [0, 0];
    for (child, understood) in [true, false].into_iter().zip(&mut understood) {
        let (here, there) = sys::socket_pair()?;
        for frame in frames {
            let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            // What does not fit into a socket is not sent by anybody.
            let _ = sys::send(&here, &[IoSlice::new(frame)], &files);
        }
        drop(here);
        // One more than there are: the end.
        for _ in 0..=frames.len() {
            match process::listen(&there, child) {
                Ok(Some(())) => *understood += 1,
                Ok(None) => break,
                Err(_) => {}
            }
        }
    }
    Ok(understood)
}

/// What a pool, or a worker of it, makes of words and bytes in their segment.
pub fn pool(input: &[u8]) {
    pool::fuzzing::play(input);
}

/// Does something as another process would, that is not there: its number is that of whoever attaches.
pub fn pretend<R>(process: u32, act: impl FnOnce() -> R) -> R {
    kin::pretend::be(process, act)
}

/// Nobody has died yet.
pub fn begin() {
    kin::pretend::begin();
}

/// That process dies, and the others hear of it. What it has is to be forgotten, not dropped.
pub fn bury(process: u32) {
    kin::pretend::bury(process);
    if let Ok(kin) = kin::kin() {
        kin.announce_death();
    }
}
