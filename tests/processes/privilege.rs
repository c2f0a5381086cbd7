//! Children have what the thread has that starts them, and nobody's rights but their parent's.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use multiproc::{Pool, Process, SpawnError, StartMethod};
use nix::libc;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::help::{self, isolated, sleep_long, tests, wait_until};
use crate::seccomp::{self, Filter};
use crate::zygote::{by_zygote, settled, zygote};

tests![
    set_user_id_programs_obey_nobody,
    effective_ids_that_differ,
    started_through_the_loader,
    a_daemon_that_gives_up_root,
    a_zygote_is_ended_when_told,
    a_zygote_that_may_not_be_signalled,
    threads_with_filters,
    threads_without_new_privileges,
    threads_under_landlock,
    threads_under_landlock_as_root,
    threads_in_other_namespaces,
    threads_in_another_time,
    a_pid_namespace_for_children,
    threads_without_capabilities,
    threads_of_root_without_its_magic,
    threads_of_another_user,
    threads_on_one_processor,
    threads_that_give_way,
    threads_with_odd_settings,
    threads_with_their_own_folder_and_umask,
    a_process_that_changes,
    a_process_that_enters_a_control_group,
    nobody_enters_a_folder_twice,
];

const LONG: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65_534;
const METHODS: [Option<StartMethod>; 3] =
    [None, Some(StartMethod::Zygote), Some(StartMethod::Exec)];

fn process(method: Option<StartMethod>) -> multiproc::ProcessBuilder {
    match method {
        Some(method) => Process::builder().start_method(method),
        None => Process::builder(),
    }
}

/// What a process has from whoever started it; the last in a line each.
fn attributes() -> String {
    const LINES: &[&str] = &[
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "NSpgid",
        "NSsid",
        "Threads",
        "SigBlk",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Cpus_allowed",
        "Mems_allowed",
    ];
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let watched = |line: &&str| LINES.contains(&line.split(':').next().unwrap());
    let mut all: Vec<String> = status.lines().filter(watched).map(str::to_owned).collect();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:\t"));
    // Those that the C library keeps for itself do not count.
    let ignored = u64::from_str_radix(ignored.unwrap(), 16).unwrap() & !(0b111 << 31);
    all.push(format!("ignored signals: {ignored:x}"));
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let link = fs::read_link(format!("/proc/thread-self/ns/{kind}"));
        all.push(format!("namespace {kind}: {link:?}"));
    }
    for file in ["limits", "oom_score_adj", "cgroup"] {
        let text = fs::read_to_string(format!("/proc/thread-self/{file}"));
        all.push(format!("{file}: {text:?}"));
    }
    let get = |what: libc::c_int| {
        // SAFETY: these operations of `prctl` only tell a number.
        unsafe { libc::prctl(what, 0, 0, 0, 0) }
    };
    all.push(format!("timer slack: {}", get(libc::PR_GET_TIMERSLACK)));
    all.push(format!("secure bits: {}", get(libc::PR_GET_SECUREBITS)));
    all.push(format!("dumpable: {}", get(libc::PR_GET_DUMPABLE)));
    all.push(format!("huge pages: {}", get(libc::PR_GET_THP_DISABLE)));
    // SAFETY: all of them only tell a number.
    let numbers = unsafe {
        [
            libc::getpriority(libc::PRIO_PROCESS, 0).into(),
            libc::sched_getscheduler(0).into(),
            libc::personality(0xffff_ffff).into(),
            libc::syscall(libc::SYS_ioprio_get, 1, 0),
        ]
    };
    all.push(format!("nice, policy, personality, I/O: {numbers:?}"));
    let here = std::env::current_dir();
    all.push(format!("folder: {here:?}"));
    let path = std::env::temp_dir().join(format!("multiproc-probe-{}", std::process::id()));
    let made = File::create(&path).map(drop).map_err(|error| error.kind());
    let _ = fs::remove_file(&path);
    all.push(format!("may make files: {made:?}"));
    all.join("\n")
}

/// Those of a program that the calling thread starts in the ordinary way.
fn of_a_command() -> String {
    let output = Command::new("/proc/self/exe")
        .env("MULTIPROC_TEST_SCENARIO", "attributes")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

fn of_a_child(method: Option<StartMethod>) -> String {
    let child = process(method).spawn(attributes, ()).unwrap();
    child.join_timeout(LONG).unwrap().unwrap()
}

#[track_caller]
fn same(found: &str, wanted: &str, what: &str) {
    let lines = found.lines().zip(wanted.lines());
    let other: Vec<_> = lines.filter(|(found, wanted)| found != wanted).collect();
    assert!(other.is_empty(), "{what}: {other:#?}");
    assert_eq!(found, wanted, "{what}");
}

/// The children of a thread that has done `change` to itself have that; those of others have not.
fn thread_that(change: fn() -> nix::Result<()>) {
    by_zygote(|| ()).join().unwrap();
    let zygote = settled();
    let plain = of_a_command();
    for method in METHODS {
        let of_thread = thread::spawn(move || {
            // From then on it is given children that wait before it is asked what it has.
            by_zygote(|| ()).join().unwrap();
            settled();
            if let Err(error) = change() {
                eprintln!("NOT CHECKED, for this process may not do it to a thread: {error}");
                return None;
            }
            let wanted = of_a_command();
            for _ in 0..2 {
                same(&of_a_child(method), &wanted, &format!("{method:?}"));
            }
            Some(wanted)
        });
        match of_thread.join() {
            Ok(Some(changed)) => assert_ne!(changed, plain, "nothing was changed"),
            Ok(None) => return,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        same(&of_a_child(method), &plain, "another thread's child");
    }
    assert_eq!(settled(), zygote, "it serves the others as before");
}

fn threads_with_filters() {
    isolated(|| {
        thread_that(|| seccomp::install(&[Filter::refuse(libc::SYS_mknodat, libc::EPERM)]))
    });
    // One more on top of what the whole process has.
    isolated(|| {
        seccomp::install(&[Filter::refuse(libc::SYS_mknodat, libc::EPERM)]).unwrap();
        thread_that(|| seccomp::install(&[Filter::refuse(libc::SYS_symlinkat, libc::EPERM)]));
    });
}

pub(crate) fn no_new_privileges() -> nix::Result<()> {
    nix::sys::prctl::set_no_new_privs()
}

fn threads_without_new_privileges() {
    isolated(|| thread_that(no_new_privileges));
}

/// Allows the calling thread, and what it starts, to make no files.
pub(crate) fn landlock() -> nix::Result<()> {
    const MAKE_REG: u64 = 1 << 8;
    let handled = [MAKE_REG];
    // SAFETY: the kernel reads one number from a place of that size.
    let made = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &handled, 8, 0) };
    let rules = nix::Error::result(made)?;
    // SAFETY: the descriptor was made a moment ago; nothing but the rights of this thread changes.
    nix::Error::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) })?;
    // SAFETY: it is this function's own.
    unsafe { libc::close(rules as i32) };
    Ok(())
}

fn threads_under_landlock() {
    // Everybody is without new privileges, so that nothing else differs.
    isolated(|| {
        no_new_privileges().unwrap();
        thread_that(landlock);
    });
}

fn threads_under_landlock_as_root() {
    isolated(|| thread_that(landlock));
}

fn threads_in_other_namespaces() {
    isolated(|| {
        // One after another: each alone makes a thread another.
        thread_that(|| nix::sched::unshare(CloneFlags::CLONE_NEWUTS));
        thread_that(|| nix::sched::unshare(CloneFlags::CLONE_NEWIPC));
        thread_that(|| nix::sched::unshare(CloneFlags::CLONE_NEWNET));
        thread_that(|| nix::sched::unshare(CloneFlags::CLONE_NEWNS));
        thread_that(|| nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP));
    });
}

fn threads_in_another_time() {
    isolated(|| {
        thread_that(|| {
            // SAFETY: changes nothing but where the children of this thread will be.
            nix::Error::result(unsafe { libc::unshare(libc::CLONE_NEWTIME) }).map(drop)
        });
    });
}

/// The first of its children is the first process there. When it ends there can be no other.
fn a_pid_namespace_for_children() {
    for method in METHODS {
        let child = process(method).spawn(
            |exec: bool| {
                by_zygote(|| ()).join().unwrap();
                settled();
                if let Err(error) = nix::sched::unshare(CloneFlags::CLONE_NEWPID) {
                    return eprintln!("NOT CHECKED, for this process may not do it: {error}");
                }
                let method = match exec {
                    true => StartMethod::Exec,
                    false => StartMethod::Zygote,
                };
                let child = process(Some(method)).spawn(std::process::id, ());
                assert_eq!(child.unwrap().join_timeout(LONG).unwrap(), Some(1));
            },
            (method == Some(StartMethod::Exec),),
        );
        assert_eq!(child.unwrap().join_timeout(LONG).unwrap(), Some(()));
    }
    // Before anything was started the thread that watches over children cannot be made.
    isolated(|| {
        if nix::sched::unshare(CloneFlags::CLONE_NEWPID).is_ok() {
            let error = process(None).spawn(|| (), ()).unwrap_err();
            assert!(matches!(error, SpawnError::NoThread { .. }), "{error:?}");
            assert!(error.to_string().contains("CLONE_NEWPID"), "{error}");
        }
    });
}

fn threads_without_capabilities() {
    isolated(|| {
        thread_that(|| {
            const CAP_NET_RAW: libc::c_long = 13;
            // SAFETY: it takes something away from this thread alone.
            let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_RAW, 0, 0, 0) };
            nix::Error::result(done).map(drop)
        });
    });
}

fn threads_of_root_without_its_magic() {
    isolated(|| {
        thread_that(|| {
            const NOROOT_LOCKED: libc::c_long = 3;
            // SAFETY: it takes something away from this thread alone.
            let done = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NOROOT_LOCKED, 0, 0, 0) };
            nix::Error::result(done).map(drop)
        });
    });
}

fn threads_of_another_user() {
    isolated(|| {
        thread_that(|| {
            // By the kernel's own call, which is for one thread.
            // SAFETY: it takes something away from this thread alone.
            let done = unsafe {
                libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>())
                    | libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY)
                    | libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY)
            };
            nix::Error::result(done).map(drop)
        });
    });
}

fn threads_on_one_processor() {
    isolated(|| {
        if thread::available_parallelism().unwrap().get() == 1 {
            return eprintln!("NOT CHECKED, for there is but one processor");
        }
        thread_that(|| {
            let all = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
            let last = (0..nix::sched::CpuSet::count()).rfind(|cpu| all.is_set(*cpu) == Ok(true));
            let mut one = nix::sched::CpuSet::new();
            one.set(last.unwrap())?;
            nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one)
        });
    });
}

fn threads_that_give_way() {
    isolated(|| {
        thread_that(|| {
            // SAFETY: it takes something away from this thread alone.
            nix::Error::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 5) }).map(drop)
        });
    });
    isolated(|| {
        thread_that(|| {
            // SAFETY: as above; all parameters of this policy are zero.
            let done = unsafe {
                let parameters: libc::sched_param = std::mem::zeroed();
                libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters)
            };
            nix::Error::result(done).map(drop)
        });
    });
}

fn threads_with_odd_settings() {
    isolated(|| {
        thread_that(|| {
            // SAFETY: it changes nothing but how memory is laid out in programs that this thread executes.
            nix::Error::result(unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as _) }).map(drop)
        });
    });
    isolated(|| {
        thread_that(|| {
            // SAFETY: it changes nothing but how exactly this thread's sleeps end.
            nix::Error::result(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_000) }).map(drop)
        });
    });
    isolated(|| {
        thread_that(|| {
            const IDLE: libc::c_long = 3 << 13;
            // SAFETY: it takes something away from this thread alone.
            nix::Error::result(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, IDLE) }).map(drop)
        });
    });
}

fn threads_with_their_own_folder_and_umask() {
    isolated(|| {
        thread_that(|| {
            nix::sched::unshare(CloneFlags::CLONE_FS)?;
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
            nix::unistd::chdir("/usr")
        });
    });
}

/// Where the whole process has changed another zygote is made, whose children have that too.
fn a_process_that_changes() {
    fn all_have_it() {
        let wanted = of_a_command();
        for method in METHODS {
            same(&of_a_child(method), &wanted, &format!("{method:?}"));
        }
        settled();
        let before = help::all_children();
        let child = process(None).spawn(sleep_long, ()).unwrap();
        assert!(before.contains(&child.pid()), "it was one that waited");
    }
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        settled();
        let changes: [fn(); 4] = [
            // SAFETY: ignoring a signal runs no code.
            || _ = unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.unwrap(),
            || _ = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027)),
            || fs::write("/proc/self/oom_score_adj", "500").unwrap(),
            || {
                let (_, hard) =
                    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
                        .unwrap();
                let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
                nix::sys::resource::setrlimit(limit, 333, hard).unwrap();
            },
        ];
        for change in changes {
            let before = settled();
            change();
            all_have_it();
            assert_ne!(settled(), before);
        }
    });
}

fn a_process_that_enters_a_control_group() {
    isolated(|| {
        let bases = [
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/pids",
        ];
        let members = |group: &str| format!("{group}/cgroup.procs");
        let base = bases
            .into_iter()
            .find(|base| Path::new(&members(base)).exists());
        let base = base.unwrap_or("/sys/fs/cgroup");
        let group = format!("{base}/multiproc-privilege-{}", std::process::id());
        by_zygote(|| ()).join().unwrap();
        let before = settled();
        let made = fs::create_dir(&group).and_then(|()| {
            fs::write(members(&group), "0").inspect_err(|_| fs::remove_dir(&group).unwrap())
        });
        if let Err(error) = made {
            return eprintln!("NOT CHECKED, for there can be no control group here: {error}");
        }
        let wanted = of_a_command();
        let found = METHODS.map(of_a_child);
        let after = settled();
        // The group goes before anything is judged.
        multiproc::end_zygote().unwrap();
        fs::write(members(base), "0").unwrap();
        wait_until(LONG, "the group is removed", || {
            fs::remove_dir(&group).is_ok()
        });
        for found in found {
            same(&found, &wanted, "in the group");
        }
        assert_ne!(after, before);
    });
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("NOT CHECKED, for it takes root");
    }
    is_root
}

fn become_nobody() {
    nix::unistd::setgroups(&[]).unwrap();
    nix::unistd::setresgid(NOBODY.into(), NOBODY.into(), NOBODY.into()).unwrap();
    nix::unistd::setresuid(NOBODY.into(), NOBODY.into(), NOBODY.into()).unwrap();
}

/// The user of each living child of this process.
fn users() -> Vec<String> {
    let user = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let is_dead = status.lines().any(|line| line.starts_with("State:\tZ"));
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:\t"))?;
        (!is_dead).then(|| line.to_owned())
    };
    help::all_children().into_iter().filter_map(user).collect()
}

fn a_daemon_that_gives_up_root() {
    if !is_root() {
        return;
    }
    fn daemon(which: u32) {
        by_zygote(|| ()).join().unwrap();
        settled();
        assert_eq!(users(), ["0\t0\t0\t0"; 3]);
        become_nobody();
        let nobody = format!("{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}");
        let child = process(METHODS[which as usize])
            .spawn(attributes, ())
            .unwrap();
        // At once: they were ended before it was started.
        assert!(users().iter().all(|user| *user == nobody), "{:?}", users());
        let found = child.join_timeout(LONG).unwrap().unwrap();
        let found: Vec<&str> = found
            .lines()
            .filter(|line| line.starts_with("Uid"))
            .collect();
        assert_eq!(found, [format!("Uid:\t{nobody}")]);
        by_zygote(|| ()).join().unwrap();
        settled();
        assert_eq!(users(), [(); 3].map(|()| nobody.clone()));
    }
    for which in 0..METHODS.len() as u32 {
        let child = Process::spawn(daemon, (which,)).unwrap();
        assert_eq!(child.join_timeout(LONG).unwrap(), Some(()));
    }
}

fn a_zygote_is_ended_when_told() {
    isolated(|| {
        multiproc::end_zygote().unwrap();
        by_zygote(|| ()).join().unwrap();
        let before = settled();
        let child = by_zygote(sleep_long);
        multiproc::end_zygote().unwrap();
        assert_eq!(help::all_children(), [child.pid()]);
        assert!(child.is_alive(), "it has a function");
        by_zygote(|| ()).join().unwrap();
        assert_ne!(settled(), before);
        drop(child);
    });
}

/// It ends although this process may not kill it any more.
fn a_zygote_that_may_not_be_signalled() {
    if !is_root() {
        return;
    }
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        settled();
        become_nobody();
        multiproc::end_zygote().unwrap();
        assert_eq!(help::all_children(), Vec::<u32>::new());
    });
}

/// Where the working directory may not be searched it is inherited, and not opened.
fn nobody_enters_a_folder_twice() {
    if !is_root() {
        return;
    }
    isolated(|| {
        let folder = std::env::temp_dir().join(format!("multiproc-closed-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(folder.join("inner")).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        std::env::set_current_dir(&folder).unwrap();
        let there = thread::spawn(|| {
            by_zygote(|| ()).join().unwrap();
            let file = File::open(".").unwrap();
            become_nobody();
            let here = std::env::current_dir().unwrap();
            let found = || std::env::current_dir().unwrap();
            for method in METHODS.into_iter().cycle().take(9) {
                let child = process(method).spawn(found_here, ()).unwrap();
                assert_eq!(child.join_timeout(LONG).unwrap(), Some(here.clone()));
            }
            assert_eq!(found(), here);
            let error = process(None)
                .current_dir("inner")
                .spawn(|| (), ())
                .unwrap_err();
            assert!(
                matches!(&error, SpawnError::CurrentDir { path, .. } if path == Path::new("inner")),
                "{error:?}"
            );
            drop(file);
        });
        let outcome = there.join();
        // Whoever it was before may remove it no more.
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    // The isolated process is nobody at its end, so its folder is removed here.
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("multiproc-closed-")
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn found_here() -> PathBuf {
    std::env::current_dir().unwrap()
}

/// What the environment says to a child of this program.
fn mark() -> String {
    let child = process(Some(StartMethod::Exec))
        .spawn(sleep_long, ())
        .unwrap();
    let mut found = None;
    // While a program begins, its environment cannot be read for a moment.
    wait_until(LONG, "the mark shows", || {
        let environment = fs::read(format!("/proc/{}/environ", child.pid())).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut all = environment.split('\0');
        found = all.find_map(|one| one.strip_prefix("MULTIPROC_CHILD=").map(str::to_owned));
        found.is_some()
    });
    found.unwrap()
}

fn set_user_id_programs_obey_nobody() {
    if !is_root() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("multiproc-setuid-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    struct Removed(PathBuf);
    impl Drop for Removed {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }
    let folder = Removed(folder);
    fs::set_permissions(&folder.0, Permissions::from_mode(0o755)).unwrap();
    let mark = mark();
    let copy = folder.0.join("copy");
    let run = |what: &str| {
        let output = Command::new(&copy)
            .env("MULTIPROC_TEST_SCENARIO", "privileged")
            .env("MULTIPROC_CHILD", &mark)
            .stdin(Stdio::null())
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{what}: {:?} {said}{error}",
            output.status
        );
        said
    };
    for what in ["set-user-ID", "set-group-ID", "capabilities"] {
        let _ = fs::remove_file(&copy);
        fs::copy("/proc/self/exe", &copy).unwrap();
        let mode = match what {
            "set-user-ID" => 0o4755,
            "set-group-ID" => 0o2755,
            _ => 0o755,
        };
        fs::set_permissions(&copy, Permissions::from_mode(mode)).unwrap();
        if what == "capabilities" {
            let set = Command::new("setcap")
                .arg("cap_net_raw+ep")
                .arg(&copy)
                .status();
            if !set.as_ref().is_ok_and(std::process::ExitStatus::success) {
                eprintln!("NOT CHECKED, for `setcap` does not work here: {set:?}");
                continue;
            }
        }
        let said = run(what);
        if said == "not privileged\n" {
            eprintln!("NOT CHECKED, for {what} has no effect in the temporary folder");
            continue;
        }
        assert_eq!(said, "main ran; refused, refused, refused\n", "{what}");
    }
}

/// What copies of this program do. False if it is none of these.
pub(crate) fn scenario(name: &OsStr) -> bool {
    if name == "attributes" {
        print!("{}", attributes());
        std::process::exit(0);
    } else if name == "privileged" {
        // SAFETY: asks for a number only.
        if unsafe { libc::getauxval(libc::AT_SECURE) } == 0 {
            println!("not privileged");
            std::process::exit(0);
        }
        multiproc::init();
        let said = [None, Some(StartMethod::Exec)].map(|method| {
            let refused = process(method).spawn(|| (), ());
            refused.is_err_and(|error| matches!(error, SpawnError::Privileged))
        });
        let pool = Pool::new(1).is_err_and(|error| error.to_string().contains("rights"));
        let word = |refused| if refused { "refused" } else { "not refused" };
        println!(
            "main ran; {}, {}, {}",
            word(said[0]),
            word(said[1]),
            word(pool)
        );
        std::process::exit(0);
    } else if name == "by_loader" {
        for method in METHODS {
            let error = process(method).spawn(|| (), ()).unwrap_err();
            assert!(matches!(error, SpawnError::Loader { .. }), "{error:?}");
            println!("{error}");
        }
        std::process::exit(0);
    }
    false
}

fn effective_ids_that_differ() {
    if !is_root() {
        return;
    }
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        nix::unistd::seteuid(NOBODY.into()).unwrap();
        for method in METHODS {
            let error = process(method).spawn(|| (), ()).unwrap_err();
            assert!(matches!(error, SpawnError::Privileged), "{error:?}");
        }
        nix::unistd::seteuid(0.into()).unwrap();
        by_zygote(|| ()).join().unwrap();
        let _ = zygote();
    });
}

fn started_through_the_loader() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let loader = maps.lines().find_map(|line| {
        let path = line.split_ascii_whitespace().nth(5)?;
        Path::new(path)
            .file_name()?
            .to_str()?
            .starts_with("ld-")
            .then_some(path)
    });
    let Some(loader) = loader else {
        return eprintln!("NOT CHECKED, for this program has no loader");
    };
    let program = std::env::current_exe().unwrap();
    let output = Command::new(loader)
        .arg(&program)
        // This is what children would execute.
        .arg("/bin/true")
        .env("MULTIPROC_TEST_SCENARIO", "by_loader")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{error}");
    assert_eq!(said.lines().count(), METHODS.len(), "{said}");
    assert!(said.contains(program.to_str().unwrap()), "{said}");
}
