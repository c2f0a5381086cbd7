//! Ending processes with what they have started, those that cannot be signalled, and what they print.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use multiproc::{JoinError, Pool, Stdio, TaskError};

use crate::help::{
    TREE, all_children, is_zygote, isolated, marked, own_children, process, sleep_long, spawn,
    stat, tests, tree_mark, wait_until,
};

tests![
    what_may_not_be_signalled_is_named,
    a_child_that_cannot_be_signalled_ends,
    zygotes_left_behind_are_reaped,
    output_is_read_with_the_result,
    a_pool_ends_what_its_workers_started,
    a_dead_workers_words_are_checked,
];

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn become_nobody() {
    let nobody = nix::unistd::Uid::from_raw(NOBODY);
    nix::unistd::setresuid(nobody, nobody, nobody).unwrap();
}

fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] == "T")
}

fn what_may_not_be_signalled_is_named() {
    if !is_root() {
        eprintln!("not shown: only root can start what it may not signal then");
        return;
    }
    let mark = tree_mark();
    fn family() {
        let sleeper = || {
            let mut command = Command::new("sleep");
            command.arg("600");
            command
        };
        let others = sleeper().spawn().unwrap();
        let own = sleeper().uid(NOBODY).spawn().unwrap();
        become_nobody();
        drop((others, own));
        sleep_long();
    }
    let child = process().env(TREE, &mark).spawn(
        || {
            let child = process().spawn(family, ()).unwrap();
            let mark = std::env::var(TREE).unwrap();
            wait_until(Duration::from_secs(20), "the family lives", || {
                crate::help::family(&mark).len() == 4
            });
            // Who of the family is whose, is seen while that may be seen.
            std::thread::sleep(Duration::from_millis(200));
            become_nobody();
            let error = child.kill_tree().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            let text = error.to_string();
            assert_eq!(text.matches("sleep (pid ").count(), 1, "{text}");
            assert_eq!(text.matches("(pid ").count(), 1, "{text}");
            let error = child.join().unwrap_err();
            assert!(matches!(error, JoinError::Signalled(9)), "{error:?}");
            text
        },
        (),
    );
    let text = child.unwrap().join().unwrap();
    // Only the one that was named is left, and it goes on.
    wait_until(Duration::from_secs(20), "one is left", || {
        marked(&mark).len() == 1
    });
    let left = marked(&mark)[0];
    assert!(text.contains(&format!("(pid {left}:")), "{text} {left}");
    assert!(!is_stopped(left));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(left as i32),
        nix::sys::signal::SIGKILL,
    )
    .unwrap();
    wait_until(Duration::from_secs(20), "nobody is left", || {
        marked(&mark).is_empty()
    });
}

fn a_child_that_cannot_be_signalled_ends() {
    if !is_root() {
        eprintln!("not shown: only root can start what it may not signal then");
        return;
    }
    isolated(|| {
        let first = spawn(sleep_long, ()).unwrap();
        let second = spawn(sleep_long, ()).unwrap();
        let pids = [first.pid(), second.pid()];
        let lives = |pid: u32| stat(pid).is_some_and(|fields| fields[0] != "Z");
        // What they do, they do.
        std::thread::sleep(Duration::from_millis(200));
        become_nobody();
        let error = first.kill().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        drop(first);
        wait_until(Duration::from_secs(20), "it ends", || !lives(pids[0]));
        // Each has ties of its own.
        assert!(lives(pids[1]));
        drop(second);
        wait_until(Duration::from_secs(20), "it ends", || !lives(pids[1]));
    });
}

fn zygotes_left_behind_are_reaped() {
    isolated(|| {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let family = || {
            let _first = spawn(sleep_long, ()).unwrap();
            let _second = spawn(sleep_long, ()).unwrap();
            sleep_long();
        };
        for _ in 0..3 {
            let child = spawn(family, ()).unwrap();
            let pid = child.pid();
            let theirs = || -> Vec<u32> {
                let all = std::fs::read_dir("/proc").unwrap().flatten();
                let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
                all.filter(|one| crate::help::parent_of(*one) == Some(pid))
                    .collect()
            };
            wait_until(Duration::from_secs(20), "it has children", || {
                theirs().len() >= 2
            });
            child.kill().unwrap();
            child.join().unwrap_err();
            wait_until(
                Duration::from_secs(20),
                "no zombie of a zygote is left",
                || {
                    let zombies = all_children().into_iter();
                    !zombies.into_iter().any(|one| {
                        is_zygote(one) && stat(one).is_some_and(|fields| fields[0] == "Z")
                    })
                },
            );
        }
        // The others are left to the program, which asked for orphans and takes them as it likes.
        for pid in own_children() {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            nix::sys::wait::waitpid(pid, None).unwrap();
        }
    });
}

fn output_is_read_with_the_result() {
    fn talks(len: usize) -> usize {
        // More than both pipes hold, in turns.
        let (mut out, mut error) = (std::io::stdout(), std::io::stderr());
        for _ in 0..len {
            out.write_all(&[b'o'; 1000]).unwrap();
            error.write_all(&[b'e'; 1000]).unwrap();
        }
        len
    }
    let child = process()
        .stdout(Stdio::Pipe)
        .stderr(Stdio::Pipe)
        .spawn(talks, (1000,));
    let output = child.unwrap().join_with_output();
    assert_eq!(output.result.unwrap(), 1000);
    assert_eq!(output.stdout, vec![b'o'; 1_000_000]);
    assert_eq!(output.stderr, vec![b'e'; 1_000_000]);
    // Also without a result, and of a stream that is no pipe nothing.
    let child = process()
        .stderr(Stdio::Pipe)
        .stdout(Stdio::Null)
        .spawn(|| panic!("broken glass"), ());
    let output = child.unwrap().join_with_output();
    assert!(matches!(
        output.result,
        Err::<(), _>(JoinError::Panicked { .. })
    ));
    assert!(output.stdout.is_empty());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("broken glass")
    );
    // What reads until the end of its input comes to it.
    let reads = || std::io::read_to_string(std::io::stdin()).unwrap();
    let child = process()
        .stdin(Stdio::Pipe)
        .stdout(Stdio::Pipe)
        .spawn(reads, ())
        .unwrap();
    assert_eq!(child.join_with_output().result.unwrap(), "");
}

fn a_pool_ends_what_its_workers_started() {
    fn starts(mark: String) {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & wait"]).env(TREE, mark);
        drop(command.spawn().unwrap());
        sleep_long();
    }
    let of = |mark: &str| marked(mark).len();
    let pool = Pool::builder()
        .workers(1)
        .task_timeout(Duration::from_secs(2))
        .kill_tree(true);
    let pool = pool.build().unwrap();
    let mark = tree_mark();
    let error = pool.apply(starts, (mark.clone(),)).unwrap_err();
    assert!(matches!(error, TaskError::TimedOut { .. }), "{error:?}");
    wait_until(Duration::from_secs(20), "what it started is gone", || {
        of(&mark) == 0
    });
    drop(pool);

    let pool = Pool::builder().workers(1).kill_tree(true).build().unwrap();
    let task = pool.apply_async(starts, (mark.clone(),));
    wait_until(Duration::from_secs(20), "it is started", || of(&mark) == 2);
    drop(pool);
    drop(task);
    wait_until(Duration::from_secs(20), "what it started is gone", || {
        of(&mark) == 0
    });

    // Otherwise it goes on, as the docs say.
    let pool = Pool::builder().workers(1).build().unwrap();
    let task = pool.apply_async(starts, (mark.clone(),));
    wait_until(Duration::from_secs(20), "it is started", || of(&mark) == 2);
    drop(pool);
    drop(task);
    for pid in marked(&mark) {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid as i32),
            nix::sys::signal::SIGKILL,
        )
        .unwrap();
    }
    wait_until(Duration::from_secs(20), "nobody is left", || of(&mark) == 0);
}

/// A worker writes over what its chunk is, and dies.
fn a_dead_workers_words_are_checked() {
    const SIZE: usize = 777;
    fn scribbles(item: u64) -> String {
        if item != 5 {
            return item.to_string();
        }
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let word = (SIZE as u64) << 32;
        for line in maps
            .lines()
            .filter(|line| line.contains("memfd:multiproc:pool:"))
        {
            let range = line.split(' ').next().unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let at = |text| usize::from_str_radix(text, 16).unwrap();
            // Behind that is no memory yet, and to look at it would take some.
            let end = at(end).min(at(start) + (8 << 20));
            for address in (at(start)..end).step_by(8) {
                let place = std::ptr::with_exposed_provenance_mut::<u64>(address);
                // SAFETY: the pool's memory is mapped there, for reading and writing.
                unsafe {
                    if place.read_volatile() == word {
                        place.write_volatile(0xffff_fff0 << 32);
                    }
                }
            }
        }
        std::process::abort();
    }
    let pool = Pool::new(2).unwrap();
    let error = pool.chunk_size(SIZE).map(scribbles, 0..7770).unwrap_err();
    // What a chunk consists of, the pool knows itself.
    assert!(
        matches!(error, TaskError::WorkerDied { item: 5, .. }),
        "{error:?}"
    );
    let sum = pool.map(|x: u64| x + 1, 0..1000).unwrap();
    assert!((1..=1000).eq(sum));
}
