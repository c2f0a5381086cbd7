//! Arguments go out, results come back.

use std::thread;
use std::time::{Duration, Instant};

use multiproc::{JoinError, active_children, current_process, parent_process, wait_any};

use crate::help::{LIMIT, isolated, process, sleep_long, spawn, tests, wait_until};

tests![
    a_function_runs_elsewhere,
    functions_of_all_arities,
    closures_without_captures,
    generic_functions,
    results_of_all_sizes,
    a_large_result_waits_for_nobody,
    names_and_numbers,
    nested_processes,
    parallel_children,
    join_timeout_gives_up_and_comes_back,
    wait_any_finds_the_first,
    wait_any_takes_whatever_can_be_polled,
    many_processes,
    active_children_are_those_that_live,
    dropped_children_are_killed_and_reaped,
    detached_children_go_on,
    a_child_outlives_the_thread_that_started_it,
    printed_lines_appear,
    no_descriptor_is_left,
];

fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn a_function_runs_elsewhere() {
    let child = spawn(std::process::id, ()).unwrap();
    let pid = child.pid();
    assert_ne!(pid, std::process::id());
    assert_eq!(child.join().unwrap(), pid);
    assert_eq!(spawn(add, (1, 2)).unwrap().join().unwrap(), 3);
}

fn functions_of_all_arities() {
    #[expect(
        clippy::too_many_arguments,
        reason = "it is the largest number there may be"
    )]
    fn eight(a: u8, b: u16, c: u32, d: u64, e: i8, f: char, g: String, h: Vec<bool>) -> String {
        format!("{a}{b}{c}{d}{e}{f}{g}{h:?}")
    }
    assert_eq!(spawn(|| 7, ()).unwrap().join().unwrap(), 7);
    let arguments = (1, 2, 3, 4, -5, 'x', "yz".to_string(), vec![true]);
    let said = spawn(eight, arguments).unwrap().join().unwrap();
    assert_eq!(said, "1234-5xyz[true]");
}

fn closures_without_captures() {
    let child = spawn(
        |text: String, n: usize| text.repeat(n),
        ("ab".to_string(), 3),
    );
    assert_eq!(child.unwrap().join().unwrap(), "ababab");
}

fn generic_functions() {
    fn doubled<T: Clone>(value: T) -> (T, T) {
        (value.clone(), value)
    }
    assert_eq!(spawn(doubled::<u8>, (1,)).unwrap().join().unwrap(), (1, 1));
    let text = spawn(doubled::<String>, ("a".to_string(),));
    assert_eq!(text.unwrap().join().unwrap().1, "a");
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

fn results_of_all_sizes() {
    for len in [0, 1, 32_700, 32_768, 33_000, 1 << 20, 8 << 20] {
        let child = spawn(|given: Vec<u8>| given, (bytes(len),)).unwrap();
        assert!(child.join().unwrap() == bytes(len), "{len} bytes");
    }
}

fn a_large_result_waits_for_nobody() {
    let child = spawn(bytes, (20 << 20,)).unwrap();
    wait_until(
        Duration::from_secs(20),
        "the child ends before anybody joins",
        || !child.is_alive(),
    );
    assert_eq!(child.join().unwrap().len(), 20 << 20);
}

fn names_and_numbers() {
    isolated(|| {
        let me = current_process();
        assert!(me.name().starts_with("Process-"), "{me:?}");
        assert_eq!(parent_process().unwrap().name(), "MainProcess");
        let family = || {
            (
                current_process().name().to_string(),
                parent_process().unwrap().pid(),
            )
        };
        for number in 1..=3 {
            let child = spawn(family, ()).unwrap();
            let name = format!("{}:{number}", me.name());
            assert_eq!(child.name(), name);
            assert_eq!(child.join().unwrap(), (name, me.pid()));
        }
    });
    assert_eq!(current_process().name(), "MainProcess");
    assert_eq!(current_process().pid(), std::process::id());
    assert_eq!(parent_process(), None);
}

fn nested_processes() {
    fn depth(left: u32) -> Vec<u32> {
        let mut pids = vec![std::process::id()];
        if left > 0 {
            pids.extend(spawn(depth, (left - 1,)).unwrap().join().unwrap());
        }
        pids
    }
    let mut pids = depth(4);
    assert_eq!(pids.len(), 5);
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), 5);
}

fn parallel_children() {
    let threads: Vec<_> = (0..8)
        .map(|n| {
            thread::spawn(move || {
                let children: Vec<_> = (0..8).map(|m| spawn(add, (n, m)).unwrap()).collect();
                for (m, child) in children.into_iter().enumerate() {
                    assert_eq!(child.join().unwrap(), n + m as u64);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn join_timeout_gives_up_and_comes_back() {
    let child = spawn(
        || {
            thread::sleep(Duration::from_millis(300));
            5
        },
        (),
    )
    .unwrap();
    let begin = Instant::now();
    assert!(
        child
            .join_timeout(Duration::from_millis(20))
            .unwrap()
            .is_none()
    );
    assert!(begin.elapsed() >= Duration::from_millis(20));
    assert!(child.is_alive());
    assert_eq!(child.join_timeout(LIMIT).unwrap(), Some(5));
    assert!(!child.is_alive());
    assert!(matches!(child.join_timeout(LIMIT), Err(JoinError::Taken)));
}

fn wait_any_finds_the_first() {
    let slow = spawn(sleep_long, ()).unwrap();
    let fast = spawn(|| 1, ()).unwrap();
    assert_eq!(wait_any(&[&slow], Duration::from_millis(20)).unwrap(), None);
    assert_eq!(wait_any(&[&slow, &fast], LIMIT).unwrap(), Some(1));
    slow.kill().unwrap();
    assert_eq!(wait_any(&[&slow], None).unwrap(), Some(0));
    assert_eq!(wait_any(&[&slow, &fast], None).unwrap(), Some(0));
    assert!(wait_any(&[], None).is_err());
}

fn wait_any_takes_whatever_can_be_polled() {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    let (mut here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
    let child = spawn(sleep_long, ()).unwrap();
    let both: [&dyn AsFd; 2] = [&child, &here];
    let short = Duration::from_millis(20);
    let begin = Instant::now();
    assert_eq!(wait_any(&both, short).unwrap(), None);
    assert!(begin.elapsed() >= short);
    assert_eq!(wait_any(&both, Duration::ZERO).unwrap(), None);
    there.write_all(b"x").unwrap();
    assert_eq!(wait_any(&both, LIMIT).unwrap(), Some(1));
    child.kill().unwrap();
    assert_eq!(wait_any(&[&child], LIMIT).unwrap(), Some(0));
    assert_eq!(wait_any(&both, LIMIT).unwrap(), Some(0));
    here.read_exact(&mut [0]).unwrap();
    drop(there);
    // The end of a stream is something to be read as well.
    assert_eq!(wait_any(&[&here], LIMIT).unwrap(), Some(0));
}

fn many_processes() {
    let nap = || thread::sleep(Duration::from_millis(10));
    let napping: Vec<_> = (0..100).map(|_| spawn(nap, ()).unwrap()).collect();
    for child in napping {
        child.join().unwrap();
    }
    let sleeping: Vec<_> = (0..100).map(|_| spawn(sleep_long, ()).unwrap()).collect();
    for child in &sleeping {
        child.terminate().unwrap();
    }
    for child in sleeping {
        let error = child.join().unwrap_err();
        assert!(matches!(error, JoinError::Signalled(15)), "{error:?}");
    }
}

fn active_children_are_those_that_live() {
    isolated(|| {
        assert_eq!(active_children(), []);
        let child = process().name("sleeper").spawn(sleep_long, ()).unwrap();
        let active = active_children();
        assert_eq!(active.len(), 1);
        assert_eq!(
            (active[0].name(), active[0].pid()),
            ("sleeper", child.pid())
        );
        child.kill().unwrap();
        assert!(matches!(child.join(), Err(JoinError::Signalled(9))));
        assert_eq!(active_children(), []);
    });
}

fn dropped_children_are_killed_and_reaped() {
    let child = spawn(sleep_long, ()).unwrap();
    let pid = child.pid();
    let begin = Instant::now();
    drop(child);
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "it is not reaped"
    );
}

fn detached_children_go_on() {
    use std::io::Read;
    let child = process()
        .stdout(multiproc::Stdio::Pipe)
        .spawn(
            || {
                thread::sleep(Duration::from_millis(200));
                println!("still here");
            },
            (),
        )
        .unwrap();
    let mut stdout = child.take_stdout().unwrap();
    child.detach();
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(said, "still here\n");
}

fn a_child_outlives_the_thread_that_started_it() {
    let starter = thread::spawn(|| {
        let child = spawn(sleep_long, ()).unwrap();
        // It is well in its function by then.
        thread::sleep(Duration::from_millis(200));
        child
    });
    let child = starter.join().unwrap();
    thread::sleep(Duration::from_millis(200));
    assert!(child.is_alive());
    child.kill().unwrap();
    assert!(matches!(child.join(), Err(JoinError::Signalled(9))));
}

fn printed_lines_appear() {
    use std::io::Read;
    for _ in 0..20 {
        // Without a line end, so that it waits in the buffer until the exit.
        let child = process()
            .stdout(multiproc::Stdio::Pipe)
            .spawn(|| print!("a line"), ())
            .unwrap();
        let mut said = String::new();
        child
            .take_stdout()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(said, "a line");
        child.join().unwrap();
    }
}

fn no_descriptor_is_left() {
    isolated(|| {
        let before = crate::help::after_first_child();
        for _ in 0..50 {
            spawn(bytes, (100_000,)).unwrap().join().unwrap();
            drop(spawn(sleep_long, ()).unwrap());
        }
        crate::help::settles_to(&before);
    });
}
