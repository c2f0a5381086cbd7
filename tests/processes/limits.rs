//! Limits of the system: named in the error, nothing left behind.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};

use multiproc::{Child, JoinError, Process, SpawnError, StartMethod, Stdio};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::help::{self, isolated, tests};

tests![
    too_many_processes,
    too_many_descriptors,
    too_little_memory,
    too_little_memory_in_the_child,
    a_removed_program_still_starts_processes,
    a_program_that_may_not_be_executed,
    no_child_before_the_mark_is_taken,
];

/// Sets a limit of this process; gives what it was.
pub(crate) fn limit(resource: Resource, current: u64) -> Rlimit {
    let before = getrlimit(resource);
    setrlimit(
        resource,
        Rlimit {
            current: Some(current),
            maximum: before.maximum,
        },
    )
    .unwrap();
    before
}

fn one() -> u32 {
    1
}

/// Starts [`one`] by execution, so that the limits are met in this process and every descriptor counts.
fn execute_one() -> Result<Child<u32>, SpawnError> {
    Process::builder()
        .start_method(StartMethod::Exec)
        .spawn(one, ())
}

/// The descriptors of this process once it has executed a child.
fn after_first_child() -> Vec<(u32, String)> {
    execute_one().unwrap().join().unwrap();
    // The reaper holds the child's descriptor a moment longer than the child lives.
    std::thread::sleep(std::time::Duration::from_millis(50));
    help::descriptors()
}

fn too_many_processes() {
    isolated(|| {
        execute_one().unwrap().join().unwrap();
        if nix::unistd::geteuid().is_root() {
            // The limit does not hold for root.
            nix::unistd::setresgid(65_534.into(), 65_534.into(), 65_534.into()).unwrap();
            nix::unistd::setresuid(65_534.into(), 65_534.into(), 65_534.into()).unwrap();
            // Or the program could not be executed again.
            nix::sys::prctl::set_dumpable(true).unwrap();
        }
        let before = limit(Resource::Nproc, 1);
        let error = execute_one().unwrap_err();
        assert!(
            matches!(error, SpawnError::TooManyProcesses { limit: Some(1), .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("RLIMIT_NPROC"), "{error}");
        assert_eq!(help::own_children(), Vec::<u32>::new());
        setrlimit(Resource::Nproc, before).unwrap();
        assert_eq!(execute_one().unwrap().join().unwrap(), 1);
    });
}

fn too_many_descriptors() {
    isolated(|| {
        let before = after_first_child();
        let mut refused = 0;
        for room in 0..20 {
            let old = limit(Resource::Nofile, before.len() as u64 + room);
            let outcome = execute_one().map(|child| child.join());
            setrlimit(Resource::Nofile, old).unwrap();
            match outcome {
                Ok(Ok(number)) => assert_eq!(number, 1),
                Err(error) => {
                    refused += 1;
                    assert!(
                        matches!(error, SpawnError::TooManyDescriptors { .. }),
                        "{error:?}"
                    );
                    assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
                }
                // The child inherits the limit, and may not even get as far as saying so.
                Ok(Err(JoinError::NotBegun(_) | JoinError::Exited(_))) => refused += 1,
                Ok(Err(error)) => panic!("{error:?}"),
            }
            help::settles_to(&before);
        }
        assert!(refused > 0);
        assert_eq!(execute_one().unwrap().join().unwrap(), 1);
    });
}

fn too_little_memory() {
    // An allocator that has to ask the system for the smallest thing ends its program in such need, as
    // Rust has it.
    if cfg!(not(target_env = "gnu")) {
        return;
    }
    isolated(|| {
        let before = after_first_child();
        let old = limit(Resource::As, 1 << 20);
        let outcome = execute_one().map(|child| child.join());
        setrlimit(Resource::As, old).unwrap();
        match outcome {
            Err(SpawnError::NoMemory { .. }) => {}
            Ok(Err(JoinError::Exited(_) | JoinError::Signalled(_) | JoinError::NotBegun(_))) => {}
            other => panic!("{other:?}"),
        }
        help::settles_to(&before);
        assert_eq!(execute_one().unwrap().join().unwrap(), 1);
    });
}

fn too_little_memory_in_the_child() {
    fn take(bytes: usize) -> usize {
        std::hint::black_box(vec![1_u8; bytes]).len()
    }
    isolated(|| {
        let size = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = size.split(' ').next().unwrap().parse().unwrap();
        let room = pages * rustix::param::page_size() as u64 + (64 << 20);
        let old = limit(Resource::As, room);
        for method in [StartMethod::Exec, StartMethod::Zygote] {
            let start = |bytes: usize| {
                let process = Process::builder().start_method(method);
                process.stderr(Stdio::Null).spawn(take, (bytes,)).unwrap()
            };
            let error = start(1 << 30).join().unwrap_err();
            assert!(matches!(error, JoinError::Signalled(6)), "{error:?}");
            assert_eq!(start(1 << 20).join().unwrap(), 1 << 20);
        }
        setrlimit(Resource::As, old).unwrap();
        assert_eq!(execute_one().unwrap().join().unwrap(), 1);
    });
}

/// Runs a copy of this program as `scenario`.
fn run_copy(scenario: &str) {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let copy = directory.join(format!("copy-{scenario}-{}", std::process::id()));
    std::fs::copy("/proc/self/exe", &copy).unwrap();
    let output = Command::new(&copy)
        .env("MULTIPROC_TEST_SCENARIO", scenario)
        .output();
    // The scenario may have removed it.
    let _ = std::fs::remove_file(&copy);
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.stdout, b"done\n");
}

/// What a copy of this program does.
pub(crate) fn scenario(name: &OsStr) {
    if crate::privilege::scenario(name) || crate::road::scenario(name) {
        return;
    }
    let path = std::env::current_exe().unwrap();
    if name == "removed" {
        std::fs::remove_file(path).unwrap();
        assert_eq!(execute_one().unwrap().join().unwrap(), 1);
    } else if name == "forbidden" {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        let error = execute_one().unwrap_err();
        assert!(matches!(error, SpawnError::Image { .. }), "{error:?}");
        assert_eq!(help::own_children(), Vec::<u32>::new());
    } else if name == "interrupted" {
        crate::endings::interrupted();
    } else if name == "without_streams" {
        crate::builder::without_streams();
    } else {
        panic!("no scenario {name:?}");
    }
    println!("done");
}

fn a_removed_program_still_starts_processes() {
    run_copy("removed");
}

fn a_program_that_may_not_be_executed() {
    run_copy("forbidden");
}

/// 0: not tried; 1: refused, as it must be; 2: anything else.
static EARLY: AtomicI32 = AtomicI32::new(0);

/// Runs before the hook of this crate, in the child too.
extern "C" fn early() {
    if std::env::var_os("MULTIPROC_TEST_EARLY").is_some() {
        let refused = matches!(execute_one(), Err(SpawnError::NotInitialised));
        EARLY.store(if refused { 1 } else { 2 }, Ordering::Relaxed);
    }
}

#[used]
// The section holds pointers to functions of this type, called once each before `main`.
#[unsafe(link_section = ".init_array.00500")]
static EARLY_HOOK: extern "C" fn() = early;

fn no_child_before_the_mark_is_taken() {
    let child = Process::builder()
        .start_method(StartMethod::Exec)
        .env("MULTIPROC_TEST_EARLY", "1")
        .spawn(|| EARLY.load(Ordering::Relaxed), ());
    assert_eq!(child.unwrap().join().unwrap(), 1);
}
