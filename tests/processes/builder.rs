//! What a process can be given at its start.

use std::io::{BufRead, Read, Write};
use std::thread;
use std::time::Duration;

use multiproc::{SpawnError, Stdio};

use crate::help::{self, process, sleep_long, spawn, tests};

tests![
    names_show,
    odd_names,
    environment,
    the_mark_is_gone,
    working_directory,
    streams,
    standard_input_is_given_back,
    joining_ends_the_input,
    affinity,
    niceness,
    refused_settings_leave_nothing,
    arguments_of_the_program,
    few_descriptors_are_inherited,
    they_are_as_few_among_many_children,
    a_program_without_standard_streams,
    closed_streams_do_no_harm,
    children_do_not_inherit_from_each_other,
];

fn names_show() {
    let child = process()
        .name("a-reader-of-long-things")
        .spawn(sleep_long, ())
        .unwrap();
    assert_eq!(child.name(), "a-reader-of-long-things");
    let pid = child.pid();
    let short = format!("/proc/{pid}/comm");
    help::wait_until(Duration::from_secs(5), "the short name shows", || {
        std::fs::read_to_string(&short).unwrap() == "a-reader-of-lon\n"
    });
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(line.starts_with(b"a-reader-of-long-things\0"));
}

fn odd_names() {
    let name = || multiproc::current_process().name().to_string();
    for odd in [
        "",
        " ",
        "nul\0inside",
        "ünï",
        "two\nlines",
        &"x".repeat(5000),
    ] {
        let child = process().name(odd).spawn(name, ()).unwrap();
        assert_eq!(child.join().unwrap(), odd);
    }
}

fn environment() {
    let look = || {
        let mut found: Vec<_> = std::env::vars()
            .filter(|(key, _)| key.starts_with("MULTIPROC_TEST_"))
            .collect();
        found.sort();
        (found, std::env::var_os("PATH").is_some())
    };
    let child = process()
        .env("MULTIPROC_TEST_A", "1")
        .env("MULTIPROC_TEST_B", "2")
        .env("MULTIPROC_TEST_A", "3")
        .env("MULTIPROC_TEST_C", "4")
        .env_remove("MULTIPROC_TEST_C")
        .env_remove("PATH")
        .spawn(look, ());
    let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
    let wanted = vec![pair("MULTIPROC_TEST_A", "3"), pair("MULTIPROC_TEST_B", "2")];
    assert_eq!(child.unwrap().join().unwrap(), (wanted, false));
}

fn the_mark_is_gone() {
    let look = || {
        let program = std::process::Command::new("env").output().unwrap().stdout;
        let here = std::env::vars_os().any(|(key, _)| key == "MULTIPROC_CHILD");
        here || String::from_utf8_lossy(&program).contains("MULTIPROC_CHILD")
    };
    assert!(!spawn(look, ()).unwrap().join().unwrap());
}

fn working_directory() {
    let here = || std::env::current_dir().unwrap().display().to_string();
    let child = process().current_dir("/proc").spawn(here, ()).unwrap();
    assert_eq!(child.join().unwrap(), "/proc");
    for missing in ["/no/such/place", "/etc/passwd"] {
        let error = process().current_dir(missing).spawn(here, ()).unwrap_err();
        assert!(
            matches!(&error, SpawnError::CurrentDir { path, .. } if path.as_os_str() == missing),
            "{error:?}"
        );
    }
}

fn streams() {
    let echo = || {
        let mut given = String::new();
        std::io::stdin().read_to_string(&mut given).unwrap();
        print!("out {given}");
        eprint!("err {given}");
    };
    let child = process()
        .stdin(Stdio::Pipe)
        .stdout(Stdio::Pipe)
        .stderr(Stdio::Pipe)
        .spawn(echo, ())
        .unwrap();
    let mut stdin = child.take_stdin().unwrap();
    assert!(child.take_stdin().is_none());
    stdin.write_all(b"text").unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    child
        .take_stdout()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    child
        .take_stderr()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("out text", "err text"));
    child.join().unwrap();

    let nothing = process()
        .stdin(Stdio::Null)
        .stdout(Stdio::Null)
        .stderr(Stdio::Null)
        .spawn(echo, ())
        .unwrap();
    assert!(nothing.take_stdin().is_none() && nothing.take_stdout().is_none());
    nothing.join().unwrap();
}

fn standard_input_is_given_back() {
    fn read_line() -> String {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).unwrap();
        line
    }
    fn nested() -> String {
        spawn(read_line, ()).unwrap().join().unwrap()
    }
    let child = process().stdin(Stdio::Pipe).spawn(nested, ()).unwrap();
    child
        .take_stdin()
        .unwrap()
        .write_all(b"for the grandchild\n")
        .unwrap();
    assert_eq!(child.join().unwrap(), "for the grandchild\n");
}

fn joining_ends_the_input() {
    let count = || std::io::stdin().lock().bytes().count();
    let child = process().stdin(Stdio::Pipe).spawn(count, ()).unwrap();
    assert_eq!(child.join().unwrap(), 0);
}

fn affinity() {
    let allowed = || thread::available_parallelism().unwrap().get();
    let child = process().affinity(&[0]).spawn(allowed, ()).unwrap();
    assert_eq!(child.join().unwrap(), 1);
}

fn niceness() {
    let niceness = || rustix::process::getpriority_process(None).unwrap();
    let before = niceness();
    let child = process().nice(5).spawn(niceness, ()).unwrap();
    assert_eq!(child.join().unwrap(), (before + 5).min(19));
}

fn refused_settings_leave_nothing() {
    for nowhere in [&[] as &[usize], &[1000], &[1_000_000]] {
        let error = process()
            .affinity(nowhere)
            .spawn(sleep_long, ())
            .unwrap_err();
        assert!(matches!(error, SpawnError::Affinity { .. }), "{error:?}");
    }
    for (key, value) in [("A=B", "C"), ("", "C"), ("A\0", "B"), ("A", "B\0")] {
        let error = process().env(key, value).spawn(sleep_long, ()).unwrap_err();
        assert!(matches!(error, SpawnError::Io(_)), "{error:?}");
    }
}

fn arguments_of_the_program() {
    // On musl the standard library has them from `main`, to which children never come.
    let arguments = || std::env::args().skip(1).collect::<Vec<_>>();
    let child = spawn(arguments, ()).unwrap();
    let given = match cfg!(target_env = "gnu") {
        true => arguments(),
        false => Vec::new(),
    };
    assert_eq!(child.join().unwrap(), given);
}

fn few_descriptors_are_inherited() {
    let _file = std::fs::File::open("/dev/null").unwrap();
    let child = process()
        .stdin(Stdio::Null)
        .stdout(Stdio::Null)
        .stderr(Stdio::Null)
        .spawn(help::descriptors, ());
    let found = child.unwrap().join().unwrap();
    // Standard streams, control socket, lifeline, the parent's inbox, the two of the tree; and what every
    // program started from here inherits.
    assert!(found.len() <= 8 + help::inheritable(), "{found:?}");
}

fn they_are_as_few_among_many_children() {
    let count = || help::descriptors().len();
    let alone = spawn(count, ()).unwrap().join().unwrap();
    let _others: Vec<_> = (0..10).map(|_| spawn(sleep_long, ()).unwrap()).collect();
    assert_eq!(spawn(count, ()).unwrap().join().unwrap(), alone);
}

fn a_program_without_standard_streams() {
    let run = std::process::Command::new("sh")
        .args(["-c", "exec /proc/$PPID/exe <&- >&- 2>&-"])
        .env("MULTIPROC_TEST_SCENARIO", "without_streams")
        .status();
    assert!(run.unwrap().success());
}

/// A program whose standard streams were closed when it was started.
pub(crate) fn without_streams() {
    let say = |n: u32| {
        print!("nowhere");
        eprint!("nowhere");
        assert_eq!(std::io::stdin().lock().bytes().count(), 0);
        n
    };
    for n in 0..5 {
        assert_eq!(spawn(say, (n,)).unwrap().join().unwrap(), n);
    }
    let pool = multiproc::Pool::new(2).unwrap();
    assert_eq!(pool.map(say, 0..50).unwrap().len(), 50);
    pool.join().unwrap();
}

fn closed_streams_do_no_harm() {
    let close = || {
        for stream in 0..3 {
            // SAFETY: what the process was given as standard streams is nobody else's.
            unsafe { nix::libc::close(stream) };
        }
        print!("nowhere");
        eprint!("nowhere");
        5
    };
    assert_eq!(spawn(close, ()).unwrap().join().unwrap(), 5);
}

fn children_do_not_inherit_from_each_other() {
    help::isolated(|| {
        let always = help::inheritable();
        // Whoever starts other programs at the same time gives them nothing of ours.
        let starter = thread::spawn(|| {
            for _ in 0..40 {
                let child = process().stdin(Stdio::Pipe).spawn(|| (), ()).unwrap();
                child.join().unwrap();
            }
        });
        while !starter.is_finished() {
            let listed = std::process::Command::new("ls")
                .args(["-1", "/proc/self/fd"])
                .stdin(std::process::Stdio::null())
                .output()
                .unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            // Standard streams and the directory being listed.
            assert_eq!(listed.lines().count(), 4 + always, "{listed}");
        }
        starter.join().unwrap();
    });
}
