//! A hostile child: it speaks raw bytes on its control socket, and its parent goes on.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use multiproc::{Child, JoinError, Process, Segment, SpawnError, StartMethod};
use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::help::{descriptors, isolated, process, sleep_long, spawn, tests, wait_until};

tests![
    a_result_is_as_long_as_it_says,
    heads_and_bodies_of_holes,
    files_that_can_change,
    reports_without_end,
    results_without_end,
    parts_without_end,
    descriptors_without_end,
    a_message_longer_than_any,
    more_memory_than_there_is,
    results_have_a_limit,
    every_place_in_the_tree_is_taken,
];

const IN_FILE: u32 = 1;
const MORE: u32 = 2;

// What a child says, as the first byte of a head.
const READY: u8 = 0;
const BEGAN: u8 = 2;
const ENDS: u8 = 3;
const RETURNED: u8 = 4;
const LEFT: u8 = 8;

/// This process's socket to its parent.
fn control() -> RawFd {
    let sockets = descriptors()
        .into_iter()
        .filter(|(_, target)| target.starts_with("socket:"));
    let sockets = sockets.map(|(number, _)| number as RawFd).filter(|number| {
        // SAFETY: the descriptor is open, and only borrowed.
        let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(*number) };
        getsockopt(&socket, sockopt::SockType)
            .is_ok_and(|kind| kind == nix::sys::socket::SockType::SeqPacket)
    });
    let sockets: Vec<RawFd> = sockets.collect();
    // The other one leads to its parent's inbox. It comes later to a program that was executed, and is there
    // before where a zygote forks.
    let own = match std::env::var(crate::help::METHOD).as_deref() {
        Ok("exec") => sockets.first(),
        _ => sockets.last(),
    };
    *own.expect("a child has a control socket")
}

fn header(flags: u32, head: u32, body: u64) -> Vec<u8> {
    let mut bytes = flags.to_ne_bytes().to_vec();
    bytes.extend(head.to_ne_bytes());
    bytes.extend(body.to_ne_bytes());
    bytes
}

fn say(bytes: &[u8], files: &[RawFd]) -> nix::Result<usize> {
    say_at(control(), bytes, files)
}

fn say_at(socket: RawFd, bytes: &[u8], files: &[RawFd]) -> nix::Result<usize> {
    let parts = [IoSlice::new(bytes)];
    let rights = [ControlMessage::ScmRights(files)];
    let rights = if files.is_empty() {
        &[][..]
    } else {
        &rights[..]
    };
    sendmsg::<()>(socket, &parts, rights, MsgFlags::MSG_NOSIGNAL, None)
}

/// One message, all of it in the socket.
fn message(head: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(0, 1, body.len() as u64);
    bytes.push(head);
    bytes.extend_from_slice(body);
    bytes
}

/// A file in memory that begins with `bytes` and is `length` long, the rest of it holes.
fn file(bytes: &[u8], length: u64, seals: SealFlags) -> File {
    let file = rustix::fs::memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let file = File::from(file.unwrap());
    file.set_len(length).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file
}

fn sealed() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL | SealFlags::WRITE
}

/// MiB that this process has ever had in memory at once.
fn peak() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib / 1024
}

/// That an operation costs this process no memory to speak of.
fn cheap<R>(act: impl FnOnce() -> R) -> R {
    let before = peak();
    let result = act();
    let taken = peak() - before;
    assert!(taken < 100, "{taken} MiB");
    result
}

fn refused(child: Child<u64>) {
    let error = cheap(|| child.join()).unwrap_err();
    assert!(
        matches!(&error, JoinError::Io(why) if why.kind() == std::io::ErrorKind::InvalidData),
        "{error:?}"
    );
}

fn a_result_is_as_long_as_it_says() {
    isolated(|| {
        let child = spawn(
            || -> u64 {
                let mut bytes = vec![RETURNED];
                bytes.extend(7_u64.to_ne_bytes());
                let file = file(&bytes, 1 << 30, sealed());
                say(&header(IN_FILE, 1, 8), &[file.as_raw_fd()]).unwrap();
                std::process::exit(0)
            },
            (),
        );
        assert_eq!(cheap(|| child.unwrap().join()).unwrap(), 7);
    });
}

fn heads_and_bodies_of_holes() {
    isolated(|| {
        let large: u64 = 300 << 20;
        for (head, body) in [(large, 8), (1, large), (1 << 31, 1 << 31)] {
            let child = spawn(
                |head: u64, body: u64| -> u64 {
                    let file = file(&[RETURNED], head + body, sealed());
                    say(&header(IN_FILE, head as u32, body), &[file.as_raw_fd()]).unwrap();
                    std::process::exit(0)
                },
                (head, body),
            );
            refused(child.unwrap());
        }
    });
}

fn files_that_can_change() {
    let send = |seals: u32| -> u64 {
        let mut bytes = vec![RETURNED];
        bytes.extend(7_u64.to_ne_bytes());
        let file = file(&bytes, 9, SealFlags::from_bits_retain(seals));
        say(&header(IN_FILE, 1, 8), &[file.as_raw_fd()]).unwrap();
        std::process::exit(0)
    };
    for seals in [
        SealFlags::empty(),
        SealFlags::SHRINK,
        sealed() - SealFlags::WRITE,
    ] {
        refused(spawn(send, (seals.bits(),)).unwrap());
    }
    assert_eq!(spawn(send, (sealed().bits(),)).unwrap().join().unwrap(), 7);
    let pipe = || -> u64 {
        let (reading, _writing) = rustix::pipe::pipe().unwrap();
        say(&header(IN_FILE, 0, 0), &[reading.as_raw_fd()]).unwrap();
        std::process::exit(0)
    };
    refused(spawn(pipe, ()).unwrap());
}

fn reports_without_end() {
    for head in [READY, BEGAN, ENDS, LEFT] {
        let child = spawn(
            |head: u8| -> u64 {
                let (socket, bytes) = (control(), message(head, &[]));
                // Faster than one process can read.
                for _ in 0..4 {
                    let bytes = bytes.clone();
                    std::thread::spawn(move || {
                        loop {
                            // It waits when the socket is full.
                            say_at(socket, &bytes, &[]).unwrap();
                        }
                    });
                }
                sleep_long();
                0
            },
            (head,),
        );
        let child = child.unwrap();
        for _ in 0..20 {
            let now = child.join_timeout(Duration::from_millis(10));
            assert!(matches!(now, Ok(None)), "{now:?}");
        }
    }
}

fn results_without_end() {
    isolated(|| {
        let child = spawn(
            || -> u64 {
                let (socket, bytes) = (control(), message(RETURNED, &[1; 30_000]));
                let end = Instant::now() + Duration::from_secs(2);
                while Instant::now() < end {
                    // Whether anybody reads it or not.
                    let parts = [IoSlice::new(&bytes)];
                    let flags = MsgFlags::MSG_DONTWAIT;
                    let _ = sendmsg::<()>(socket, &parts, &[], flags, None);
                }
                std::process::exit(0)
            },
            (),
        );
        let child = child.unwrap();
        let error = cheap(|| {
            loop {
                match child.join_timeout(Duration::from_millis(1)) {
                    Ok(None) => {}
                    Ok(Some(value)) => panic!("{value}"),
                    Err(error) => break error,
                }
            }
        });
        assert!(matches!(error, JoinError::Decode(_)), "{error:?}");
    });
}

fn parts_without_end() {
    let child = spawn(
        || -> u64 {
            let (socket, bytes) = (control(), header(MORE, 0, 0));
            let end = Instant::now() + Duration::from_secs(60);
            while Instant::now() < end && say_at(socket, &bytes, &[]).is_ok() {}
            0
        },
        (),
    );
    let child = child.unwrap();
    let now = child.join_timeout(Duration::from_millis(200));
    assert!(matches!(now, Ok(None)), "{now:?}");
    child.kill().unwrap();
    refused(child);
}

fn descriptors_without_end() {
    isolated(|| {
        spawn(|| (), ()).unwrap().join().unwrap();
        let child = spawn(
            || -> u64 {
                let file = File::open("/dev/null").unwrap();
                let files = vec![file.as_raw_fd(); 250];
                for _ in 0..40 {
                    if say(&header(MORE, 0, 0), &files).is_err() {
                        break;
                    }
                }
                std::process::exit(0)
            },
            (),
        );
        let error = child.unwrap().join().unwrap_err();
        assert!(matches!(error, JoinError::Io(_)), "{error:?}");
        wait_until(
            Duration::from_secs(20),
            "the descriptors are closed",
            || {
                let all = descriptors();
                all.iter()
                    .filter(|(_, target)| target == "/dev/null")
                    .count()
                    < 10
            },
        );
    });
}

fn a_message_longer_than_any() {
    let child = spawn(
        || -> u64 {
            say(&vec![0; 100_000], &[]).unwrap();
            std::process::exit(0)
        },
        (),
    );
    refused(child.unwrap());
}

/// A segment's file that says it is longer than any machine has memory for, and is.
fn endless_segment() -> OwnedFd {
    let segment = Segment::new(4096).unwrap();
    let (number, _) = descriptors()
        .into_iter()
        .find(|(_, target)| target.starts_with("/memfd:multiproc:segment"))
        .unwrap();
    let mut header = vec![0; 4096];
    let theirs = std::fs::File::open(format!("/proc/self/fd/{number}")).unwrap();
    let length = theirs.metadata().unwrap().len();
    theirs.read_exact_at(&mut header, 0).unwrap();
    drop(segment);
    let endless: u64 = 1 << 46;
    for word in header.chunks_exact_mut(8) {
        if word == length.to_ne_bytes() {
            word.copy_from_slice(&endless.to_ne_bytes());
        }
    }
    file(&header, endless, sealed() - SealFlags::WRITE).into()
}

fn more_memory_than_there_is() {
    let child = spawn(
        || -> u64 {
            let file = endless_segment();
            let result = message(RETURNED, &7_u64.to_ne_bytes());
            say(&result, &[file.as_raw_fd()]).unwrap();
            std::process::exit(0)
        },
        (),
    );
    refused(child.unwrap());
    // What it leaves behind is not taken either.
    isolated(|| {
        let child = spawn(
            || -> u64 {
                let file = endless_segment();
                say(&message(RETURNED, &7_u64.to_ne_bytes()), &[]).unwrap();
                say(&message(LEFT, &[]), &[file.as_raw_fd()]).unwrap();
                std::process::exit(0)
            },
            (),
        );
        assert_eq!(child.unwrap().join().unwrap(), 7);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains("hostile"), "{maps}");
    });
}

fn results_have_a_limit() {
    let long = |len: usize| vec![1_u8; len];
    for len in [10, 1000, 1 << 20] {
        let error = process()
            .max_result(9)
            .spawn(long, (len,))
            .unwrap()
            .join()
            .unwrap_err();
        assert!(
            matches!(error, JoinError::ResultTooLarge { bytes, limit: 9 } if bytes >= len),
            "{error:?}"
        );
        let result = process()
            .max_result(len + 16)
            .spawn(long, (len,))
            .unwrap()
            .join();
        assert_eq!(result.unwrap().len(), len);
    }
}

fn every_place_in_the_tree_is_taken() {
    // In a tree of its own, which it spoils.
    let mut program = std::process::Command::new("/proc/self/exe")
        .env("MULTIPROC_TEST_SCENARIO", "every place taken")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    program
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(program.wait().unwrap().success());
    assert_eq!(said, "refused twice\n");
}

/// A program one of whose children locks what is not its own.
pub(crate) fn every_place_taken() {
    let hostile = Process::spawn(
        || {
            let (number, _) = descriptors()
                .into_iter()
                .find(|(_, target)| target.starts_with("/memfd:multiproc:roster"))
                .unwrap();
            // SAFETY: the descriptor is open, stays so, and is not closed here.
            let roster = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(number as RawFd) });
            let all = nix::libc::flock {
                l_type: nix::libc::F_WRLCK as i16,
                l_whence: nix::libc::SEEK_SET as i16,
                // Its parent and it have the first two.
                l_start: 3,
                l_len: 0,
                l_pid: 0,
            };
            nix::fcntl::fcntl(&*roster, nix::fcntl::FcntlArg::F_SETLK(&all)).unwrap();
            sleep_long();
        },
        (),
    );
    let _hostile = hostile.unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let mut refused = 0;
    for method in [StartMethod::Exec, StartMethod::Zygote] {
        let child = match Process::builder().start_method(method).spawn(|| 1, ()) {
            Ok(child) => child,
            Err(error) => panic!("{error}"),
        };
        let end = child.join_timeout(Duration::from_secs(60));
        assert!(
            matches!(&end, Err(JoinError::NotBegun(SpawnError::NotReady(why))) if why.contains("tree")),
            "{end:?}"
        );
        refused += 1;
    }
    assert_eq!(refused, 2);
    println!("refused twice");
}
