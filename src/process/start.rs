//! Starting a child: one that waits is given its first word, or the running image is executed once more.
//!
//! Either way the child has what the calling thread hands on. One that waits is given to those threads alone
//! that have what it has; for all others the image is executed.
//!
//! A child is watched over before it is given anything to do, so that nothing runs of which nobody knows,
//! and nothing runs twice when a child has to be made in another way.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::{Given, Order, Report, Start, Step};
use super::error::SpawnError;
use super::execute::{LONGEST_VARIABLE, Place, command, end_now, execute_for_caller};
use super::keeper::{self, Environment, Spare};
use super::reaper::{Record, reaper};
use super::settings::{Change, Settings, Stdio};
use super::task::{TaskError, TaskName};
use super::{boot, me};
use crate::handle::Passed;
use crate::kin;
use crate::sys::{self, Descriptor, Image, Stream};

/// How long a child may take that was given something to set up, or that has to find its work without the hook.
const READY: Duration = Duration::from_secs(20);

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
    settings: &Settings,
    task: TaskName,
    arguments: &[u8],
    passed: &Passed,
) -> Result<(Arc<Record>, Pipes), SpawnError> {
    let image = boot::ready()?;
    check_environment(settings)?;
    let directory = match &settings.current_dir {
        Some(path) => Some(directory(path)?),
        None => None,
    };
    let me = me();
    let lineage = me.next_child();
    let name: Arc<str> = match &settings.name {
        Some(name) => name.as_str().into(),
        None => default_name(&lineage).into(),
    };
    let mut pipes = Pipes::default();
    let streams = streams(settings, &mut pipes).map_err(SpawnError::from_io)?;
    let is_hooked = boot::is_hooked(image);
    // Where its work is found, is not in the hands of this crate without the hook: the child may be another
    // program than its parent, and wait for something else at its standard input.
    let say_ready = settings.affinity.is_some() || settings.nice.is_some() || !is_hooked;
    let start = Start {
        image: image.fingerprint,
        task,
        name: name.to_string(),
        lineage,
        parent_name: me.name.to_string(),
        parent_pid: std::process::id(),
        parent_number: kin::kin().map_err(SpawnError::from_io)?.me(),
        streams: [Given::Nothing; 3],
        directory: false,
        environment: Vec::new(),
        affinity: settings.affinity.clone(),
        nice: settings.nice,
        tied: true,
        say_ready,
    };
    let mut work = Work {
        start,
        streams,
        directory,
        arguments,
        passed: passed.descriptors(),
    };
    let record = match keeper::take(settings.method)? {
        Some(spare) if work.find_directory()? => work.give_to(spare, settings)?,
        Some(spare) => {
            keeper::give_back(spare);
            None
        }
        None => None,
    };
    let record = match record {
        Some(record) => record,
        None => work.execute(image, settings)?,
    };
    record.set_name(name);
    if say_ready {
        if let Err(error) = wait_until_ready(&record) {
            end_now(&record);
            return Err(match error {
                SpawnError::NotReady(why) if !is_hooked => {
                    SpawnError::NotReady(format!("{why}; {}", advice()))
                }
                other => other,
            });
        }
    }
    Ok((record, pipes))
}

/// The child's ends of its standard streams; the other ends of pipes go to `pipes`.
fn streams(settings: &Settings, pipes: &mut Pipes) -> io::Result<[Option<OwnedFd>; 3]> {
    let input = match settings.stdin {
        Stdio::Inherit => sys::stream(Stream::Input),
        Stdio::Null => None,
        Stdio::Pipe => {
            let (read, write) = sys::pipe()?;
            pipes.stdin = Some(write.into());
            Some(read)
        }
    };
    let out = |wanted, stream| {
        Ok::<_, io::Error>(match wanted {
            Stdio::Inherit => (None, sys::stream(stream)),
            Stdio::Null => (None, None),
            Stdio::Pipe => {
                let (read, write) = sys::pipe()?;
                (Some(read), Some(write))
            }
        })
    };
    let (read, output) = out(settings.stdout, Stream::Output)?;
    pipes.stdout = read.map(Into::into);
    let (read, error) = out(settings.stderr, Stream::Error)?;
    pipes.stderr = read.map(Into::into);
    Ok([input, output, error])
}

/// A descriptor of a child's working directory, which it may enter.
fn directory(path: &Path) -> Result<OwnedFd, SpawnError> {
    let opened = sys::directory(path).and_then(|directory| match sys::may_enter(path) {
        true => Ok(directory),
        false => Err(io::Error::from_raw_os_error(nix::libc::EACCES)),
    });
    opened.map_err(|error| no_directory(path, error))
}

fn no_directory(path: &Path, error: io::Error) -> SpawnError {
    match error.raw_os_error() {
        Some(nix::libc::EMFILE | nix::libc::ENFILE | nix::libc::ENOMEM) => {
            SpawnError::from_io(error)
        }
        _ => SpawnError::CurrentDir {
            path: path.to_path_buf(),
            error,
        },
    }
}

/// What a child is to do, and with what.
struct Work<'a> {
    start: Start,
    streams: [Option<OwnedFd>; 3],
    directory: Option<OwnedFd>,
    arguments: &'a [u8],
    passed: Vec<BorrowedFd<'a>>,
}

impl Work<'_> {
    /// Finds the directory for a child that waits, which was made in another perhaps; false if it is this
    /// process's own and may not be opened, only inherited: by execution.
    fn find_directory(&mut self) -> Result<bool, SpawnError> {
        if self.directory.is_some() {
            return Ok(true);
        }
        match sys::directory(Path::new(".")) {
            Ok(here) => {
                self.directory = Some(here);
                Ok(true)
            }
            // Nobody but its owner may search it, for example, and this process is another user's by now.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(no_directory(Path::new("."), error)),
        }
    }

    /// Gives it to a child that waits; `None` if that has died before.
    fn give_to(
        &mut self,
        spare: Spare,
        settings: &Settings,
    ) -> Result<Option<Arc<Record>>, SpawnError> {
        self.start.streams = self.streams.each_ref().map(|stream| match stream {
            Some(_) => Given::Here,
            None => Given::Nothing,
        });
        self.start.environment = changes(&spare.inherited.environment, &settings.environment);
        match self.tell(&spare.record, Vec::new()) {
            Ok(()) => {
                keeper::refill();
                Ok(Some(spare.record))
            }
            Err(error) => {
                end_now(&spare.record);
                match error.kind() {
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(None),
                    _ => Err(SpawnError::from_io(error)),
                }
            }
        }
    }

    /// Executes the image for it.
    fn execute(&mut self, image: &Image, settings: &Settings) -> Result<Arc<Record>, SpawnError> {
        reaper().map_err(no_thread)?;
        let (ours, theirs) = sys::socket_pair().map_err(SpawnError::from_io)?;
        let place = Place::for_children()?;
        let (their_lifeline, lifeline) = sys::pipe().map_err(SpawnError::from_io)?;
        let mut command = command(theirs);
        let [input, output, error] = &mut self.streams;
        let or_nothing = |stream: &mut Option<OwnedFd>| match stream.take() {
            Some(stream) => Ok(stream),
            None => sys::null_device(),
        };
        command.stdout(or_nothing(output).map_err(SpawnError::from_io)?);
        command.stderr(or_nothing(error).map_err(SpawnError::from_io)?);
        self.start.streams = [
            match input {
                Some(_) => Given::Here,
                None => Given::Nothing,
            },
            Given::Already,
            Given::Already,
        ];
        self.start.environment = Vec::new();
        for (key, value) in variables(&settings.environment) {
            match value {
                // The system takes no longer ones; the first word has room for them.
                Some(value) if key.len() + value.len() > LONGEST_VARIABLE => {
                    command.env_remove(&key);
                    let bytes = OsString::into_encoded_bytes;
                    let change = (bytes(key), Some(bytes(value)));
                    self.start.environment.push(change);
                }
                Some(value) => _ = command.env(key, value),
                None => _ = command.env_remove(key),
            }
        }
        command.env(boot::MARK, boot::mark(image));
        let (record, tied) = execute_for_caller(command, ours).map_err(name_cause)?;
        record.keep(Arc::new(Descriptor::keep(lifeline)));
        self.start.tied = tied;
        let mut first = place.descriptors();
        first.push(their_lifeline.as_fd());
        match self.tell(&record, first) {
            Ok(()) => Ok(record),
            // It has ended already; how, says its end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(record),
            Err(error) => {
                end_now(&record);
                Err(SpawnError::from_io(error))
            }
        }
    }

    /// Says the first word, with `first` before the other descriptors.
    fn tell(&mut self, record: &Record, first: Vec<BorrowedFd<'_>>) -> io::Result<()> {
        self.start.directory = self.directory.is_some();
        let mut descriptors = first;
        descriptors.extend(self.streams.iter().flatten().map(OwnedFd::as_fd));
        descriptors.extend(self.directory.as_ref().map(OwnedFd::as_fd));
        descriptors.extend_from_slice(&self.passed);
        record.tell(
            &Order::Run(self.start.clone()),
            self.arguments,
            &descriptors,
        )
    }
}

/// The variables that a program executed here would not simply inherit: those asked for, and those that are
/// too long for an execution.
fn variables(wanted: &[Change]) -> HashMap<OsString, Option<OsString>> {
    let all = std::env::vars_os();
    let is_long = |(key, value): &(OsString, OsString)| key.len() + value.len() > LONGEST_VARIABLE;
    let long = all.filter(is_long).map(|(key, value)| (key, Some(value)));
    // What is asked for later counts.
    long.chain(wanted.iter().cloned()).collect()
}

/// What this process's environment, changed as `wanted`, has other than `given`.
fn changes(given: &Environment, wanted: &[Change]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let now: Environment = std::env::vars_os().collect();
    if wanted.is_empty() && now == *given {
        return Vec::new();
    }
    let mut now: HashMap<OsString, OsString> = now.into_iter().collect();
    for (key, value) in wanted {
        match value {
            Some(value) => now.insert(key.clone(), value.clone()),
            None => now.remove(key),
        };
    }
    let mut changes = Vec::new();
    for (key, value) in given {
        match now.remove(key) {
            Some(same) if same == *value => {}
            other => changes.push((key.clone(), other)),
        }
    }
    changes.extend(now.into_iter().map(|(key, value)| (key, Some(value))));
    let bytes = |text: OsString| text.into_encoded_bytes();
    let changes = changes.into_iter();
    changes
        .map(|(key, value)| (bytes(key), value.map(bytes)))
        .collect()
}

/// Refuses what no environment can hold.
fn check_environment(settings: &Settings) -> Result<(), SpawnError> {
    for (key, value) in &settings.environment {
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

/// Says what the system meant when it would not execute the image.
fn name_cause(error: io::Error) -> SpawnError {
    use nix::libc::{E2BIG, EACCES, ELOOP, ENOENT, ENOEXEC, ENOTDIR, EPERM, ETXTBSY};
    match error.raw_os_error() {
        Some(E2BIG) => SpawnError::TooLong { error },
        Some(EACCES | ELOOP | ENOENT | ENOEXEC | ENOTDIR | EPERM | ETXTBSY) => {
            SpawnError::Image { error }
        }
        _ => SpawnError::from_io(error),
    }
}

/// Says what the system meant when the thread that reaps could not be made.
fn no_thread(error: io::Error) -> SpawnError {
    match error.raw_os_error() {
        // So it is where the next process would be in another PID namespace than this one.
        Some(nix::libc::EINVAL) => SpawnError::NoThread { error },
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

/// What to do when children do not find their work and there is no hook.
fn advice() -> String {
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    format!(
        "it executes {} with the arguments of this process and must come to `multiproc::init()` there: call that \
         as the first line of `main`, or, in a library, when the host program loads it, and have the host read \
         its script from a file, not from standard input",
        program.display()
    )
}

/// What a child's refusal means.
pub(super) fn refusal(step: Step, errno: i32) -> SpawnError {
    let error = io::Error::from_raw_os_error(errno);
    match step {
        Step::Image => SpawnError::OtherImage,
        Step::Affinity => SpawnError::Affinity { error },
        Step::Nice => SpawnError::Nice { error },
        Step::Kin if errno == nix::libc::ENOLCK => SpawnError::NotReady(
            "there is no place for it in its tree: one of the tree's processes holds all of them"
                .to_owned(),
        ),
        Step::Kin | Step::Streams | Step::Directory | Step::Signals | Step::Watch => {
            SpawnError::from_io(error)
        }
    }
}
