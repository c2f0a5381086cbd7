//! However a child ends, its parent hears how.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{JoinError, Message, Pool, Stdio, TaskError};
use serde::{Deserialize, Serialize};

use crate::help::{isolated, process, sleep_long, spawn, tests};

tests![
    panics_travel,
    panics_without_text,
    caught_panics_do_not_count,
    panics_are_printed_with_the_name,
    panics_of_other_threads_are_their_own,
    exit_codes,
    a_result_counts_that_was_sent,
    signals,
    aborts_and_faults,
    faults_of_memory,
    stack_overflow,
    stack_overflow_of_a_worker,
    terminate_and_kill,
    ended_children_take_any_signal,
    undecodable_arguments_and_results,
    unencodable_results,
    interrupts_are_ignored,
    an_interrupt_of_all_is_told_by_one,
    blocked_signals_are_let_through,
    broken_pipes_are_errors,
    the_tree_is_killed,
    somebody_else_takes_the_status,
];

fn error_of<R: Message + std::fmt::Debug>(child: multiproc::Child<R>) -> JoinError {
    child.join().unwrap_err()
}

fn panics_travel() {
    fn fragile(n: u32) -> u32 {
        assert!(n != 3, "{n} is bad");
        n
    }
    let line = line!() - 3;
    match error_of(process().stderr(Stdio::Null).spawn(fragile, (3,)).unwrap()) {
        JoinError::Panicked {
            message,
            location,
            backtrace,
        } => {
            assert_eq!(message, "3 is bad");
            assert!(location.contains("endings.rs"), "{location}");
            assert!(location.contains(&format!(":{line}:")), "{location}");
            assert!(backtrace.contains("fragile"), "{backtrace}");
        }
        other => panic!("{other:?}"),
    }
}

fn panics_without_text() {
    let child = process()
        .stderr(Stdio::Null)
        .spawn(|| std::panic::panic_any(5_u8), ());
    let error = error_of::<()>(child.unwrap());
    assert!(
        matches!(&error, JoinError::Panicked { message, location, .. }
            if !message.is_empty() && location.contains("endings.rs")),
        "{error:?}"
    );
}

fn caught_panics_do_not_count() {
    let child = process()
        .stderr(Stdio::Null)
        .spawn(|| std::panic::catch_unwind(|| panic!("inner")).is_err(), ());
    assert!(child.unwrap().join().unwrap());
    // A payload that is raised without a panic has no place; that of an earlier panic is not it.
    let child = process().stderr(Stdio::Null).spawn(
        || {
            let _ = std::panic::catch_unwind(|| panic!("inner"));
            std::panic::resume_unwind(Box::new("raised"))
        },
        (),
    );
    match error_of::<()>(child.unwrap()) {
        JoinError::Panicked {
            message, location, ..
        } => assert_eq!((message.as_str(), location.as_str()), ("raised", "")),
        other => panic!("{other:?}"),
    }
}

fn panics_are_printed_with_the_name() {
    use std::io::Read;
    let child = process()
        .name("fragile")
        .env("RUST_BACKTRACE", "0")
        .stderr(Stdio::Pipe)
        .spawn(|| panic!("broken glass"), ());
    let child = child.unwrap();
    let mut said = String::new();
    child
        .take_stderr()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(matches!(error_of::<()>(child), JoinError::Panicked { .. }));
    assert!(said.contains("process 'fragile' panicked at"), "{said}");
    assert!(said.contains("broken glass"), "{said}");
}

fn panics_of_other_threads_are_their_own() {
    let child = process()
        .stderr(Stdio::Null)
        .spawn(|| thread::spawn(|| panic!("inner")).join().is_err(), ());
    assert!(child.unwrap().join().unwrap());
}

fn exit(code: i32) {
    std::process::exit(code)
}

fn exit_codes() {
    for code in [0, 1, 3, 255] {
        let error = error_of(spawn(exit, (code,)).unwrap());
        assert!(
            matches!(error, JoinError::Exited(found) if found == code),
            "{error:?}"
        );
    }
}

fn a_result_counts_that_was_sent() {
    extern "C" fn at_exit() {
        std::process::abort();
    }
    fn fails_late() -> u32 {
        // SAFETY: the function lives as long as the program.
        unsafe { nix::libc::atexit(at_exit) };
        12
    }
    assert_eq!(spawn(fails_late, ()).unwrap().join().unwrap(), 12);
}

fn signals() {
    for signal in [
        nix::libc::SIGHUP,
        nix::libc::SIGUSR1,
        nix::libc::SIGALRM,
        nix::libc::SIGQUIT,
    ] {
        let child = spawn(sleep_long, ()).unwrap();
        child.signal(signal).unwrap();
        let error = error_of(child);
        assert!(
            matches!(error, JoinError::Signalled(found) if found == signal),
            "{error:?}"
        );
    }
    let child = spawn(sleep_long, ()).unwrap();
    for no_signal in [0, -1, 12345] {
        let error = child.signal(no_signal).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

fn aborts_and_faults() {
    let quiet = || process().stderr(Stdio::Null);
    let aborted = error_of::<()>(quiet().spawn(|| std::process::abort(), ()).unwrap());
    assert!(matches!(aborted, JoinError::Signalled(6)), "{aborted:?}");
    fn fault() {
        // SAFETY: it is the fault that is wanted.
        unsafe { nix::libc::raise(nix::libc::SIGSEGV) };
    }
    let fault = error_of(quiet().spawn(fault, ()).unwrap());
    assert!(matches!(fault, JoinError::Signalled(11)), "{fault:?}");
}

/// A fault that is no overflow says nothing of one.
fn faults_of_memory() {
    fn fault() {
        let nowhere = std::ptr::without_provenance_mut::<u8>(8);
        // SAFETY: it is the fault that is wanted.
        unsafe { nowhere.write_volatile(1) };
    }
    let child = process().stderr(Stdio::Pipe).spawn(fault, ()).unwrap();
    let output = child.join_with_output();
    let error = output.result.unwrap_err();
    assert!(matches!(error, JoinError::Signalled(11)), "{error:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

fn endless(n: u64) -> u64 {
    if n == u64::MAX {
        return 0;
    }
    let page = std::hint::black_box([n; 512]);
    endless(page[0] + 1) + page[511]
}

/// What Rust's runtime prints in any program.
const OVERFLOWED: &str = "thread 'main' has overflowed its stack\n";

fn stack_overflow() {
    let child = process().stderr(Stdio::Pipe).spawn(endless, (0,)).unwrap();
    let output = child.join_with_output();
    let error = output.result.unwrap_err();
    assert!(matches!(error, JoinError::Signalled(6)), "{error:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches(OVERFLOWED).count(), 1, "{said:?}");
}

fn stack_overflow_of_a_worker() {
    let use_pool = || {
        let pool = Pool::new(1).unwrap();
        let error = pool.apply(endless, (0,)).unwrap_err();
        let is_abort = matches!(&error, TaskError::WorkerDied { how, .. }
            if *how == multiproc::WorkerExit::Signalled(6));
        assert!(is_abort, "{error:?}");
        assert_eq!(pool.apply(|n: u64| n + 1, (1,)).unwrap(), 2);
    };
    let child = process().stderr(Stdio::Pipe).spawn(use_pool, ()).unwrap();
    let output = child.join_with_output();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        output.result.map_err(|error| format!("{error} {said}")),
        Ok(())
    );
    assert_eq!(said.matches(OVERFLOWED).count(), 1, "{said:?}");
}

fn terminate_and_kill() {
    let child = spawn(sleep_long, ()).unwrap();
    child.terminate().unwrap();
    let error = error_of(child);
    assert!(matches!(error, JoinError::Signalled(15)), "{error:?}");
    let child = spawn(sleep_long, ()).unwrap();
    child.kill().unwrap();
    let error = error_of(child);
    assert!(matches!(error, JoinError::Signalled(9)), "{error:?}");
}

fn ended_children_take_any_signal() {
    let child = spawn(|| (), ()).unwrap();
    while child.is_alive() {
        thread::sleep(Duration::from_millis(1));
    }
    child.terminate().unwrap();
    child.kill().unwrap();
    child.kill_tree().unwrap();
    child.join().unwrap();
}

/// A value that is never read back.
#[derive(Debug, Serialize)]
struct OneWay(u32);

impl<'de> Deserialize<'de> for OneWay {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("one way only"))
    }
}

fn undecodable_arguments_and_results() {
    let error = error_of(spawn(|n: OneWay| n.0, (OneWay(1),)).unwrap());
    assert!(matches!(error, JoinError::Arguments(_)), "{error:?}");
    let error = error_of(spawn(|| OneWay(1), ()).unwrap());
    assert!(matches!(error, JoinError::Decode(_)), "{error:?}");
}

/// A value that is never written.
#[derive(Debug, Deserialize)]
struct Mute;

impl Serialize for Mute {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("mute"))
    }
}

fn unencodable_results() {
    let error = error_of(spawn(|| Mute, ()).unwrap());
    assert!(matches!(error, JoinError::Encode(_)), "{error:?}");
    let error = spawn(|_: Mute| (), (Mute,)).unwrap_err();
    assert!(
        matches!(error, multiproc::SpawnError::Encode(_)),
        "{error:?}"
    );
}

fn interrupts_are_ignored() {
    let child = spawn(
        || {
            println!();
            thread::sleep(Duration::from_millis(300));
            1
        },
        (),
    );
    let child = child.unwrap();
    thread::sleep(Duration::from_millis(100));
    child.signal(nix::libc::SIGINT).unwrap();
    assert_eq!(child.join().unwrap(), 1);
    for n in 0..20 {
        // It has hardly begun.
        let child = spawn(|n: u32| n, (n,)).unwrap();
        child.signal(nix::libc::SIGINT).unwrap();
        assert_eq!(child.join().unwrap(), n);
    }
}

/// As by Ctrl-C, which the terminal sends to every process of the group.
fn an_interrupt_of_all_is_told_by_one() {
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::process::CommandExt;
    let mark = crate::help::tree_mark();
    let mut program = std::process::Command::new("/proc/self/exe")
        .env("MULTIPROC_TEST_SCENARIO", "interrupted")
        .env(crate::help::TREE, &mark)
        .process_group(0)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(program.stdout.take().unwrap());
    let mut ready = String::new();
    said.read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    let group = nix::unistd::Pid::from_raw(program.id() as i32);
    nix::sys::signal::killpg(group, nix::sys::signal::SIGINT).unwrap();
    let mut complaints = String::new();
    let mut stderr = program.stderr.take().unwrap();
    stderr.read_to_string(&mut complaints).unwrap();
    assert_eq!(complaints, "interrupted\n");
    assert_eq!(program.wait().unwrap().code(), Some(130));
    crate::help::wait_until(Duration::from_secs(1), "all are gone", || {
        crate::help::marked(&mark).is_empty()
    });
}

/// A program that is interrupted with all its processes, which leave it to the program what comes of it.
pub(crate) fn interrupted() {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    extern "C" fn note(_: i32) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let handler = nix::sys::signal::SigHandler::Handler(note);
    // SAFETY: the handler only stores to an atomic.
    unsafe { nix::sys::signal::signal(nix::sys::signal::SIGINT, handler) }.unwrap();
    let child = spawn(sleep_long, ()).unwrap();
    let pool = multiproc::Pool::new(4).unwrap();
    let nap = |_: u64| thread::sleep(Duration::from_millis(10));
    pool.map(nap, 0..8).unwrap();
    let workers = pool.workers();
    let task = pool.chunk_size(1).map_async(nap, 0..100);
    println!("ready");
    let end = Instant::now() + Duration::from_secs(60);
    while !INTERRUPTED.load(Ordering::Relaxed) {
        assert!(Instant::now() < end, "nobody interrupts");
        thread::sleep(Duration::from_millis(1));
    }
    task.get().unwrap();
    assert!(child.is_alive());
    assert_eq!(pool.workers(), workers);
    eprintln!("interrupted");
    std::process::exit(130);
}

fn blocked_signals_are_let_through() {
    isolated(|| {
        nix::sys::signal::SigSet::all().thread_block().unwrap();
        let child = spawn(sleep_long, ()).unwrap();
        child.terminate().unwrap();
        let error = error_of(child);
        assert!(matches!(error, JoinError::Signalled(15)), "{error:?}");
    });
}

fn broken_pipes_are_errors() {
    let child = spawn(
        || {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            drop(reader);
            rustix::io::write(writer, b"x").unwrap_err() == rustix::io::Errno::PIPE
        },
        (),
    );
    assert!(child.unwrap().join().unwrap());
}

fn the_tree_is_killed() {
    // A child that ignores SIGTERM, a grandchild of this crate, and a program that knows nothing of it.
    fn family() {
        let _sleeper = spawn(sleep_long, ()).unwrap();
        let program = std::process::Command::new("sh")
            .args(["-c", "sleep 600 & sleep 600 & wait"])
            .spawn();
        drop(program.unwrap());
        sleep_long();
    }
    let mark = crate::help::tree_mark();
    let child = process()
        .env(crate::help::TREE, &mark)
        .spawn(family, ())
        .unwrap();
    crate::help::wait_until(Duration::from_secs(10), "the whole family lives", || {
        crate::help::family(&mark).len() == 5
    });
    child.kill_tree().unwrap();
    assert!(matches!(error_of(child), JoinError::Signalled(9)));
    crate::help::wait_until(Duration::from_secs(20), "the whole family is gone", || {
        crate::help::marked(&mark).is_empty()
    });
}

fn somebody_else_takes_the_status() {
    isolated(|| {
        // The system reaps the children of those who do not care.
        // SAFETY: ignoring a signal runs no code.
        unsafe {
            nix::sys::signal::signal(
                nix::sys::signal::SIGCHLD,
                nix::sys::signal::SigHandler::SigIgn,
            )
        }
        .unwrap();
        assert_eq!(spawn(|| 5, ()).unwrap().join().unwrap(), 5);
        let error = error_of(spawn(exit, (5,)).unwrap());
        assert!(matches!(error, JoinError::Unknown), "{error:?}");
        let child = spawn(sleep_long, ()).unwrap();
        child.kill().unwrap();
        assert!(matches!(error_of(child), JoinError::Unknown));
    });
}
