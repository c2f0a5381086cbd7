//! What a thread hands on to the programs that it executes, as far as the kernel tells it.
//!
//! # Why this file may use `unsafe`
//!
//! It makes four system calls that no crate of ours wraps: all ask, and none changes anything.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::process::Resource;

/// What the kernel's account of a thread in `status` does not say, or says only of the whole process.
///
/// Only ever compared: a part that the kernel does not tell is the same in all threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ThreadState {
    /// `struct sched_attr`: policy, nice value, priority, and the limits of a deadline.
    scheduling: [u32; 14],
    /// Personality, timer slack, secure bits, transparent huge pages, machine checks, I/O priority.
    settings: [libc::c_long; 6],
    /// On which memory nodes it allocates.
    memory_policy: (libc::c_int, [u64; 16]),
    /// Soft and hard limit of each resource.
    limits: [[Option<u64>; 2]; 15],
    /// Device and inode of the root directory.
    root: (u64, u64),
    /// Its namespaces, each as the kernel names it.
    namespaces: Vec<u8>,
}

/// The namespaces of a new process. Those in which a thread itself runs (`pid`, `time`) never change, and
/// that of users does not in a process that has two threads, as each has that has a zygote.
const NAMESPACES: [&str; 7] = [
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid_for_children",
    "time_for_children",
    "uts",
];

/// Of a thread or process, and of the calling one.
const IOPRIO_WHO_PROCESS: libc::c_long = 1;

/// The I/O priority that a thread was given, or 0: until it first reads from a disk the kernel tells nothing for
/// none, and from then on what it makes of the nice value.
fn own_io_priority(told: libc::c_long, scheduling: &[u32; 14]) -> libc::c_long {
    let nice = libc::c_long::from(scheduling[4] as i32);
    let class = match scheduling[1] as libc::c_int {
        libc::SCHED_IDLE => 3,
        libc::SCHED_FIFO | libc::SCHED_RR | libc::SCHED_DEADLINE => 1,
        _ => 2,
    };
    let derived = (class << 13) | ((nice + 20) / 5);
    if told == derived { 0 } else { told }
}

/// The folder in which the kernel gives account of the calling thread.
pub(crate) fn own_account() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    super::above_streams(rustix::fs::open("/proc/thread-self", flags, Mode::empty())?)
}

/// All of a short file in that folder.
pub(crate) fn read_account(account: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(account, name, flags, Mode::empty())?);
    let mut text = vec![0; 4096];
    let mut len = 0;
    loop {
        let read = file.read(&mut text[len..])?;
        len += read;
        // One read gives all that there is room for.
        if len < text.len() {
            text.truncate(len);
            return Ok(text);
        }
        text.resize(2 * len, 0);
    }
}

impl ThreadState {
    /// That of the calling thread, whose account that is.
    pub(crate) fn now(account: &OwnedFd) -> io::Result<ThreadState> {
        let mut scheduling = [0_u32; 14];
        // SAFETY: the kernel writes a `struct sched_attr` of at most the size given, all of it numbers, to
        // a place of that size.
        unsafe {
            libc::syscall(
                libc::SYS_sched_getattr,
                0,
                scheduling.as_mut_ptr(),
                size_of_val(&scheduling),
                0,
            )
        };
        if scheduling[1] as libc::c_int != libc::SCHED_DEADLINE {
            // The slice of time that the scheduler gives at the moment, not a setting.
            scheduling[6..8].fill(0);
        }
        let mut memory_policy = (0, [0_u64; 16]);
        // SAFETY: the kernel writes one number to the first place and as many bits as are said to the
        // second.
        unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut memory_policy.0,
                memory_policy.1.as_mut_ptr(),
                u64::BITS as usize * memory_policy.1.len(),
                0,
                0,
            )
        };
        let ask = |number: libc::c_long, arguments: [libc::c_long; 2]| {
            let [first, second] = arguments;
            // SAFETY: the calls below take numbers only, and no more than two that matter; the zeros are for
            // those that `prctl` demands.
            unsafe { libc::syscall(number, first, second, 0, 0, 0) as libc::c_long }
        };
        let get = |what: libc::c_int| ask(libc::SYS_prctl, [what.into(), 0]);
        let settings = [
            ask(libc::SYS_personality, [0xffff_ffff, 0]),
            get(libc::PR_GET_TIMERSLACK),
            get(libc::PR_GET_SECUREBITS),
            get(libc::PR_GET_THP_DISABLE),
            get(libc::PR_MCE_KILL_GET),
            own_io_priority(
                ask(libc::SYS_ioprio_get, [IOPRIO_WHO_PROCESS, 0]),
                &scheduling,
            ),
        ];
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(account, "ns", flags, Mode::empty())?;
        let mut namespaces = Vec::with_capacity(256);
        let mut name = Vec::with_capacity(64);
        for kind in NAMESPACES {
            // To read where the link leads costs the kernel half of what it costs to go there. It may be built
            // without some of them.
            if let Ok(read) = rustix::fs::readlinkat(&folder, kind, name) {
                namespaces.extend_from_slice(read.as_bytes());
                name = read.into_bytes();
            } else {
                namespaces.push(b'-');
                name = Vec::new();
            }
        }
        let root = rustix::fs::stat("/")?;
        Ok(ThreadState {
            scheduling,
            settings,
            memory_policy,
            limits: limits(),
            root: (root.st_dev as u64, root.st_ino as u64),
            namespaces,
        })
    }
}

/// What a process may use at most, one after another.
fn limits() -> [[Option<u64>; 2]; 15] {
    [
        Resource::Cpu,
        Resource::Fsize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::Nproc,
        Resource::Nofile,
        Resource::Memlock,
        Resource::As,
        Resource::Locks,
        Resource::Sigpending,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Rtprio,
        Resource::Rttime,
    ]
    .map(|resource| {
        let limit = rustix::process::getrlimit(resource);
        [limit.current, limit.maximum]
    })
}

/// Whether the calling thread may look into that process, as a debugger may that only reads.
///
/// A thread that has restricted itself by Landlock may not look into a process that is less restricted,
/// and nothing else tells of that.
pub(crate) fn may_look_into(pid: u32) -> bool {
    let (mut head, mut len) = (std::ptr::null::<libc::c_void>(), 0_usize);
    // The cheapest question that the kernel answers to none but those who may look.
    // SAFETY: the kernel writes an address and a size to places for them; the address is not used.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_get_robust_list,
            pid as libc::c_long,
            &raw mut head,
            &raw mut len,
        )
    };
    // Not every kernel, emulator or sandbox knows it: this one they do, which takes fifty times as long.
    asked == 0 || rustix::fs::readlink(format!("/proc/{pid}/cwd"), Vec::new()).is_ok()
}

/// Runs `work` while every signal is blocked in the calling thread.
pub(crate) fn with_signals_blocked<R>(work: impl FnOnce() -> R) -> R {
    let before =
        nix::sys::signal::SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK);
    let done = work();
    if let Ok(before) = before {
        // Refused only for a bad argument, which a mask that was in force is not.
        let _ = before.thread_set_mask();
    }
    done
}
