//! Programs that fork, and programs full of threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use multiproc::{JoinError, SpawnError, active_children};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::fork_advice;
use crate::help::{isolated, sleep_long, spawn, tests};

tests![
    a_fork_has_no_children,
    a_function_that_forks_answers_once,
    sixteen_threads_of_malloc,
    children_of_others_are_left_alone,
];

fn a_fork_has_no_children() {
    isolated(|| {
        if !fork_advice::is_followed() {
            return;
        }
        let child = spawn(sleep_long, ()).unwrap();
        // SAFETY: the copy uses only what this test checks, and then exits at once.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let mut wrong = 0;
                wrong |= i32::from(!matches!(spawn(sleep_long, ()), Err(SpawnError::Forked)));
                wrong |= 2 * i32::from(!active_children().is_empty());
                let timeout = std::time::Duration::from_secs(1);
                let joined = child.join_timeout(timeout);
                wrong |= 4 * i32::from(!matches!(joined, Err(JoinError::Forked)));
                drop(child);
                // SAFETY: it exits without running anything more.
                unsafe { nix::libc::_exit(wrong) }
            }
            ForkResult::Parent { child: copy } => {
                let status = waitpid(copy, None).unwrap();
                assert_eq!(status, WaitStatus::Exited(copy, 0));
                assert!(child.is_alive());
                child.kill().unwrap();
                assert!(matches!(child.join(), Err(JoinError::Signalled(9))));
            }
        }
    });
}

fn a_function_that_forks_answers_once() {
    fn forks(exit: bool) -> u32 {
        // SAFETY: the copy returns at once.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => 2,
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
                if exit {
                    std::process::exit(4);
                }
                1
            }
        }
    }
    let child = spawn(forks, (false,)).unwrap();
    assert_eq!(child.join().unwrap(), 1);
    let child = spawn(forks, (true,)).unwrap();
    assert!(matches!(child.join(), Err(JoinError::Exited(4))));
}

fn sixteen_threads_of_malloc() {
    isolated(|| {
        static OVER: AtomicBool = AtomicBool::new(false);
        let threads: Vec<_> = (0..16)
            .map(|_| {
                thread::spawn(|| {
                    let mut kept = Vec::new();
                    while !OVER.load(Ordering::Relaxed) {
                        kept.push(vec![1_u8; 1 + kept.len() * 37 % 5000]);
                        if kept.len() > 100 {
                            kept.clear();
                            // For whoever starts processes meanwhile, on few cores.
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for n in 0..1000_u32 {
            assert_eq!(spawn(|n: u32| n, (n,)).unwrap().join().unwrap(), n);
        }
        OVER.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

fn children_of_others_are_left_alone() {
    isolated(|| {
        for _ in 0..50 {
            let mut program = std::process::Command::new("sh")
                .args(["-c", "exit 7"])
                .spawn()
                .unwrap();
            spawn(|| (), ()).unwrap().join().unwrap();
            assert_eq!(program.wait().unwrap().code(), Some(7));
        }
    });
}
