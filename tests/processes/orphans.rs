//! Nobody outlives a parent.

use std::thread;
use std::time::Duration;

use multiproc::{Pool, Stdio};

use crate::help::{self, process, sleep_long, spawn, tests};

tests![
    whatever_they_do,
    at_any_moment,
    detached_ones_too,
    when_the_parent_returns,
    when_the_control_socket_is_held_by_a_stranger,
];

/// They take a second at most on a machine that has time for them; a loaded one may need longer to run them.
const SOON: Duration = Duration::from_secs(20);

fn compute() {
    let mut n = 1_u64;
    loop {
        n = std::hint::black_box(n.wrapping_mul(3));
    }
}

fn block_on_input() {
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let _ = rustix::io::read(reader, &mut [0]);
}

fn ignore_all_signals() {
    for signal in nix::sys::signal::Signal::iterator() {
        // SAFETY: ignoring a signal runs no code. Those that cannot be ignored are refused.
        let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) };
    }
    nix::sys::signal::SigSet::all().thread_block().unwrap();
    compute();
}

fn stop() {
    nix::sys::signal::raise(nix::sys::signal::SIGSTOP).unwrap();
}

fn close_everything() {
    // SAFETY: it is the rudeness that is wanted; nothing that follows uses a descriptor.
    unsafe { nix::libc::syscall(nix::libc::SYS_close_range, 0, u32::MAX, 0) };
    sleep_long();
}

fn without_the_systems_tie() {
    // As any change of the user does.
    rustix::process::set_parent_process_death_signal(None).unwrap();
    compute();
}

fn nest(left: u32) {
    let _child = (left > 0).then(|| spawn(nest, (left - 1,)).unwrap());
    sleep_long();
}

fn parent_of_all() {
    let _children = [
        spawn(compute, ()).unwrap(),
        spawn(block_on_input, ()).unwrap(),
        spawn(ignore_all_signals, ()).unwrap(),
        spawn(stop, ()).unwrap(),
        spawn(close_everything, ()).unwrap(),
        spawn(without_the_systems_tie, ()).unwrap(),
        spawn(nest, (3,)).unwrap(),
    ];
    sleep_long();
}

fn whatever_they_do() {
    let mark = help::tree_mark();
    let parent = process()
        .env(help::TREE, &mark)
        .spawn(parent_of_all, ())
        .unwrap();
    help::wait_until(Duration::from_secs(20), "the whole family lives", || {
        help::family(&mark).len() == 1 + 6 + 4
    });
    thread::sleep(Duration::from_millis(100));
    parent.kill().unwrap();
    help::wait_until(SOON, "all are gone", || help::marked(&mark).is_empty());
    drop(parent);
}

/// Starts children as fast as it can, some of which start children.
fn breed() {
    fn short(depth: u32) -> u32 {
        if depth > 0 {
            return spawn(short, (depth - 1,)).unwrap().join().unwrap_or(0);
        }
        1
    }
    let threads: Vec<_> = (0..2)
        .map(|_| {
            thread::spawn(|| {
                loop {
                    let kept = spawn(sleep_long, ());
                    let _ = spawn(short, (2,)).map(|child| child.join());
                    drop(kept);
                }
            })
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
}

/// Pools whose workers compute, block, ignore whatever can be ignored, and have pools themselves.
fn pools_in_pools() {
    fn inner(n: u64) -> u64 {
        let pool = Pool::new(2).unwrap();
        let _stubborn = pool.apply_async(ignore_all_signals, ());
        pool.map(|n: u64| (0..n * 1000).sum::<u64>(), 0..n).unwrap();
        sleep_long();
        n
    }
    let pool = Pool::new(3).unwrap();
    let _kept = (
        pool.apply_async(compute, ()),
        pool.apply_async(block_on_input, ()),
        pool.map_async(inner, 1..100),
    );
    sleep_long();
}

/// How many parents are killed; more by the variable.
fn rounds() -> u32 {
    let asked = std::env::var("MULTIPROC_ORPHAN_ROUNDS").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(200)
}

fn at_any_moment() {
    const AT_ONCE: u32 = 4;
    thread::scope(|scope| {
        for first in 0..AT_ONCE {
            scope.spawn(move || {
                let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(first);
                for round in (first..rounds()).step_by(AT_ONCE as usize) {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    kill_parent(round, Duration::from_micros((random >> 33) % 60_000));
                }
            });
        }
    });
}

fn kill_parent(round: u32, age: Duration) {
    let mark = help::tree_mark();
    let parent = process()
        .env(help::TREE, &mark)
        .stdin(Stdio::Null)
        .stderr(Stdio::Null);
    let parent = match round % 3 {
        0 => parent.spawn(breed, ()),
        1 => parent.spawn(pools_in_pools, ()),
        _ => parent.spawn(parent_of_all, ()),
    };
    let parent = parent.unwrap();
    thread::sleep(age);
    parent.kill().unwrap();
    drop(parent);
    help::wait_until(SOON, &format!("all are gone, round {round}"), || {
        help::marked(&mark).is_empty()
    });
}

fn detached_ones_too() {
    let mark = help::tree_mark();
    let parent = process().env(help::TREE, &mark).spawn(
        || {
            spawn(compute, ()).unwrap().detach();
            sleep_long();
        },
        (),
    );
    let parent = parent.unwrap();
    help::wait_until(Duration::from_secs(10), "both live", || {
        help::family(&mark).len() == 2
    });
    parent.kill().unwrap();
    help::wait_until(SOON, "all are gone", || help::marked(&mark).is_empty());
    drop(parent);
}

fn when_the_parent_returns() {
    let mark = help::tree_mark();
    let parent = process().env(help::TREE, &mark).spawn(
        || {
            spawn(compute, ()).unwrap().detach();
            std::mem::forget(spawn(compute, ()).unwrap());
        },
        (),
    );
    parent.unwrap().join().unwrap();
    help::wait_until(SOON, "all are gone", || help::marked(&mark).is_empty());
}

fn when_the_control_socket_is_held_by_a_stranger() {
    // A fork of the parent keeps its descriptors, so that no socket tells of its death.
    fn parent() {
        let _child = spawn(ignore_all_signals, ()).unwrap();
        // SAFETY: the copy only sleeps, and is a process of one thread.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => loop {
                nix::unistd::pause();
            },
            nix::unistd::ForkResult::Parent { .. } => sleep_long(),
        }
    }
    let mark = help::tree_mark();
    let parent = process().env(help::TREE, &mark).spawn(parent, ()).unwrap();
    help::wait_until(Duration::from_secs(10), "all live", || {
        help::family(&mark).len() == 3
    });
    thread::sleep(Duration::from_millis(100));
    parent.kill().unwrap();
    help::wait_until(SOON, "only the fork is left", || {
        help::family(&mark).len() == 1
    });
    for fork in help::marked(&mark) {
        let fork = nix::unistd::Pid::from_raw(fork as i32);
        nix::sys::signal::kill(fork, nix::sys::signal::SIGKILL).unwrap();
    }
    drop(parent);
}
