//! Starting a child: the running image is executed once more, its first word waiting in its socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::builder::{ProcessBuilder, Stdio};
use super::control::{self, Report, Start, Step};
use super::error::SpawnError;
use super::reaper::{self, Record, reaper};
use super::task::{TaskError, TaskName};
use super::{boot, me};
use crate::handle::Passed;
use crate::kin;
use crate::sys;

/// The running program, also when its file has been replaced or removed.
const IMAGE: &str = "/proc/self/exe";

/// How long a child that was given something to set up may take for it.
const READY: Duration = Duration::from_secs(10);

/// The parent's ends of a child's standard streams.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl From<TaskError> for SpawnError {
    fn from(error: TaskError) -> SpawnError {
        match error {
            TaskError::Foreign => SpawnError::ForeignFunction,
            TaskError::Mismatch => SpawnError::OtherImage,
        }
    }
}

/// Starts a child that runs `task`. When it fails, nothing of the child is left.
pub(super) fn start(
    builder: ProcessBuilder,
    task: TaskName,
    arguments: &[u8],
    passed: &Passed,
) -> Result<(Arc<Record>, Pipes), SpawnError> {
    let image = boot::ready()?;
    check_environment(&builder)?;
    let kin = kin::kin().map_err(SpawnError::from_io)?;
    let reaper = reaper().map_err(SpawnError::from_io)?;
    let me = me();
    let lineage = me.next_child();
    let name: Arc<str> = match &builder.name {
        Some(name) => name.as_str().into(),
        None => default_name(&lineage).into(),
    };
    let (ours, theirs) = sys::socket_pair().map_err(SpawnError::from_io)?;
    let mut pipes = Pipes::default();
    let stdin = match builder.stdin {
        Stdio::Inherit => sys::standard_input(),
        Stdio::Null => None,
        Stdio::Pipe => {
            let (read, write) = sys::pipe().map_err(SpawnError::from_io)?;
            pipes.stdin = Some(ChildStdin::from(write));
            Some(read)
        }
    };
    let say_ready = builder.affinity.is_some() || builder.nice.is_some();
    let start = Start {
        image: image.fingerprint,
        task,
        name: name.to_string(),
        lineage,
        parent_name: me.name.to_string(),
        parent_pid: std::process::id(),
        stdin: stdin.is_some(),
        affinity: builder.affinity,
        nice: builder.nice,
        say_ready,
    };
    let myself = sys::process_descriptor(start.parent_pid).map_err(SpawnError::from_io)?;
    let mut descriptors = Vec::new();
    descriptors.extend(kin.descriptors());
    descriptors.push(myself.as_fd());
    descriptors.extend(stdin.as_ref().map(OwnedFd::as_fd));
    descriptors.extend(passed.descriptors());
    // The first word waits in the socket before there is a child to read it, so a parent killed at any
    // moment leaves a child that reads it and then the end of the stream, or the end alone.
    control::send(&ours, &start, arguments, &descriptors).map_err(SpawnError::from_io)?;

    let mut command = Command::new(IMAGE);
    command
        .arg0(name.replace('\0', "?"))
        .args(std::env::args_os().skip(1))
        .stdin(std::process::Stdio::from(theirs))
        .stdout(builder.stdout.as_std())
        .stderr(builder.stderr.as_std());
    for (key, value) in &builder.environment {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.env(boot::MARK, boot::mark(image));
    if let Some(directory) = &builder.current_dir {
        command.current_dir(directory);
    }
    let (record, pipes) = reaper
        .run_there(move || execute(command, name, ours, pipes))
        .map_err(SpawnError::from_io)?
        .map_err(|error| name_cause(error, builder.current_dir))?;
    if say_ready {
        if let Err(error) = wait_until_ready(&record) {
            end_now(&record);
            return Err(error);
        }
    }
    Ok((record, pipes))
}

/// Refuses what no environment can hold.
fn check_environment(builder: &ProcessBuilder) -> Result<(), SpawnError> {
    for (key, value) in &builder.environment {
        let key = key.as_bytes();
        let value = value.as_ref().map_or(&[][..], |value| value.as_bytes());
        if key.is_empty() || key.contains(&b'=') || key.contains(&0) || value.contains(&0) {
            let why = "an environment variable has an empty name, a name with `=`, or a zero byte";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why).into());
        }
    }
    Ok(())
}

/// `Process-1`, and `Process-1:2` for the second child of that.
fn default_name(lineage: &[u32]) -> String {
    let numbers: Vec<String> = lineage.iter().map(u32::to_string).collect();
    format!("Process-{}", numbers.join(":"))
}

/// Executes the image; runs on the reaper's thread.
fn execute(
    mut command: Command,
    name: Arc<str>,
    control: OwnedFd,
    mut pipes: Pipes,
) -> io::Result<(Arc<Record>, Pipes)> {
    let mut child = command.spawn()?;
    // The child's end of the socket must be closed here, or its death would not close it.
    drop(command);
    pipes.stdout = child.stdout.take();
    pipes.stderr = child.stderr.take();
    let watched = sys::process_descriptor(child.id()).and_then(|process| {
        let record = Record::new(child.id(), name, process, control);
        reaper::reaper()?.watch(&record)?;
        Ok(record)
    });
    match watched {
        Ok(record) => Ok((record, pipes)),
        Err(error) => {
            // Nobody would reap it; it is in its first steps and ends at once.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Says what the system meant when it would not execute the image.
fn name_cause(error: io::Error, directory: Option<PathBuf>) -> SpawnError {
    use nix::libc::{EACCES, ELOOP, ENOENT, ENOEXEC, ENOTDIR, EPERM, ETXTBSY};
    match error.raw_os_error() {
        Some(EACCES | ELOOP | ENOENT | ENOEXEC | ENOTDIR | EPERM | ETXTBSY) => match directory {
            Some(path) if !sys::may_enter(&path) => SpawnError::CurrentDir {
                path,
                source: error,
            },
            _ => SpawnError::Image { source: error },
        },
        _ => SpawnError::from_io(error),
    }
}

fn wait_until_ready(record: &Record) -> Result<(), SpawnError> {
    let deadline = Instant::now() + READY;
    loop {
        let said = record.look(|reports| match reports.first().map(|first| &first.head) {
            None => None,
            Some(Report::Refused(step, errno)) => Some(Err(refusal(*step, *errno))),
            Some(_) => Some(Ok(())),
        });
        if let Some(said) = said {
            return said;
        }
        if let Some(how) = record.how() {
            return Err(SpawnError::NotReady(format!("it ended, {how:?}")));
        }
        if !record.wait_for_report(deadline)? {
            return Err(SpawnError::NotReady(format!("no answer within {READY:?}")));
        }
    }
}

/// What a child's refusal means.
pub(super) fn refusal(step: Step, errno: i32) -> SpawnError {
    let source = io::Error::from_raw_os_error(errno);
    match step {
        Step::Image => SpawnError::OtherImage,
        Step::Affinity => SpawnError::Affinity { source },
        Step::Nice => SpawnError::Nice { source },
        Step::Kin | Step::Stdin | Step::Signals | Step::Watch => SpawnError::from_io(source),
    }
}

/// Kills a child and waits until it is reaped.
pub(super) fn end_now(record: &Record) {
    // Refused only when it has ended.
    let _ = sys::send_signal(record.process(), nix::libc::SIGKILL);
    // A process in the hands of a broken device may outlast its kill; the reaper gets it when it goes.
    record.wait(Some(Instant::now() + Duration::from_secs(5)));
}
