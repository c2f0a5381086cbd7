//! Pipes and sockets of the operating system, with blocking writes, and blocking reads where an answer always comes.

use crate::rig::roles::{Duplex, End, Rx, RxBytes, Tx, TxBytes};
use crate::rig::runs::{Link, LinkBytes};
use bytemuck::{NoUninit, Pod};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// One pipe, whatever the number of ends: small writes go in whole, and so come out.
pub struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Pipe {
    pub fn new() -> Pipe {
        let (reader, writer) = pipe().expect("making a pipe");
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe that does not block");
        Pipe { reader, writer }
    }

    fn writer(&self) -> PipeWriter {
        self.writer
            .try_clone()
            .expect("another descriptor of a pipe")
    }

    fn reader(&self) -> Reader {
        Reader(
            self.reader
                .try_clone()
                .expect("another descriptor of a pipe"),
        )
    }
}

/// Sleeps while the pipe is empty and looks now and then whether it is all over: the coordinator holds a writing end, so
/// the pipe itself never ends.
pub struct Reader(PipeReader);

impl Reader {
    fn fill(&mut self, into: &mut [u8], end: &impl End) -> bool {
        let mut done = 0;
        while done < into.len() {
            match self.0.read(&mut into[done..]) {
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if done == 0 && end.reached() {
                        return false;
                    }
                    let mut empty = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
                    poll(&mut empty, PollTimeout::from(2u8)).expect("waiting for a pipe");
                }
                Err(error) => panic!("reading from a pipe: {error}"),
            }
        }
        true
    }
}

impl<M: Pod> Link<M> for Pipe {
    type Tx = PipeWriter;
    type Rx = Reader;

    fn tx(&self, _: usize) -> PipeWriter {
        self.writer()
    }

    fn rx(&self, _: usize) -> Reader {
        self.reader()
    }
}

impl<M: NoUninit> Tx<M> for PipeWriter {
    fn send(&mut self, message: M) {
        self.write_all(bytemuck::bytes_of(&message))
            .expect("writing to a pipe");
    }
}

impl<M: Pod> Rx<M> for Reader {
    fn recv(&mut self, end: &impl End) -> Option<M> {
        let mut message = M::zeroed();
        self.fill(bytemuck::bytes_of_mut(&mut message), end)
            .then_some(message)
    }
}

impl LinkBytes for Pipe {
    type Tx = PipeWriter;
    type Rx = Reader;

    fn tx(&self) -> PipeWriter {
        self.writer()
    }

    fn rx(&self) -> Reader {
        self.reader()
    }
}

impl TxBytes for PipeWriter {
    fn send(&mut self, message: &[u8]) {
        self.write_all(message).expect("writing to a pipe");
    }
}

impl RxBytes for Reader {
    fn recv(&mut self, into: &mut [u8], end: &impl End) -> bool {
        self.fill(into, end)
    }
}

/// Both directions over blocking descriptors.
pub struct Descriptors<R, W>(R, W);

impl<R: Read, W: Write> Duplex for Descriptors<R, W> {
    fn send(&mut self, value: u64) {
        self.1.write_all(&value.to_ne_bytes()).expect("writing");
    }

    fn recv(&mut self) -> u64 {
        let mut value = [0; 8];
        self.0.read_exact(&mut value).expect("reading");
        u64::from_ne_bytes(value)
    }
}

/// Two pipes; `side` 0 or 1 takes its ends of them.
pub fn pipes() -> impl Fn(usize) -> Descriptors<PipeReader, PipeWriter> {
    let pipes = [
        pipe().expect("making a pipe"),
        pipe().expect("making a pipe"),
    ];
    move |side| {
        let reader = pipes[1 - side]
            .0
            .try_clone()
            .expect("another descriptor of a pipe");
        let writer = pipes[side]
            .1
            .try_clone()
            .expect("another descriptor of a pipe");
        Descriptors(reader, writer)
    }
}

/// A pair of sockets; `side` 0 or 1 takes one.
pub fn sockets() -> impl Fn(usize) -> Descriptors<UnixStream, UnixStream> {
    let (one, other) = UnixStream::pair().expect("making a pair of sockets");
    let ends = [one, other];
    move |side| {
        let clone = || {
            ends[side]
                .try_clone()
                .expect("another descriptor of a socket")
        };
        Descriptors(clone(), clone())
    }
}
