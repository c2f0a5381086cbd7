//! Processes: sockets that carry descriptors, process descriptors, signals, and the running image.
//!
//! # Why this file may use `unsafe`
//!
//! It sets what two signals do, and reads the headers of the loaded images where the loader says they are.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
#[cfg(feature = "hook")]
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{self, SigHandler, SigSet};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Signal, WaitId, WaitIdOptions, WaitOptions,
};

use super::{above_streams, refused};
use crate::error::{NoNull, WorkerExit};

/// Descriptors that one message of a socket carries at most (the kernel's limit is 253).
pub(crate) const DESCRIPTORS_PER_MESSAGE: usize = 250;

/// Two connected sockets that keep messages apart and carry descriptors.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (here, there) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((above_streams(here)?, above_streams(there)?))
}

/// Sends one message with its descriptors; never waits.
pub(crate) fn send(
    socket: impl AsFd,
    parts: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match rustix::net::sendmsg(&socket, parts, &mut control, flags) {
            Err(Errno::INTR) => continue,
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Bytes of the next message; 0 mean that the other side is gone.
pub(crate) fn next_message(socket: impl AsFd, wait: bool) -> io::Result<usize> {
    let mut flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    flags.set(RecvFlags::DONTWAIT, !wait);
    loop {
        match rustix::net::recv(&socket, &mut [0; 1][..], flags) {
            Err(Errno::INTR) => continue,
            other => return Ok(other?.1),
        }
    }
}

/// Receives one message into `buffer` and `descriptors`; 0 bytes mean that the other side is gone.
pub(crate) fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    wait: bool,
) -> io::Result<usize> {
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    flags.set(RecvFlags::DONTWAIT, !wait);
    loop {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(buffer)];
        let message = match rustix::net::recvmsg(&socket, parts, &mut control, flags) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = part {
                for file in files {
                    descriptors.push(above_streams(file)?);
                }
            }
        }
        let cut = rustix::net::ReturnFlags::TRUNC | rustix::net::ReturnFlags::CTRUNC;
        if message.flags.intersects(cut) {
            // Descriptors are cut off when this process may not open more.
            return Err(Errno::MFILE.into());
        }
        return Ok(message.bytes);
    }
}

/// Waits until one of `files` is readable or hung up; `None` when `deadline` has passed.
pub(crate) fn poll_any(
    files: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> io::Result<Option<usize>> {
    let mut set: Vec<PollFd<'_>> = files
        .iter()
        .map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN))
        .collect();
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut set, timeout.as_ref()) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(0) if left.is_none_or(|left| left > Duration::ZERO) => continue,
            Ok(_) => return Ok(set.iter().position(|one| !one.revents().is_empty())),
        }
    }
}

/// Whether `file` is readable or hung up now.
pub(crate) fn is_ready(file: BorrowedFd<'_>) -> bool {
    poll_any(&[file], Some(Instant::now())).is_ok_and(|ready| ready.is_some())
}

/// A descriptor of the process `pid`.
pub(crate) fn process_descriptor(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty());
    above_streams(process.map_err(|errno| refused("pidfd_open", errno))?)
}

/// What another process holds as that descriptor: the same, not the file opened once more.
pub(crate) fn take_descriptor(pid: i32, number: i32) -> rustix::io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 0);
    let process = rustix::process::pidfd_open(pid.ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    let taken = rustix::process::pidfd_getfd(process, number, PidfdGetfdFlags::empty())?;
    above_streams(taken).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))
}

/// Sends a signal to a process; nothing happens if it has ended.
pub(crate) fn send_signal(process: impl AsFd, signal: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
    match rustix::process::pidfd_send_signal(process, signal) {
        Err(Errno::SRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// Ends this process at once.
pub(crate) fn kill_self() -> ! {
    // The signal may not be ignored or blocked, and ends every thread.
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}

/// Takes the status of an own child that has ended; `None` while it lives.
pub(crate) fn reap(process: BorrowedFd<'_>) -> Option<WorkerExit> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    loop {
        match rustix::process::waitid(WaitId::PidFd(process), options) {
            Err(Errno::INTR) => continue,
            Err(_) => return Some(WorkerExit::Unknown),
            Ok(None) => return None,
            Ok(Some(status)) => {
                return Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => WorkerExit::Exited(code),
                    (_, Some(signal)) => WorkerExit::Signalled(signal),
                    _ => WorkerExit::Unknown,
                });
            }
        }
    }
}

/// Takes the socket that was handed over as standard input.
pub(crate) fn take_standard_input() -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?)
}

/// The standard streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Input,
    Output,
    Error,
}

/// The device that swallows what is written and has nothing to read.
pub(crate) fn null_device() -> io::Result<OwnedFd> {
    const NULL: &str = "/dev/null";
    let opened = OpenOptions::new().read(true).write(true).open(NULL);
    let opened = opened.map_err(|error| match error.kind() {
        // A root directory without devices, or a rule: the file is what is wrong.
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            io::Error::new(error.kind(), NoNull(error))
        }
        _ => error,
    });
    // Already in the place of a stream, no copy would be made of it there, and it would be closed by `exec`.
    above_streams(opened?.into())
}

/// Makes `file` that standard stream, or nothing if there is none.
pub(crate) fn give_stream(stream: Stream, file: Option<OwnedFd>) -> io::Result<()> {
    let file = match file {
        Some(file) => file,
        None => null_device()?,
    };
    Ok(match stream {
        Stream::Input => rustix::stdio::dup2_stdin(&file),
        Stream::Output => rustix::stdio::dup2_stdout(&file),
        Stream::Error => rustix::stdio::dup2_stderr(&file),
    }?)
}

/// A copy of that standard stream of this process, if it has it.
pub(crate) fn stream(stream: Stream) -> Option<OwnedFd> {
    let here = match stream {
        Stream::Input => rustix::stdio::stdin(),
        Stream::Output => rustix::stdio::stdout(),
        Stream::Error => rustix::stdio::stderr(),
    };
    rustix::io::fcntl_dupfd_cloexec(here, 3).ok()
}

/// A descriptor of a directory, only to enter it.
pub(crate) fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    above_streams(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Makes that directory the working directory.
pub(crate) fn enter(directory: OwnedFd) -> io::Result<()> {
    Ok(rustix::process::fchdir(directory)?)
}

/// Ends an own child that nobody else waits for, and takes its status.
pub(crate) fn end_child(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    // A child that is not reaped keeps its number, so this means no other process.
    if rustix::process::kill_process(pid, Signal::KILL).is_ok() {
        while matches!(
            rustix::process::waitpid(Some(pid), WaitOptions::empty()),
            Err(Errno::INTR)
        ) {}
    }
}

/// Whether processes whose parent has ended become children of this one.
pub(crate) fn adopts_orphans() -> bool {
    std::process::id() == 1
        || rustix::process::child_subreaper().is_ok_and(|reaper| reaper.is_some())
}

/// A pipe: the end to read from and the end to write to.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((above_streams(reading)?, above_streams(writing)?))
}

/// Whether this process may make that directory its own.
pub(crate) fn may_enter(directory: &Path) -> bool {
    directory.is_dir() && rustix::fs::access(directory, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Blocks every signal in the calling thread.
pub(crate) fn block_signals() {
    // Fails only for a bad argument, which a full set is not.
    let _ = SigSet::all().thread_block();
}

/// Lets every signal through to the calling thread.
pub(crate) fn unblock_signals() {
    let _ = SigSet::empty().thread_set_mask();
}

/// What the handler of a signal does that shall have no effect here.
extern "C" fn do_nothing(_: libc::c_int) {}

/// Ignores SIGPIPE, as Rust's runtime does, and does nothing at SIGINT, which is for the parent to decide on.
pub(crate) fn settle_signals() -> io::Result<()> {
    // SAFETY: ignoring a signal installs no code, therefore nothing can run at a wrong moment.
    unsafe { nix::sys::signal::signal(nix::sys::signal::SIGPIPE, SigHandler::SigIgn) }?;
    leave_to_parent(nix::sys::signal::SIGINT)
}

/// Does nothing at a signal.
///
/// Programs that this process executes inherit what is ignored, but no handler: the signal ends them.
pub(crate) fn leave_to_parent(signal: signal::Signal) -> io::Result<()> {
    handle(signal, SigHandler::Handler(do_nothing))
}

/// Lets a signal have the effect that the system gives it.
pub(crate) fn heed(signal: signal::Signal) -> io::Result<()> {
    handle(signal, SigHandler::SigDfl)
}

fn handle(signal: signal::Signal, handler: SigHandler) -> io::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, sigaction};
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing or is the system's own, which is right at any moment.
    let before = unsafe { sigaction(signal, &action) }?;
    if matches!(before.handler(), SigHandler::SigIgn) {
        // Whoever started the parent wants it ignored, as `nohup` and shells do in the background; programs
        // inherit that.
        // SAFETY: as above.
        unsafe { sigaction(signal, &before) }?;
    }
    Ok(())
}

/// Which signal tells of what happens at a descriptor, as the kernel numbers its commands.
const SETSIG: libc::c_int = 10;

/// Asks for SIGKILL when the last writing end of a pipe is closed, or anything is written.
///
/// No thread of this process has a part in that. It holds as long as this process has `reading` open, which
/// must be this process's own opening of the pipe.
pub(crate) fn die_with_pipe(reading: BorrowedFd<'_>) -> io::Result<()> {
    let me = std::process::id() as libc::c_int;
    for (command, argument) in [
        (libc::F_SETOWN, me),
        (SETSIG, libc::SIGKILL),
        (libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK),
    ] {
        // SAFETY: the three commands take a number each, and the descriptor is open.
        if unsafe { libc::fcntl(reading.as_raw_fd(), command, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Asks for SIGKILL when the thread ends that made this process.
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(
        Signal::KILL,
    ))?)
}

/// Asks to be set going, if this process is stopped, when the thread ends that made it.
pub(crate) fn go_on_without_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(
        Signal::CONT,
    ))?)
}

/// Sets the name that `top` and `ps` show: its first 15 bytes.
pub(crate) fn set_process_name(name: &str) {
    let shown: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    if let Ok(shown) = CString::new(shown) {
        // Only shown, so that a refusal harms nothing.
        let _ = rustix::thread::set_name(&shown);
    }
}

/// Lets this thread, and those it makes, run on those processors only.
pub(crate) fn set_affinity(processors: &[usize]) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for processor in processors {
        if *processor >= rustix::thread::CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set.set(*processor);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Adds `increment` to how willingly this process gives way, as `nice` does.
pub(crate) fn add_nice(increment: i32) -> io::Result<()> {
    Ok(rustix::process::nice(increment).map(drop)?)
}

/// How many processes this user may have, if there is a limit.
pub(crate) fn process_limit() -> Option<u64> {
    rustix::process::getrlimit(Resource::Nproc).current
}

/// How many descriptors this process may have, if there is a limit.
pub(crate) fn descriptor_limit() -> Option<u64> {
    rustix::process::getrlimit(Resource::Nofile).current
}

/// One loaded image: the program itself or a library.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Whether it is the program itself.
    pub(crate) is_program: bool,
    /// Where its constants lie: what is readable and written by nobody once the image is loaded.
    pub(crate) constants: Vec<Range<usize>>,
    /// Where the list of its constructors lies, as far as the loader knows.
    #[cfg_attr(not(feature = "hook"), expect(dead_code, reason = "the hook reads it"))]
    pub(crate) constructors: Option<Range<usize>>,
    /// A number that differs from build to build.
    pub(crate) fingerprint: u64,
}

#[cfg(target_pointer_width = "64")]
use libc::Elf64_Phdr as ProgramHeader;

#[cfg(target_pointer_width = "32")]
use libc::Elf32_Phdr as ProgramHeader;

/// Where the list of the constructors of a program lies; empty if nobody tells.
#[cfg(feature = "hook")]
pub(crate) fn constructors(program: &Image) -> Range<usize> {
    let listed = program.constructors.clone();
    listed.or_else(constructors_in_file).unwrap_or(0..0)
}

/// As the sections of this program's file say, for a program that needs no loader and is not moved.
#[cfg(feature = "hook")]
fn constructors_in_file() -> Option<Range<usize>> {
    const WORD: usize = size_of::<usize>();
    const LIST: u32 = 14;
    let file = std::fs::File::open("/proc/self/exe").ok()?;
    let read = |at: usize, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at as u64).ok()?;
        Some(bytes)
    };
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..at + WORD)?.try_into().ok()?;
        Some(usize::from_ne_bytes(word))
    };
    let half = |bytes: &[u8], at: usize| {
        let half = bytes.get(at..at + 2)?.try_into().ok()?;
        Some(usize::from(u16::from_ne_bytes(half)))
    };
    // The file's head: 24 bytes and three words, the last of which says where the sections are described; then,
    // ten bytes further, how long a description is and how many there are.
    let head = read(0, 40 + 3 * WORD)?;
    let table = word(&head, 24 + 2 * WORD)?;
    let [size, count] = [34, 36].map(|at| half(&head, at + 3 * WORD));
    for section in 0..count? {
        // A section: name and kind, then words: flags, address, place, length.
        let its = read(table.checked_add(section * size?)?, 8 + 4 * WORD)?;
        if its[4..8] == LIST.to_ne_bytes() {
            let start = word(&its, 8 + WORD)?;
            return Some(start..start.checked_add(word(&its, 8 + 3 * WORD)?)?);
        }
    }
    None
}

/// Where the list of an image's constructors lies, by its table of what the loader needs.
///
/// # Safety
///
/// `table` is that of an image loaded at `base`.
unsafe fn listed_constructors(base: usize, table: Range<usize>) -> Option<Range<usize>> {
    const WORD: usize = size_of::<usize>();
    const LIST: usize = 25;
    const LENGTH: usize = 27;
    let (mut list, mut length) = (None, None);
    for at in table.step_by(2 * WORD) {
        // SAFETY: the caller says that the table lies there, which is of pairs of words.
        let [tag, value] = unsafe { std::ptr::with_exposed_provenance::<[usize; 2]>(at).read() };
        match tag {
            0 => break,
            LIST => list = Some(value),
            LENGTH => length = Some(value),
            _ => {}
        }
    }
    let start = base.wrapping_add(list?);
    Some(start..start.checked_add(length?)?)
}

/// The loaded image that holds `address`.
pub(crate) fn image_of(address: usize) -> Option<Image> {
    struct Search {
        address: usize,
        seen: usize,
        found: Option<Image>,
    }
    /// # Safety
    ///
    /// To be called by `dl_iterate_phdr` only, with a pointer to a `Search` of its caller's.
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        search: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: `dl_iterate_phdr` passes on the pointer given to it below, to a `Search` that nothing
        // else uses during the call.
        let search = unsafe { &mut *search.cast::<Search>() };
        // SAFETY: `dl_iterate_phdr` hands a description that is valid during this call.
        let info = unsafe { &*info };
        let headers = if info.dlpi_phdr.is_null() {
            &[]
        } else {
            // SAFETY: the loader says that `dlpi_phnum` headers lie there; they stay while the image is
            // loaded, and the loader's lock keeps it loaded during this call.
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) }
        };
        let base = info.dlpi_addr as usize;
        let place = |header: &ProgramHeader| {
            let start = base.wrapping_add(header.p_vaddr as usize);
            start..start.wrapping_add(header.p_memsz as usize)
        };
        let loaded = || headers.iter().filter(|one| one.p_type == libc::PT_LOAD);
        let first = search.seen == 0;
        search.seen += 1;
        if !loaded().any(|one| place(one).contains(&search.address)) {
            return 0;
        }
        let mut hash = Fingerprint::new();
        hash.add(&search.address.wrapping_sub(base).to_le_bytes());
        for header in headers {
            for word in [
                header.p_type as usize,
                header.p_flags as usize,
                header.p_vaddr as usize,
                header.p_filesz as usize,
                header.p_memsz as usize,
            ] {
                hash.add(&word.to_le_bytes());
            }
            let bytes = place(header);
            // The build id is a note; notes lie inside a readable loaded part.
            let readable = loaded().any(|one| {
                let range = place(one);
                one.p_flags & libc::PF_R != 0
                    && range.start <= bytes.start
                    && bytes.end <= range.end
            });
            if header.p_type == libc::PT_NOTE && readable {
                // SAFETY: the range lies inside a part that is loaded readable (just checked) and that
                // nothing writes to, therefore it may be borrowed during this call.
                hash.add(unsafe {
                    std::slice::from_raw_parts(bytes.start as *const u8, bytes.len())
                });
            }
        }
        let protected = headers
            .iter()
            .filter(|one| one.p_type == libc::PT_GNU_RELRO);
        // Constants that hold addresses are written once, by the loader, and protected then. An image that was
        // linked without that protection has them among its variables, where nobody writes them either.
        let is_protected = protected.clone().next().is_some();
        let constant = |one: &&ProgramHeader| {
            one.p_flags & libc::PF_R != 0 && (one.p_flags & libc::PF_W == 0 || !is_protected)
        };
        search.found = Some(Image {
            is_program: first,
            constants: loaded()
                .filter(constant)
                .chain(protected)
                .map(place)
                .collect(),
            constructors: headers
                .iter()
                .filter(|one| one.p_type == libc::PT_DYNAMIC)
                .find_map(|one| {
                    // SAFETY: the loader has loaded the table of an image that has one, and does not move it.
                    unsafe { listed_constructors(base, place(one)) }
                }),
            fingerprint: hash.end(),
        });
        1
    }
    let mut search = Search {
        address,
        seen: 0,
        found: None,
    };
    // SAFETY: `look` has the expected signature, does not unwind (it neither indexes nor allocates beyond
    // memory), and its pointer is valid during the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.found
}

/// A hash that two copies of one program agree on (FNV-1a, 64 bits).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) const fn new() -> Fingerprint {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    pub(crate) const fn end(self) -> u64 {
        self.0
    }
}
/// Bytes of memory that a process has to itself, as far as it is in use; `None` if the system does not say.
pub(crate) fn private_memory(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = text
        .split_ascii_whitespace()
        .skip(1)
        .map_while(|field| field.parse::<u64>().ok());
    let (all, shared) = (pages.next()?, pages.next()?);
    Some(all.saturating_sub(shared) * rustix::param::page_size() as u64)
}
