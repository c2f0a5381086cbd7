//! Every system call that the crate makes, refused for each plausible reason, at its first, a later or every time.
//!
//! A small program uses everything there is, under `strace`, which refuses the calls. Whatever is refused, the
//! program must come to its end in time: each part of it works, by another way if there is one, or gives an
//! error; nothing panics, and nothing is left, no descriptor and no process. Without `strace`, or where it may not
//! trace, this is said aloud and skipped.
//!
//! `MULTIPROC_SYSCALLS=all` refuses more of the later calls, which takes some minutes.

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use multiproc::{Frozen, Lock, Pipe, Pool, Process, Queue, Segment, active_children};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Marks the process that is the small program.
const SCENARIO: &str = "MULTIPROC_SYSCALLS_SCENARIO";
/// No call may keep the program longer.
const LIMIT: Duration = Duration::from_secs(120);
/// What a part of the program may wait for another process.
const LONG: Duration = Duration::from_secs(5);

/// System calls, and why the kernel refuses them. `futex` is not among them: a wake that is refused is lost, and the
/// standard library's own waits rely on theirs.
const REFUSALS: &[(&str, &[&str])] = &[
    ("memfd_create", &["EINVAL", "EMFILE", "ENOMEM", "ENOSYS"]),
    ("fallocate", &["EINTR", "ENOSPC", "EOPNOTSUPP", "ENOMEM"]),
    ("ftruncate", &["EINTR", "ENOSPC", "EINVAL"]),
    ("madvise", &["EINVAL", "ENOMEM", "EFAULT"]),
    ("fcntl", &["EINTR", "EAGAIN", "EINVAL", "EMFILE", "ENOLCK"]),
    ("futex_waitv", &["EINTR", "EAGAIN", "ENOSYS", "EPERM"]),
    ("membarrier", &["EINVAL", "ENOSYS", "EPERM"]),
    ("prctl", &["EINVAL", "EPERM"]),
    ("socketpair", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("pipe2", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("sendmsg", &["EINTR", "ENOBUFS", "ENOMEM", "EPIPE"]),
    ("recvmsg", &["EINTR", "ENOMEM", "ECONNRESET"]),
    ("clone,clone3", &["EAGAIN", "ENOMEM", "ENOSYS", "EPERM"]),
    ("vfork,fork", &["EAGAIN", "ENOMEM"]),
    ("execve", &["EACCES", "ENOENT", "ENOMEM", "E2BIG"]),
    ("pidfd_open", &["EMFILE", "ENOSYS", "EPERM", "ESRCH"]),
    ("pidfd_send_signal", &["ENOSYS", "EPERM"]),
    ("waitid", &["EINTR", "ECHILD"]),
    ("poll,ppoll", &["EINTR", "ENOMEM"]),
    ("epoll_wait", &["EINTR"]),
    ("close_range", &["EINVAL", "ENOSYS"]),
    (
        "openat",
        &["EACCES", "EMFILE", "ENFILE", "ENOENT", "ENOMEM"],
    ),
    ("linkat", &["EEXIST", "ENOENT", "ENOSPC", "EPERM"]),
    ("unlink,unlinkat", &["ENOENT", "EPERM"]),
    ("fchmod", &["EPERM", "EROFS"]),
    ("fstat,newfstatat,statx", &["EACCES", "ENOMEM"]),
    ("readlink,readlinkat", &["EACCES", "ENOENT"]),
    ("getrandom", &["EINTR", "ENOSYS"]),
    ("dup,dup2,dup3", &["EMFILE", "EINTR"]),
    (
        "timerfd_create,eventfd2,epoll_create1",
        &["EMFILE", "ENOMEM"],
    ),
];

/// One call of them by its number, or all from some number on. But what passes by itself does not come with every call:
/// then it is every other. And whom this process may not signal at all, it cannot end.
fn occasions(calls: &str, error: &str) -> &'static [&'static str] {
    let all = std::env::var_os("MULTIPROC_SYSCALLS").is_some_and(|asked| asked == "all");
    let passes = ["EINTR", "ECONNRESET"].contains(&error)
        || [("futex_waitv", "EAGAIN"), ("poll,ppoll", "ENOMEM")].contains(&(calls, error));
    match (all, calls) {
        (false, "pidfd_send_signal") => &["1"],
        (false, _) if passes => &["1", "1+2"],
        (false, _) => &["1", "1+"],
        (true, "pidfd_send_signal") => &["1", "2", "3", "5", "8"],
        (true, _) if passes => &["1", "2", "3", "5", "8", "13", "21", "1+2", "2+2", "5+3"],
        (true, _) => &["1", "2", "3", "5", "8", "13", "21", "1+", "2+", "5+"],
    }
}

fn main() -> ExitCode {
    if std::env::var_os(SCENARIO).is_some() {
        return scenario();
    }
    let mut arguments = Arguments::from_args();
    // Each run has several processes.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let refusal = tracing();
    if let Err(why) = &refusal {
        println!("SKIPPED: no system calls can be refused here: {why}");
    }
    let mut trials = Vec::new();
    for &(calls, errors) in REFUSALS {
        for error in errors {
            let refused = move || {
                occasions(calls, error)
                    .iter()
                    .try_for_each(|occasion| refuse(calls, error, occasion))
            };
            trials.push(
                Trial::test(format!("{calls} {error}"), refused)
                    .with_ignored_flag(refusal.is_err()),
            );
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Whether this machine can trace.
fn tracing() -> Result<(), String> {
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "true"])
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("strace: {error}")),
    }
}

/// Numbers the programs, each of which has a name to make.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A name that a program may have been kept from removing. Making it anew removes what nobody living has.
struct Name<'a>(&'a str);

impl Drop for Name<'_> {
    fn drop(&mut self) {
        drop(Segment::create(self.0, 64));
    }
}

/// Runs the program, with those calls refused.
fn refuse(calls: &str, error: &str, occasion: &str) -> Result<(), Failed> {
    let program = std::env::current_exe()?;
    let name = format!(
        "syscalls-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    );
    let _name = Name(&name);
    let known: Vec<String> = calls.split(',').map(|call| format!("?{call}")).collect();
    let calls = known.join(",");
    let mut child = Command::new("strace")
        .args(["-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"])
        .args(["-e", &format!("trace={calls}")])
        .args([
            "-e",
            &format!("inject={calls}:error={error}:when={occasion}"),
        ])
        .arg("--")
        .arg(program)
        .env(SCENARIO, &name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let what = format!("{error} at {occasion} of {calls}");
    let end = Instant::now() + LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            // Those that are traced too, which would go on without.
            killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL)?;
            child.wait()?;
            return Err(format!("{what}: it hangs").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let also = String::from_utf8_lossy(&output.stderr);
    // The dynamic linker and the runtime, which come first, do not get by without some calls.
    let began = said.starts_with("began\n");
    match (output.status.code(), output.status.signal()) {
        (Some(0), _) if said.ends_with("ended\n") => Ok(()),
        (Some(_), None) if !began => Ok(()),
        _ => Err(format!("{what}: {}: {said}{also}", output.status).into()),
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The parts of the program.
const PARTS: &[(&str, fn() -> Outcome)] = &[
    ("segment", segment),
    ("queue", queue),
    ("pipe", pipe),
    ("lock", lock),
    ("frozen", frozen),
    ("named", named),
    ("process", process),
    ("pool", pool),
];

/// Uses everything; says what was refused.
fn scenario() -> ExitCode {
    let mut output = std::io::stdout();
    let mut say = |text: String| {
        // Whoever listens is waiting for the end.
        let _ = writeln!(output, "{text}").and_then(|()| output.flush());
    };
    say("began".into());
    let run = |(name, part): &(&str, fn() -> Outcome)| match part() {
        Ok(()) => None,
        Err(error) => Some(format!("{name}: {error}")),
    };
    // What is made once for all is there then, also if its first making was refused.
    for _ in 0..2 {
        PARTS.iter().filter_map(run).for_each(&mut say);
    }
    let before = descriptors();
    PARTS.iter().filter_map(run).for_each(&mut say);
    let end = Instant::now() + LONG;
    // The reaper holds a child's descriptor a moment longer than the child lives.
    let is_left = || {
        let more =
            before.is_some_and(|before| descriptors().is_some_and(|now| now > before + SPARE));
        more || !active_children().is_empty()
    };
    while is_left() {
        if Instant::now() > end {
            say(format!(
                "left: {before:?} descriptors, then {:?}; {:?}",
                descriptors(),
                active_children()
            ));
            return ExitCode::from(3);
        }
        thread::sleep(Duration::from_millis(5));
    }
    say("ended".into());
    ExitCode::SUCCESS
}

/// Descriptors of a zygote and its spares, which may come in between.
const SPARE: usize = 8;

fn descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

fn segment() -> Outcome {
    let segment = Segment::new(64 << 10)?;
    segment.words()[100].store(7, Ordering::Relaxed);
    Ok(())
}

fn queue() -> Outcome {
    let (mut tx, mut rx) = Queue::<String>::new(4)?;
    let mut other = tx.try_clone()?;
    let sender = thread::Builder::new().spawn(move || other.send_timeout("late".into(), LONG))?;
    tx.send_timeout("text".into(), LONG)?;
    for _ in 0..2 {
        rx.recv_timeout(LONG)?;
    }
    sender.join().expect("a sender does not panic")?;
    let (mut tx, mut rx) = Queue::<Vec<u64>>::builder()
        .message_size(1024)
        .in_place(4)
        .build()?;
    tx.send_timeout(vec![7; 100], LONG)?;
    rx.lease_timeout(LONG)?.ack();
    Ok(())
}

fn pipe() -> Outcome {
    let (mut here, mut there) = Pipe::<Vec<u8>, u64>::builder().size(16 << 10).build()?;
    let other = thread::Builder::new().spawn(move || -> Result<(), String> {
        let bytes = there
            .recv_timeout(LONG)
            .map_err(|error| error.to_string())?;
        let length = bytes.len() as u64;
        there
            .send_timeout(length, LONG)
            .map_err(|error| error.to_string())
    })?;
    here.send_timeout(vec![7; 100 << 10], LONG)?;
    let answered = here.recv_timeout(LONG)?;
    assert_eq!(answered, 100 << 10);
    Ok(other.join().expect("the other end does not panic")?)
}

fn lock() -> Outcome {
    let lock = Lock::new(1_u64)?;
    *lock.lock_timeout(LONG).map_err(|error| error.to_string())? += 1;
    Ok(())
}

fn frozen() -> Outcome {
    let frozen = Frozen::from_slice(&[7_u64; 10_000])?;
    assert_eq!(frozen[9_999], 7);
    Ok(())
}

fn named() -> Outcome {
    let name = std::env::var(SCENARIO)?;
    let (mut tx, mut rx) = Queue::<u64>::builder().create(&name)?;
    let opened = Queue::<u64>::builder().open(&name);
    tx.send_timeout(7, LONG)?;
    assert_eq!(rx.recv_timeout(LONG)?, 7);
    opened?;
    Ok(())
}

fn double(number: u64, mut rx: multiproc::Receiver<u64>) -> u64 {
    number + rx.recv_timeout(LONG).unwrap_or(number)
}

fn process() -> Outcome {
    let (mut tx, rx) = Queue::<u64>::new(4)?;
    tx.send_timeout(7, LONG)?;
    for number in 0..3 {
        let child = Process::spawn(double, (number, rx.try_clone()?))?;
        if child.join_timeout(LONG)?.is_none() {
            return Err("a child hangs".into());
        }
        tx.send_timeout(7, LONG)?;
        let _ = rx.len();
    }
    let child = Process::spawn(|| thread::sleep(LONG), ())?;
    child.kill()?;
    match child.join_timeout(LONG) {
        Ok(None) => Err("a killed child goes on".into()),
        _ => Ok(()),
    }
}

fn pool() -> Outcome {
    let pool = Pool::new(2)?;
    let squares = pool.map_async(|number: u64| number * number, 0..1_000);
    let texts = pool.map_async(
        |text: String| text + "!",
        ["a".to_owned(), "b".repeat(1_000)],
    );
    let squares = squares.get_timeout(LONG)?;
    assert_eq!(squares.len(), 1_000);
    texts.get_timeout(LONG)?;
    Ok(())
}
