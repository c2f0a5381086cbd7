//! A running child, as its parent holds it.

use std::fs::File;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::boot;
use super::control::{self, Arrived, Report};
use super::error::JoinError;
use super::execute::end_now;
use super::reaper::Record;
use super::start::{Pipes, refusal};
use super::tree;
use crate::error::{Death, WorkerExit};
use crate::handle::{self, Passed};
use crate::kin;
use crate::message::{self, Message};
use crate::sys;
use crate::trace;

/// A process started here, whose function returns `R`.
///
/// Dropped, it is killed and reaped; [`detach`](Child::detach) lets it go on. All methods may be called
/// from any thread.
///
/// As a descriptor ([`as_fd`](Child::as_fd)) it becomes readable when the process has ended, so it can be
/// waited for together with sockets and files.
#[must_use = "a dropped child is killed: join or detach it"]
pub struct Child<R> {
    record: Arc<Record>,
    pipes: Mutex<Pipes>,
    /// Bytes that its result may have.
    max_result: Option<usize>,
    taken: AtomicBool,
    detached: bool,
    result: PhantomData<fn() -> R>,
}

impl<R> std::fmt::Debug for Child<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.record.fmt(f)
    }
}

impl<R> Child<R> {
    pub(super) fn new(record: Arc<Record>, pipes: Pipes, max_result: Option<usize>) -> Child<R> {
        Child {
            record,
            pipes: Mutex::new(pipes),
            max_result,
            taken: AtomicBool::new(false),
            detached: false,
            result: PhantomData,
        }
    }

    /// Its number, as the system counts.
    #[doc(alias = "ident")]
    pub fn pid(&self) -> u32 {
        self.record.pid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.record.name()
    }

    /// Whether it has not ended. A living process may end at once; an ended one stays so.
    pub fn is_alive(&self) -> bool {
        self.record.how().is_none() && !sys::is_ready(self.record.process())
    }

    /// How it died, once it has ended without a result: exited, or was ended by a signal.
    ///
    /// `None` while it lives, and of one that has exited with code 0 or panicked.
    ///
    /// # Examples
    ///
    /// ```
    /// let child = multiproc::Process::builder().name("reader").spawn(|| -> u8 { std::process::exit(3) }, ())?;
    /// let pid = child.pid();
    /// assert!(child.join_timeout(std::time::Duration::from_secs(20)).is_err());
    /// let death = child.death().expect("it has exited");
    /// assert_eq!(death.to_string(), format!("reader (pid {pid}) exited with code 3"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn death(&self) -> Option<Death> {
        if kin::forked() {
            return None;
        }
        let how = self.record.how()?;
        let has_died = !matches!(how, WorkerExit::Exited(0 | boot::PANICKED));
        has_died.then(|| Death::new(self.pid(), Some(self.name()), how))
    }

    /// Asks it to end, with SIGTERM. Its children end with it.
    ///
    /// # Errors
    ///
    /// As [`signal`](Child::signal).
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(nix::libc::SIGTERM)
    }

    /// Ends it, with SIGKILL. Its children end with it, within a second.
    ///
    /// # Errors
    ///
    /// As [`signal`](Child::signal).
    pub fn kill(&self) -> io::Result<()> {
        self.signal(nix::libc::SIGKILL)
    }

    /// Sends it a signal, by number.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if there is no such signal; what the system said; none if the process has ended. In a
    /// forked copy of this process, whose child it is not, and when the program has closed this crate's
    /// descriptors, it is refused with an error that says so.
    #[doc(alias = "interrupt")]
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        self.check()?;
        sys::send_signal(self.record.process(), signal)
    }

    /// Ends it and everything it has started, also programs that know nothing of this crate.
    ///
    /// All of them are stopped first, so that none starts another while the others are ended. Processes
    /// whose own parent had ended before are not found, unless they are of this crate: those have ended
    /// with their parent.
    ///
    /// # Blocking
    ///
    /// Until all of them have stopped, 200 ms at most.
    ///
    /// # Errors
    ///
    /// If this process may not signal some of them (a program that runs as another user), an error that names
    /// those that are left; all others are ended. None if the process has ended.
    pub fn kill_tree(&self) -> io::Result<()> {
        self.check()?;
        if self.record.how().is_some() {
            return Ok(());
        }
        tree::kill(self.record.pid, self.record.process())
    }

    /// What ends it, with all that it has started if `tree`; to be called later, where it may take a while.
    pub(crate) fn ender(&self, tree: bool) -> impl FnOnce() + use<R> {
        let stopper = self.stopper();
        move || stopper.end(tree)
    }

    /// What stops it, lets it go on and ends it; to be used later, where it may take a while.
    pub(crate) fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.record))
    }

    /// Lets it go on when this value is dropped. It still ends when this process does.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// The descriptor of the process: readable when it has ended.
    #[doc(alias = "sentinel")]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.record.process()
    }

    /// The parent's end of its standard input, once, if it was started with [`Stdio::Pipe`](super::Stdio::Pipe).
    pub fn take_stdin(&self) -> Option<ChildStdin> {
        self.pipes()?.stdin.take()
    }

    /// The parent's end of its standard output, once, if it was started with [`Stdio::Pipe`](super::Stdio::Pipe).
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        self.pipes()?.stdout.take()
    }

    /// The parent's end of its standard error, once, if it was started with [`Stdio::Pipe`](super::Stdio::Pipe).
    pub fn take_stderr(&self) -> Option<ChildStderr> {
        self.pipes()?.stderr.take()
    }

    /// Keeps what is reserved for the handles among its arguments until it has taken or lost them.
    pub(super) fn settle(&self, passed: Passed) {
        if passed.is_empty() {
            return;
        }
        let record = Arc::downgrade(&self.record);
        self.on_exit(move |_| {
            if record.upgrade().is_some_and(|record| record.began()) {
                passed.forget();
            }
        });
    }

    /// None in a forked copy: they are its parent's, and the lock may have been held at the fork.
    fn pipes(&self) -> Option<MutexGuard<'_, Pipes>> {
        let pipes = || self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        (!kin::forked()).then(pipes)
    }

    /// Fails where the child is not this process's, or its descriptor may lead to something else by now.
    fn check(&self) -> io::Result<()> {
        if kin::forked() {
            return Err(io::Error::other(JoinError::Forked));
        }
        kin::check()
    }

    /// Calls `callback` when it has ended, on the thread that reaps, which must not be kept waiting.
    pub(crate) fn on_exit(&self, callback: impl FnOnce(WorkerExit) + Send + 'static) {
        self.record.on_exit(callback);
    }
}

/// Stops a process, and decides then whether it ends.
pub(crate) struct Stopper(Arc<Record>);

impl Stopper {
    /// How long a process may take to stop before it is taken for stopped.
    const STOPPING: Duration = Duration::from_millis(50);

    fn signal(&self, signal: i32) {
        if self.0.how().is_none() {
            // Refused only if it has ended, or if it may not be signalled: nothing can be done about that.
            let _ = sys::send_signal(self.0.process(), signal);
        }
    }

    /// Stops it, and waits until it has stopped.
    pub(crate) fn stop(&self) {
        self.signal(nix::libc::SIGSTOP);
        let deadline = Instant::now() + Self::STOPPING;
        while self.0.how().is_none() && !tree::is_at_rest(self.0.pid) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.signal(nix::libc::SIGCONT);
    }

    /// Ends it, with all that it has started if `tree`.
    pub(crate) fn end(&self, tree: bool) {
        if tree && self.0.how().is_none() {
            // What cannot be ended is left as it is.
            let _ = tree::kill(self.0.pid, self.0.process());
        }
        self.signal(nix::libc::SIGKILL);
    }
}

impl<R: Message> Child<R> {
    /// Waits until it has ended and gives what its function returned.
    ///
    /// # Blocking
    ///
    /// Until the process has ended. Its standard input, if it is a pipe, is closed first. A process whose
    /// standard output or error is a pipe stops when it has printed more than the pipe holds (64 KiB as a
    /// rule) until somebody reads: take the pipe and read it before, or call
    /// [`join_with_output`](Child::join_with_output).
    ///
    /// # Errors
    ///
    /// [`JoinError`] says how it ended instead: panicked, exited, ended by a signal. A result that it had
    /// sent before it ended counts.
    pub fn join(self) -> Result<R, JoinError> {
        drop(self.take_stdin());
        loop {
            if let Some(result) = self.wait(None)? {
                return Ok(result);
            }
        }
    }

    /// As [`join`](Child::join), but reads meanwhile what it prints to those of its standard streams that are
    /// [pipes](super::Stdio::Pipe) and were not taken. What was printed is there also when there is no result.
    ///
    /// # Blocking
    ///
    /// Until the process has ended and its pipes are closed: also by every program that it has started and
    /// that has them as well.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::{Process, Stdio};
    ///
    /// let child = Process::builder().stdout(Stdio::Pipe).spawn(|| print!("hello"), ())?;
    /// let output = child.join_with_output();
    /// output.result?;
    /// assert_eq!(output.stdout, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "wait_with_output")]
    pub fn join_with_output(self) -> Output<R> {
        drop(self.take_stdin());
        let (stdout, stderr) = (self.take_stdout(), self.take_stderr());
        let mut printed = [Vec::new(), Vec::new()];
        let read = read_both(
            [stdout.map(Into::into), stderr.map(Into::into)],
            &mut printed,
        );
        let result = self.join();
        let [stdout, stderr] = printed;
        Output {
            result: match (result, read) {
                (Ok(_), Err(error)) => Err(error.into()),
                (result, _) => result,
            },
            stdout,
            stderr,
        }
    }

    /// As [`join`](Child::join), but gives `None` when it still lives after `timeout`.
    ///
    /// # Errors
    ///
    /// As [`join`](Child::join); [`JoinError::Taken`] if an earlier call has given the result.
    pub fn join_timeout(&self, timeout: Duration) -> Result<Option<R>, JoinError> {
        self.wait(Instant::now().checked_add(timeout))
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<Option<R>, JoinError> {
        if kin::forked() {
            return Err(JoinError::Forked);
        }
        self.check()?;
        let Some(how) = self.record.wait(deadline) else {
            return Ok(None);
        };
        if self.taken.swap(true, Ordering::Relaxed) {
            return Err(JoinError::Taken);
        }
        trace::ended(self.name(), self.pid(), how);
        // Until the result is decoded.
        let _ends = self.record.take_ends();
        let (reports, failed) = self.record.take_reports();
        let last = reports
            .into_iter()
            .rfind(|report| !matches!(report.head, Report::Ready));
        match (last, failed) {
            (Some(report), _) => outcome(report, how, self.max_result).map(Some),
            (None, Some(error)) => Err(error.into()),
            (None, None) => Err(without_report(how)),
        }
    }
}

/// What came of a process, and what it has printed to pipes: see [`Child::join_with_output`].
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output<R> {
    /// What its function returned, or how it ended instead.
    pub result: Result<R, JoinError>,
    /// What it has written to its standard output, if that was a pipe.
    pub stdout: Vec<u8>,
    /// What it has written to its standard error, if that was a pipe.
    pub stderr: Vec<u8>,
}

/// Reads two pipes to their ends, whichever has something.
fn read_both(pipes: [Option<OwnedFd>; 2], printed: &mut [Vec<u8>; 2]) -> io::Result<()> {
    let both = pipes.into_iter().zip(printed);
    let mut open: Vec<_> = both
        .filter_map(|(pipe, printed)| Some((File::from(pipe?), printed)))
        .collect();
    let mut buffer = vec![0; 64 * 1024];
    while !open.is_empty() {
        let files: Vec<_> = open.iter().map(|(pipe, _)| pipe.as_fd()).collect();
        let Some(ready) = sys::poll_any(&files, None)? else {
            continue;
        };
        match open[ready].0.read(&mut buffer) {
            Ok(0) => drop(open.remove(ready)),
            Ok(len) => {
                open[ready].1.extend_from_slice(&buffer[..len]);
                // The other one is next, so that neither waits for the end of the one before it.
                open.rotate_left(1);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What the child's last word means.
fn outcome<R: Message>(
    report: Arrived<Report>,
    how: WorkerExit,
    limit: Option<usize>,
) -> Result<R, JoinError> {
    match report.head {
        Report::Returned => {
            let bytes = report.body.len();
            if let Some(limit) = limit.filter(|limit| bytes > *limit) {
                return Err(JoinError::ResultTooLarge { bytes, limit });
            }
            control::check_lengths(&report.descriptors)?;
            let bytes = report.body.into_bytes()?;
            let decode = || message::decode(&bytes);
            handle::with_descriptors(report.descriptors, decode)
                .map_err(|error| JoinError::Io(io::Error::other(error)))?
                .map_err(JoinError::Decode)
        }
        Report::Panicked {
            message,
            location,
            backtrace,
        } => Err(JoinError::Panicked {
            message,
            location,
            backtrace,
        }),
        Report::Refused(step, errno) => Err(JoinError::NotBegun(refusal(step, errno))),
        Report::BadArguments(why) => Err(JoinError::Arguments(why)),
        Report::BadResult(why) => Err(JoinError::Encode(why)),
        Report::Ready | Report::Began | Report::Left | Report::Ends => Err(without_report(how)),
    }
}

fn without_report(how: WorkerExit) -> JoinError {
    match how {
        WorkerExit::Exited(code) => JoinError::Exited(code),
        WorkerExit::Signalled(signal) => JoinError::Signalled(signal),
        WorkerExit::Unknown => JoinError::Unknown,
    }
}

impl<R> Drop for Child<R> {
    fn drop(&mut self) {
        // A forked copy of the parent has no children.
        if !self.detached && self.record.how().is_none() && self.check().is_ok() {
            end_now(&self.record);
        }
    }
}

impl<R> AsFd for Child<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.record.process()
    }
}

impl<R> AsRawFd for Child<R> {
    fn as_raw_fd(&self) -> RawFd {
        self.record.process().as_raw_fd()
    }
}

/// Waits until one of several children has ended, or another descriptor is readable; gives its index.
///
/// Without a timeout (`None`) it waits for ever; when the timeout has passed it gives `None`. Of several
/// that are ready, the first is given.
///
/// # Errors
///
/// What the system said; `InvalidInput` if there is nothing to wait for, for ever.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use multiproc::{Process, wait_any};
///
/// fn nap(milliseconds: u64) {
///     std::thread::sleep(Duration::from_millis(milliseconds));
/// }
///
/// let slow = Process::spawn(nap, (60_000,))?;
/// let fast = Process::spawn(nap, (1,))?;
/// assert_eq!(wait_any(&[&slow, &fast], Duration::from_secs(20))?, Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait_any(
    children: &[&dyn AsFd],
    timeout: impl Into<Option<Duration>>,
) -> io::Result<Option<usize>> {
    let timeout = timeout.into();
    if children.is_empty() && timeout.is_none() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let files: Vec<BorrowedFd<'_>> = children.iter().map(|child| child.as_fd()).collect();
    sys::poll_any(
        &files,
        timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
    )
}
