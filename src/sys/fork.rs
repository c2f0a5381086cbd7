//! A fork whose child is a child of the caller's own parent: a sibling of the caller.
//!
//! The C library's `fork` cannot do that, so the kernel is asked directly, and what the library's own
//! does in its child is done here: the library's record of the thread's number is set (by the kernel,
//! before the child runs), the address that the kernel clears at the thread's end and the list of robust
//! mutexes are registered again. All else that `fork` does (locks of other threads, handlers) is for
//! processes of several threads; this one has one. Whether the record is right is asked of the library
//! itself, in every child, before anything else runs in it.
//!
//! # Why this file may use `unsafe`
//!
//! It forks, finds one word of the C library's, and tells the kernel where a process's titles lie.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::env::VarsOs;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

use nix::libc;
use rustix::process::PrctlMmMap;

use super::{above_streams, kill_self};

/// What a fork needs to know of the C library; found once, in a process of one thread.
#[derive(Debug)]
pub(crate) struct Forker {
    /// Where the library keeps the number of the thread.
    number: *mut u32,
    /// What the kernel clears when the thread ends.
    cleared: *mut libc::c_void,
    /// The thread's list of robust mutexes, and the size of its head; null where there is none yet.
    robust: (*mut libc::c_void, usize),
    /// Whether `clone3` is refused here.
    clone3_refused: Cell<bool>,
}

/// A sibling, with a descriptor of it; the kernel writes its number where the C library looks for it.
const FORK: libc::c_int = libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::CLONE_CHILD_SETTID;

impl Forker {
    /// Looks around in this process.
    ///
    /// # Errors
    ///
    /// `Unsupported` if it has several threads, or a C library that keeps its records elsewhere; what the
    /// kernel said.
    pub(crate) fn new() -> io::Result<Forker> {
        let me = this_thread();
        if std::fs::read_dir("/proc/self/task")?.count() != 1 || number_in_library() != Some(me) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let cleared = rustix::thread::get_clear_child_tid_address()?;
        let cleared = cleared.map_or(null_mut(), |address| address.as_ptr());
        let mut robust = (null_mut(), 0_usize);
        // SAFETY: the kernel writes one pointer and one size to these two places.
        let asked = unsafe {
            libc::syscall(
                libc::SYS_get_robust_list,
                0,
                &raw mut robust.0,
                &raw mut robust.1,
            )
        };
        if asked != 0 {
            return Err(io::Error::last_os_error());
        }
        let number = place_of_number(cleared, me).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Forker {
            number,
            cleared,
            robust,
            clone3_refused: Cell::new(false),
        })
    }

    /// Forks. In the parent, the child's number and a descriptor of it; in the child, nothing.
    ///
    /// The child has this process's memory and descriptors, a single thread, and this process's parent.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub(crate) fn fork(&self) -> io::Result<Option<(u32, OwnedFd)>> {
        let mut process: RawFd = -1;
        let made = match self.clone3_refused.get() {
            true => self.clone(&mut process),
            false => self.clone3(&mut process).or_else(|error| {
                // A filter of system calls cannot look at the arguments of `clone3`, which lie in memory, and
                // therefore refuses it as if there were none (Docker's), or outright; it lets `clone` through.
                match error.raw_os_error() {
                    Some(libc::ENOSYS | libc::EPERM) => {
                        self.clone3_refused.set(true);
                        self.clone(&mut process)
                    }
                    _ => Err(error),
                }
            }),
        };
        match made? {
            0 => {
                self.settle();
                Ok(None)
            }
            made => {
                // SAFETY: the kernel has made the descriptor for this call, and nothing else knows it.
                let process = unsafe { OwnedFd::from_raw_fd(process) };
                Ok(Some((made as u32, above_streams(process)?)))
            }
        }
    }

    fn clone3(&self, process: &mut RawFd) -> io::Result<libc::c_long> {
        // The first version of `struct clone_args`: flags, pidfd, child_tid, parent_tid, exit_signal, stack,
        // stack_size, tls. The signal at its end is this process's own, as the kernel demands.
        let place = std::ptr::from_mut(process) as u64;
        let arguments = [FORK as u64, place, self.number as u64, 0, 0, 0, 0, 0];
        // SAFETY: without CLONE_VM this is a fork: the child gets a copy of all memory and goes on from
        // here. The caller is the only thread (`new` has looked, and a process that forks for others makes
        // none), therefore the copy is consistent. The kernel writes the child's number to `number` in the
        // child's copy alone, which is where the library looks for exactly that, and a new descriptor to
        // `process` in the parent's.
        let made = unsafe {
            libc::syscall(
                libc::SYS_clone3,
                arguments.as_ptr(),
                size_of_val(&arguments),
            )
        };
        match made {
            made if made < 0 => Err(io::Error::last_os_error()),
            made => Ok(made),
        }
    }

    /// As [`clone3`](Forker::clone3), with the arguments as numbers.
    fn clone(&self, process: &mut RawFd) -> io::Result<libc::c_long> {
        let (flags, stack) = (FORK as libc::c_long, 0 as libc::c_long);
        // One architecture has these two the other way round.
        let [first, second] = match cfg!(target_arch = "s390x") {
            true => [stack, flags],
            false => [flags, stack],
        };
        // SAFETY: as in `clone3`. No stack means the caller's own, in the copy. The descriptor goes to the
        // third argument; the place of the number is the fourth or the fifth, as the architecture has it,
        // and the other of the two is not looked at without CLONE_SETTLS.
        let made = unsafe {
            libc::syscall(
                libc::SYS_clone,
                first,
                second,
                std::ptr::from_mut(process),
                self.number,
                self.number,
            )
        };
        match made {
            made if made < 0 => Err(io::Error::last_os_error()),
            made => Ok(made),
        }
    }

    /// What the C library's `fork` does in its child.
    fn settle(&self) {
        let (head, size) = self.robust;
        // SAFETY: both addresses are those that the library registered for this thread in the original, at
        // the same place in the copy, where they live as long as the thread does.
        unsafe {
            libc::syscall(libc::SYS_set_tid_address, self.cleared);
            if !head.is_null() {
                libc::syscall(libc::SYS_set_robust_list, head, size);
            }
        }
        if number_in_library() != Some(this_thread()) {
            // Aborts, signals to itself and locks would go wrong in it; its parent sees it end.
            kill_self();
        }
    }
}

fn this_thread() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

/// What the C library believes to be the number of the calling thread.
fn number_in_library() -> Option<u32> {
    let mut clock = 0;
    // SAFETY: the calling thread lives; the clock is written to a place of its type.
    let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
    // The kernel's form of a thread's clock: the inverted number above three bits.
    (failed == 0).then_some(!(clock >> 3) as u32)
}

/// Where the C library keeps the number of its first and only thread.
fn place_of_number(cleared: *mut libc::c_void, me: u32) -> Option<*mut u32> {
    let cleared = cleared.cast::<u32>();
    // SAFETY: what the kernel shall clear when the thread ends is a word of the library's.
    if !cleared.is_null() && unsafe { cleared.read() } == me {
        // As in glibc: it is the number itself.
        return Some(cleared);
    }
    // As in musl: another word is cleared, and the number lies behind the thread's first pointers.
    // SAFETY: the call has no conditions.
    let thread = unsafe { libc::pthread_self() } as *mut u32;
    // SAFETY: a thread's description begins there and is longer than this, in every C library; it is of
    // words, and no other thread changes it.
    let words: [u32; 24] = unsafe { thread.cast::<[u32; 24]>().read() };
    let mut places = (0..words.len()).filter(|index| words[*index] == me);
    match (places.next(), places.next()) {
        (Some(only), None) => Some(thread.wrapping_add(only)),
        _ => None,
    }
}

/// Closes what this program was given without being asked: descriptors above the standard streams that
/// are not closed when a program is executed.
pub(crate) fn close_inherited() -> io::Result<()> {
    let listed = std::fs::read_dir("/proc/self/fd")?;
    let numbers: Vec<RawFd> = listed
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: only the flags of whatever stands at the number are asked for.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: everything that Rust opens is closed on execution, so this is nobody's here.
            unsafe { libc::close(number) };
        }
    }
    Ok(())
}

/// What the kernel was told to show: it reads it for as long as the process lives.
static SHOWN: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Where the kernel finds what `ps` shows of this process: kept by a process of one thread, and still
/// right in its forks.
#[derive(Debug)]
pub(crate) struct Titles {
    map: PrctlMmMap,
}

impl Titles {
    /// As they are now; `None` where the kernel does not tell.
    pub(crate) fn new() -> Option<Titles> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name in brackets may hold anything. After it comes the third field.
        let fields: Vec<u64> = text
            .rsplit_once(')')?
            .1
            .split_ascii_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Titles {
            map: PrctlMmMap {
                start_code: field(26)?,
                end_code: field(27)?,
                start_data: field(45)?,
                end_data: field(46)?,
                start_brk: field(47)?,
                brk: 0,
                start_stack: field(28)?,
                arg_start: field(48)?,
                arg_end: field(49)?,
                env_start: field(50)?,
                env_end: field(51)?,
                auxv: null_mut(),
                auxv_size: 0,
                exe_fd: -1,
            },
        })
    }

    /// Shows `arguments` as those of this process and, if it is given,
    /// `environment`. Only shown: a refusal changes nothing. This process must have one thread.
    pub(crate) fn show(&mut self, arguments: &[&OsStr], environment: Option<VarsOs>) {
        let mut bytes = Vec::new();
        for argument in arguments {
            let argument = argument.as_encoded_bytes().iter();
            bytes.extend(argument.map(|byte| if *byte == 0 { b'?' } else { *byte }));
            bytes.push(0);
        }
        let range = |bytes: Vec<u8>| {
            let at = bytes.as_ptr_range();
            // A panic while it is locked changes nothing of what is in it.
            SHOWN
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(bytes);
            (at.start as u64, at.end as u64)
        };
        (self.map.arg_start, self.map.arg_end) = range(bytes);
        if let Some(environment) = environment {
            let mut bytes = Vec::new();
            for (key, value) in environment {
                bytes.extend_from_slice(key.as_encoded_bytes());
                bytes.push(b'=');
                bytes.extend_from_slice(value.as_encoded_bytes());
                bytes.push(0);
            }
            (self.map.env_start, self.map.env_end) = range(bytes);
        }
        // SAFETY: nothing is asked but where the heap ends.
        self.map.brk = unsafe { libc::sbrk(0) } as u64;
        // SAFETY: the heap's end is as it was a moment ago (no other thread moves it), the text's and the
        // data's places are those that the kernel named, and the titles' are only ever read, by the kernel.
        let _ = unsafe { rustix::process::configure_virtual_memory_map(&self.map) };
    }
}
