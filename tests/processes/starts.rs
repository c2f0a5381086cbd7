//! However a child is made, it begins as a program just started does.

use std::process::Command;
use std::time::Duration;

use multiproc::{Pool, Process, SpawnError, StartMethod, Stdio};
use nix::libc;

use crate::help::{self, isolated, tests, wait_until};
use crate::seccomp::{self, Filter};
use crate::zygote::{by_zygote, settled};

tests![
    without_clone3,
    without_forks,
    without_process_descriptors,
    without_a_null_device,
    programs_of_children_are_interrupted,
    ignored_signals_are_inherited,
    the_first_argument,
    one_thread,
    long_variables,
    too_long_an_environment,
];

const LONG: Duration = Duration::from_secs(60);
const METHODS: [StartMethod; 2] = [StartMethod::Zygote, StartMethod::Exec];

fn process(method: StartMethod) -> multiproc::ProcessBuilder {
    Process::builder().start_method(method)
}

/// As in Docker, whose default filter says that there is no such call.
fn without_clone3() {
    fn forked() {
        by_zygote(|| ()).join().unwrap();
        settled();
        let before = help::all_children();
        let child = by_zygote(|| 7);
        assert!(before.contains(&child.pid()), "it was one that waited");
        assert_eq!(child.join_timeout(LONG).unwrap(), Some(7));
    }
    isolated(|| {
        seccomp::install(&[Filter::refuse(libc::SYS_clone3, libc::ENOSYS)]).unwrap();
        forked();
    });
}

fn without_forks() {
    isolated(|| {
        let bits = libc::CLONE_PARENT as u32;
        let filters = [
            Filter::refuse(libc::SYS_clone3, libc::ENOSYS),
            Filter::refuse_bits(libc::SYS_clone, bits, libc::EPERM),
        ];
        seccomp::install(&filters).unwrap();
        for n in 0..6 {
            let child = Process::spawn(|n: u32| n, (n,)).unwrap();
            assert_eq!(child.join_timeout(LONG).unwrap(), Some(n));
        }
        for _ in 0..2 {
            let error = process(StartMethod::Zygote).spawn(|| (), ()).unwrap_err();
            assert!(matches!(error, SpawnError::NoZygote { .. }), "{error:?}");
            assert!(error.to_string().contains("StartMethod::Exec"), "{error}");
        }
        let child = process(StartMethod::Exec).spawn(|| 7, ()).unwrap();
        assert_eq!(child.join_timeout(LONG).unwrap(), Some(7));
        wait_until(LONG, "the zygote is ended", || {
            help::all_children().is_empty()
        });
        // Nobody tries again.
        Process::spawn(|| (), ()).unwrap().join().unwrap();
        assert_eq!(help::all_children(), Vec::<u32>::new());
    });
}

fn without_process_descriptors() {
    isolated(|| {
        seccomp::install(&[Filter::refuse(libc::SYS_pidfd_open, libc::EPERM)]).unwrap();
        let error = process(StartMethod::Exec).spawn(|| (), ()).unwrap_err();
        assert!(
            matches!(
                error,
                SpawnError::Refused {
                    call: "pidfd_open",
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains("pidfd_open"), "{error}");
        assert_eq!(help::all_children(), Vec::<u32>::new());
    });
}

fn without_a_null_device() {
    isolated(|| {
        use nix::mount::{MsFlags, mount};
        let apart = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).and_then(|()| {
            let none: Option<&str> = None;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none)?;
            mount(Some("none"), "/dev", Some("tmpfs"), MsFlags::empty(), none)
        });
        if let Err(error) = apart {
            return eprintln!("NOT CHECKED, for this process may not do without: {error}");
        }
        for n in 0..4 {
            let child = Process::spawn(|n: u32| n, (n,)).unwrap();
            assert_eq!(child.join_timeout(LONG).unwrap(), Some(n));
        }
        let error = Process::builder().stdout(Stdio::Null).spawn(|| (), ());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("/dev/null"), "{error}");
    });
}

/// The signals that a program ignores which is started here.
fn ignored_by_programs() -> u64 {
    let output = Command::new("grep")
        .args(["^SigIgn", "/proc/self/status"])
        .output();
    let line = String::from_utf8(output.unwrap().stdout).unwrap();
    let set = u64::from_str_radix(line.split_once('\t').unwrap().1.trim(), 16).unwrap();
    // Those that the C library keeps for itself do not count.
    set & !(0b111 << 31)
}

fn programs_of_children_are_interrupted() {
    isolated(|| {
        use nix::sys::signal::{SigHandler, Signal, signal};
        // As in a program that a shell has started, whatever this process has.
        // SAFETY: the default runs no code.
        unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }.unwrap();
        let here = ignored_by_programs();
        assert_eq!(here & 1 << (Signal::SIGINT as i32 - 1), 0);
        for method in METHODS {
            let child = process(method).spawn(ignored_by_programs, ()).unwrap();
            assert_eq!(child.join_timeout(LONG).unwrap(), Some(here), "{method:?}");
        }
        let pool = Pool::new(1).unwrap();
        assert_eq!(pool.apply(ignored_by_programs, ()).unwrap(), here);
        pool.join().unwrap();
    });
}

fn ignored_signals_are_inherited() {
    isolated(|| {
        use nix::sys::signal::{SigHandler, Signal, signal};
        by_zygote(|| ()).join().unwrap();
        settled();
        for ignored in [Signal::SIGHUP, Signal::SIGINT] {
            // SAFETY: ignoring a signal runs no code.
            unsafe { signal(ignored, SigHandler::SigIgn) }.unwrap();
            let here = ignored_by_programs();
            assert_ne!(here & 1 << (ignored as i32 - 1), 0);
            for method in METHODS {
                let child = process(method).spawn(ignored_by_programs, ()).unwrap();
                assert_eq!(child.join_timeout(LONG).unwrap(), Some(here), "{method:?}");
            }
        }
    });
}

fn the_first_argument() {
    let first = || std::env::args().next();
    // On musl the standard library has them from `main`, to which children never come.
    let given = if cfg!(target_env = "gnu") {
        first()
    } else {
        None
    };
    for method in METHODS {
        let named = process(method).name("another name");
        assert_eq!(
            named.spawn(first, ()).unwrap().join().unwrap(),
            given,
            "{method:?}"
        );
    }
}

fn one_thread() {
    for method in METHODS {
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        assert_eq!(
            process(method).spawn(threads, ()).unwrap().join().unwrap(),
            1
        );
        // What the kernel allows to a process of one thread only.
        let unshare = || {
            let flags = nix::sched::CloneFlags::CLONE_NEWUSER;
            nix::sched::unshare(flags).map_err(|errno| errno as i32)
        };
        let done = process(method).spawn(unshare, ()).unwrap().join().unwrap();
        assert_ne!(done, Err(libc::EINVAL), "{method:?}");
    }
}

fn long_variables() {
    fn lengths() -> [usize; 2] {
        ["MULTIPROC_TEST_LONG", "MULTIPROC_TEST_LONG_TOO"]
            .map(|name| std::env::var(name).map_or(0, |value| value.len()))
    }
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        settled();
        for method in METHODS {
            let long = process(method).env("MULTIPROC_TEST_LONG", "x".repeat(200_000));
            assert_eq!(
                long.spawn(lengths, ()).unwrap().join().unwrap(),
                [200_000, 0]
            );
        }
        // SAFETY: the threads of this process do not look at the environment now.
        unsafe { std::env::set_var("MULTIPROC_TEST_LONG_TOO", "x".repeat(150_000)) };
        for method in METHODS {
            let long = process(method).env("MULTIPROC_TEST_LONG", "x".repeat(200_000));
            assert_eq!(
                long.spawn(lengths, ()).unwrap().join().unwrap(),
                [200_000, 150_000]
            );
            let without = process(method).env_remove("MULTIPROC_TEST_LONG_TOO");
            assert_eq!(without.spawn(lengths, ()).unwrap().join().unwrap(), [0, 0]);
        }
        multiproc::end_zygote().unwrap();
        by_zygote(|| ()).join().unwrap();
    });
}

fn too_long_an_environment() {
    isolated(|| {
        let mut process = process(StartMethod::Exec);
        for n in 0..200 {
            process = process.env(format!("MULTIPROC_TEST_{n}"), "x".repeat(90_000));
        }
        let error = process.spawn(|| (), ()).unwrap_err();
        assert!(matches!(error, SpawnError::TooLong { .. }), "{error:?}");
        assert!(error.to_string().contains("RLIMIT_STACK"), "{error}");
    });
}
