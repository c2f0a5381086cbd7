//! Where names are kept: folders that are there or not, what others put there, and names that are kept busy.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use multiproc::{
    Frozen, Lock, Pipe, PipeError, Queue, Receiver, RecvError, Segment, SegmentError, Sender,
};
use nix::libc;

use crate::help::{isolated, spawn, tests};
use crate::strangers::{Stranger, fresh, path, pause, say, strangers};

tests![
    the_runtime_folder_comes_first,
    a_name_that_another_user_has_taken,
    folders_that_are_not_there,
    without_proc,
    a_caller_that_is_kept_busy,
    a_listener_that_is_kept_busy,
    a_handle_by_name_that_is_kept_busy,
];

strangers![
    with_a_runtime_folder,
    taken_by_another_user,
    in_other_folders,
    with_no_proc,
    keep_busy,
    call_for_long,
    listen_for_long,
    offer_by_name
];

/// Far more than a call with a limit of [`SHORT`] takes, and half of what one without waits for others.
const LATE: Duration = Duration::from_millis(2_500);
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);

/// From now on what this process mounts is seen by it and its children alone; false, and said, where that is refused.
fn alone() -> bool {
    // SAFETY: this process has one thread.
    let unshared = nix::Error::result(unsafe { libc::unshare(libc::CLONE_NEWNS) });
    let private =
        unshared.and_then(|_| mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, ""));
    if let Err(error) = private {
        say(&format!(
            "not checked: nothing can be mounted here: {error}"
        ));
        return false;
    }
    true
}

fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> nix::Result<()> {
    let text = |text: &str| CString::new(text).unwrap();
    let (source, target, kind, data) = (text(source), text(target), text(kind), text(data));
    // SAFETY: all are valid for the call; what is mounted is seen by this process and its children alone.
    let code = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    nix::Error::result(code).map(drop)
}

/// Lets a stranger do its part, and repeats what it could not do.
fn play(part: &str) {
    let mut stranger = Stranger::start(part, &fresh("place"));
    let said = stranger.line();
    if said.starts_with("not checked") {
        eprintln!("{said}");
    } else {
        assert_eq!(said, "done");
    }
    stranger.finish();
}

fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn in_folder(folder: &str, name: &str) -> PathBuf {
    Path::new(folder).join(format!("multiproc-{}-{name}", user()))
}

/// A runtime folder of this user's, as a login makes it.
fn make_runtime_folder() -> String {
    let folder = format!("/run/user/{}", user());
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755").unwrap();
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    folder
}

fn the_runtime_folder_comes_first() {
    play("with_a_runtime_folder");
}

fn with_a_runtime_folder(name: &str) {
    if !alone() {
        return;
    }
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755").unwrap();
    mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777").unwrap();
    // Made when there was none yet, and found when there is.
    let early = format!("{name}-early");
    let first = Lock::create(&early, 1_u64).unwrap();
    assert!(in_folder("/dev/shm", &early).exists());
    let own = make_runtime_folder();
    assert!(matches!(
        Lock::create(&early, 2_u64),
        Err(SegmentError::AlreadyExists { .. })
    ));
    let look = |name: String| *Lock::<u64>::open(&name).unwrap().lock().unwrap();
    assert_eq!(spawn(look, (early.clone(),)).unwrap().join().unwrap(), 1);
    assert_eq!(
        *Lock::open_or_create(&early, 3_u64).unwrap().lock().unwrap(),
        1
    );
    drop(first);
    // Now it is kept where nobody else can put anything.
    let lock = Lock::create(name, 4_u64).unwrap();
    assert!(in_folder(&own, name).exists());
    assert!(!in_folder("/dev/shm", name).exists());
    assert_eq!(spawn(look, (name.to_owned(),)).unwrap().join().unwrap(), 4);
    drop(lock);
    assert!(!in_folder(&own, name).exists());
    // What another user put into the other folder is in nobody's way.
    let taken = in_folder("/dev/shm", name);
    File::create(&taken).unwrap();
    let by_another = std::os::unix::fs::chown(&taken, Some(12_345), None);
    if by_another.is_ok() {
        let lock = Lock::open_or_create(name, 5_u64).unwrap();
        assert_eq!(spawn(look, (name.to_owned(),)).unwrap().join().unwrap(), 5);
        drop(lock);
        assert!(matches!(
            Segment::open(name),
            Err(SegmentError::NotFound { .. })
        ));
        assert_eq!(fs::metadata(&taken).unwrap().uid(), 12_345);
    }
    // A runtime folder without room: the other one has it.
    fs::remove_file(&taken).unwrap();
    mount(
        "tmpfs",
        &own,
        "tmpfs",
        0,
        &format!("size=64k,mode=700,uid={}", user()),
    )
    .unwrap();
    let large = Segment::create(name, 4 << 20).unwrap();
    assert!(in_folder("/dev/shm", name).exists());
    let length = |name: String| Segment::open(&name).unwrap().len();
    assert_eq!(
        spawn(length, (name.to_owned(),)).unwrap().join().unwrap(),
        4 << 20
    );
    assert!(matches!(
        Segment::create(name, 100),
        Err(SegmentError::AlreadyExists { .. })
    ));
    drop(large);
    assert_eq!(fs::read_dir("/dev/shm").unwrap().count(), 0);
    assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
    // A folder that others may enter, or that is of another user's, is not used.
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    let lock = Lock::create(name, 4_u64).unwrap();
    assert!(in_folder("/dev/shm", name).exists());
    drop(lock);
    say("done");
}

fn a_name_that_another_user_has_taken() {
    play("taken_by_another_user");
}

fn taken_by_another_user(name: &str) {
    if !alone() {
        return;
    }
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755").unwrap();
    mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777").unwrap();
    let taken = in_folder("/dev/shm", name);
    File::create(&taken).unwrap();
    if let Err(error) = std::os::unix::fs::chown(&taken, Some(12_345), None) {
        return say(&format!(
            "not checked: no file of another user can be made: {error}"
        ));
    }
    let says_who = |error: SegmentError| {
        let text = error.to_string();
        assert!(matches!(error, SegmentError::Foreign { .. }), "{error:?}");
        for part in ["user 12345", taken.to_str().unwrap(), "root"] {
            assert!(text.contains(part), "{text}");
        }
    };
    says_who(Segment::create(name, 8).unwrap_err());
    says_who(Segment::open(name).unwrap_err());
    says_who(Lock::open_or_create(name, 1_u8).unwrap_err());
    say("done");
}

fn folders_that_are_not_there() {
    play("in_other_folders");
}

fn in_other_folders(name: &str) {
    if !alone() {
        return;
    }
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755").unwrap();
    let refused = |why: &str| {
        for error in [
            Segment::create(name, 8).unwrap_err(),
            Lock::open_or_create(name, 1_u8).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(matches!(error, SegmentError::NoFolder { .. }), "{text}");
            for part in ["/dev/shm", why, "tmpfs"] {
                assert!(text.contains(part), "{text}");
            }
        }
        let found = Segment::open(name).map(|segment| segment.len());
        assert!(
            matches!(found, Err(SegmentError::NotFound { .. })),
            "{found:?}"
        );
        // What has no name needs no folder.
        assert_eq!(*Lock::new(3_u8).unwrap().lock().unwrap(), 3);
    };
    let empty = "/dev";
    // Something of another kind.
    mount("proc", "/dev/shm", "proc", 0, "").unwrap();
    refused("");
    mount("tmpfs", "/dev/shm", "tmpfs", libc::MS_RDONLY, "mode=1777").unwrap();
    refused("read-only");
    mount("tmpfs", empty, "tmpfs", 0, "mode=755").unwrap();
    refused("no such folder");
    // With a runtime folder nothing else is needed.
    make_runtime_folder();
    assert_eq!(*Lock::create(name, 5_u8).unwrap().lock().unwrap(), 5);
    say("done");
}

fn without_proc() {
    play("with_no_proc");
}

fn with_no_proc(name: &str) {
    if !alone() {
        return;
    }
    mount("tmpfs", "/proc", "tmpfs", 0, "").unwrap();
    // Either it works, or it says what is missing.
    let names_it = |error: SegmentError| {
        let text = error.to_string();
        assert!(text.contains("/proc"), "{text}");
    };
    let try_both = || {
        match Frozen::from_slice(&[1_u64, 2]) {
            Ok(frozen) => assert_eq!(*frozen, [1, 2]),
            Err(error) => names_it(error),
        }
        match Lock::create(name, 1_u64) {
            Ok(lock) => assert_eq!(*lock.lock().unwrap(), 1),
            Err(error) => names_it(error),
        }
    };
    try_both();
    if user() == 0 {
        // What root may do without it, others may not on many kernels.
        mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777").unwrap();
        nix::unistd::setresuid(65_534.into(), 65_534.into(), 65_534.into()).unwrap();
        try_both();
    }
    let (mut tx, mut rx) = Queue::<u64>::new(2).unwrap();
    tx.send(1).unwrap();
    assert_eq!(rx.recv(), Ok(1));
    say("done");
}

/// Keeps a named file locked, as whoever attaches does for a moment.
fn keep_busy(name: &str) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path(name))
        .unwrap();
    let lock = libc::flock {
        l_type: libc::F_WRLCK as _,
        l_whence: libc::SEEK_SET as _,
        l_start: 1 << 48,
        l_len: 1,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLKW(&lock)).unwrap();
    say("ready");
    pause();
}

/// Connects, and waits to be accepted.
fn call_for_long(name: &str) {
    say("ready");
    let _ = Pipe::<u64, u64>::builder().connect_timeout(name, LONG);
}

fn listen_for_long(name: &str) {
    let _listener = Pipe::<u64, u64>::listen(name).unwrap();
    say("ready");
    pause();
}

/// Does it, and checks that it was not late.
fn in_time<R>(what: &str, act: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = act();
    let took = start.elapsed();
    assert!(took < LATE, "{what} took {took:?}");
    result
}

fn a_caller_that_is_kept_busy() {
    let name = fresh("busy-caller");
    let mut listener = Pipe::<u64, u64>::listen(&name).unwrap();
    let caller = Stranger::ready("call_for_long", &name);
    let waiting = format!("{name}.0");
    crate::help::wait_until(LONG, "it has called", || path(&waiting).exists());
    std::thread::sleep(SHORT);
    let busy = Stranger::ready("keep_busy", &waiting);
    let accepted = in_time("accept_timeout", || listener.accept_timeout(SHORT));
    assert!(matches!(accepted, Err(PipeError::TimedOut)), "{accepted:?}");
    busy.finish();
    caller.kill();
    drop(listener);
    // What the caller left is taken away by whoever comes next.
    drop(Segment::create(&waiting, 8).unwrap());
    assert!(!path(&waiting).exists());
}

fn a_listener_that_is_kept_busy() {
    let name = fresh("busy-listener");
    let listener = Stranger::ready("listen_for_long", &name);
    let busy = Stranger::ready("keep_busy", &name);
    let connected = in_time("connect_timeout", || {
        Pipe::<u64, u64>::builder().connect_timeout(&name, SHORT)
    });
    assert!(
        matches!(connected, Err(PipeError::TimedOut)),
        "{connected:?}"
    );
    busy.finish();
    listener.finish();
    assert!(matches!(
        Segment::open(&name),
        Err(SegmentError::NotFound { .. })
    ));
}

/// Makes a named queue, and offers a named lock over it again and again.
fn offer_by_name(name: &str) {
    let lock = Lock::create(&format!("{name}.lock"), 1_u64).unwrap();
    let (mut tx, _rx): (Sender<Lock<u64>>, Receiver<Lock<u64>>) =
        Queue::builder().capacity(4).create(name).unwrap();
    tx.send(lock.clone()).unwrap();
    say("ready");
    pause();
}

fn a_handle_by_name_that_is_kept_busy() {
    isolated(|| {
        let name = fresh("busy-handle");
        let maker = Stranger::ready("offer_by_name", &name);
        let (_tx, mut rx): (Sender<Lock<u64>>, Receiver<Lock<u64>>) =
            Queue::builder().open(&name).unwrap();
        let busy = Stranger::ready("keep_busy", &format!("{name}.lock"));
        let received = in_time("try_recv", || rx.try_recv());
        assert!(
            matches!(received, Err(RecvError::Decode(_))),
            "{received:?}"
        );
        busy.finish();
        drop((_tx, rx));
        maker.finish();
    });
}
