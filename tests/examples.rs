//! Runs every example as a person would, with its output going into a pipe, and compares what it prints.
//!
//! Cargo builds the examples for `cargo test`; they lie beside this test's own program. Each run has a
//! deadline, must print nothing on standard error unless a test says otherwise, and must leave no
//! process behind: every process of a run carries a mark in its environment and is in a process group
//! of its own, and both must be gone.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longer than any example needs, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long the processes of a run may take to go after its main process.
const PARTING: Duration = Duration::from_secs(20);
const MARK: &str = "MULTIPROC_EXAMPLE_RUN";

// The tutorial's programs.

#[test]
fn worker() {
    for _ in 0..20 {
        assert_eq!(
            lines("worker"),
            ["Worker 1 is running", "Process has finished"]
        );
    }
}

#[test]
fn squares() {
    for _ in 0..20 {
        assert_eq!(lines("squares"), ["[1, 4, 9, 16, 25]"]);
    }
}

#[test]
fn numbers() {
    for _ in 0..20 {
        let mut lines = lines("numbers");
        assert_eq!(lines.pop().as_deref(), Some("Main process finished."));
        lines.sort();
        assert_eq!(
            lines,
            [
                "Process: Process-1 Number: 1",
                "Process: Process-2 Number: 2",
                "Process: Process-3 Number: 3",
                "Process: Process-4 Number: 4",
            ]
        );
    }
}

#[test]
fn pids() {
    for _ in 0..20 {
        let run = run("pids", &[]);
        let [worker, main] = &run.lines()[..] else {
            panic!("not two lines: {:?}", run.stdout);
        };
        let worker = number_after(worker, "Worker process ID: ");
        let main = number_after(main, "Main process ID: ");
        assert_eq!(main, run.pid);
        assert_ne!(worker, main);
    }
}

#[test]
fn results() {
    for _ in 0..20 {
        assert_eq!(lines("results"), ["Results: [1, 4, 9, 16, 25]"]);
    }
}

#[test]
fn numbers_by_pid() {
    for _ in 0..20 {
        let run = run("numbers_by_pid", &[]);
        let mut seen: Vec<(u32, u32)> = run
            .lines()
            .iter()
            .map(|line| {
                let (pid, number) = line.split_once(" - ").expect("two parts");
                (
                    number_after(number, "Number: "),
                    number_after(pid, "Process ID: "),
                )
            })
            .collect();
        seen.sort();
        let (numbers, mut pids): (Vec<u32>, Vec<u32>) = seen.into_iter().unzip();
        assert_eq!(numbers, [1, 2, 3, 4]);
        pids.push(run.pid);
        pids.sort();
        pids.dedup();
        assert_eq!(
            pids.len(),
            5,
            "four children and the main process: {:?}",
            run.stdout
        );
    }
}

// The main job.

#[test]
fn quickstart_counts_the_words_it_is_given() {
    let folder = Folder::new("quickstart");
    let mut text = String::new();
    for (times, word) in (1..=12).zip("abcdefghijkl".chars()) {
        text.push_str(&format!("{word}x, ").repeat(times * 100));
        text.push('\n');
    }
    fs::write(folder.0.join("one.txt"), &text).expect("a file is written");
    fs::write(folder.0.join("two.txt"), text.to_uppercase()).expect("a file is written");

    let run = run("quickstart", &[path(&folder.0)]);
    let lines = run.lines();
    assert!(lines[0].starts_with("2 files, "), "{}", run.stdout);
    for (line, (word, times)) in lines[1..11]
        .iter()
        .zip("lkjihgfedc".chars().zip((3..=12).rev()))
    {
        let shown: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(shown, [format!("{}", times * 200), format!("{word}x")]);
    }
    assert!(lines[11].starts_with("one process: "), "{}", run.stdout);
    assert!(lines[12].starts_with("pool of "), "{}", run.stdout);
    assert_eq!(lines.len(), 13);
}

#[test]
fn quickstart_reads_the_crate_itself() {
    let run = run("quickstart", &[]);
    assert_eq!(run.lines().len(), 13, "{}", run.stdout);
}

#[test]
fn quickstart_says_which_file_is_missing() {
    let run = Run::start("quickstart", &["no/such/file"]).finish();
    assert!(!run.status.success());
    assert!(run.stderr.contains("No such file"), "{}", run.stderr);
}

// The tools.

#[test]
fn queue() {
    let mut lines = lines("queue");
    assert_eq!(
        lines.pop().as_deref(),
        Some("Kitchen closed after 9 dishes")
    );
    assert_eq!(lines.len(), 9);
    for name in ["Ada", "Ben", "Cleo"] {
        let hers: Vec<&String> = lines.iter().filter(|line| line.ends_with(name)).collect();
        let expected: Vec<String> = (1..=3)
            .map(|n| format!("Served dish {n} from {name}"))
            .collect();
        assert!(
            hers.into_iter().eq(&expected),
            "{name}'s dishes in order: {lines:?}"
        );
    }
}

#[test]
fn pipe() {
    assert_eq!(
        lines("pipe"),
        [
            "one: 1",
            "two words: 2",
            "and now four words: 4",
            "The child has finished"
        ]
    );
}

#[test]
fn lock() {
    let lines = lines("lock");
    assert_eq!(lines[0], "Counter: 4000");
    assert!(lines[1].starts_with("Child: "), "{lines:?}");
    assert_eq!(
        lines[2..],
        ["The last holder died inside and left 0", "Counter: 4000"]
    );
}

#[test]
fn frozen() {
    let quarter = |n: u64| (n * 250_000 + 1..=(n + 1) * 250_000).sum::<u64>();
    let sums = [0, 1, 2, 3].map(quarter);
    assert_eq!(
        lines("frozen"),
        [format!("Sums: {sums:?}"), "Total: 500000500000".to_owned()]
    );
}

#[test]
fn pipeline() {
    assert_eq!(
        lines("pipeline"),
        ["Squared: 1000", "Sum of squares: 333833500"]
    );
}

#[test]
fn prefork() {
    assert_eq!(
        lines("prefork"),
        [
            r#"one: "ONE\n""#,
            r#"two: "TWO\n""#,
            r#"crash: """#,
            r#"three: "THREE\n""#,
            r#"four: "FOUR\n""#,
            r#"five: "FIVE\n""#,
            "Workers lost: 1",
        ]
    );
}

#[test]
fn crash() {
    let run = Run::start("crash", &[]).finish();
    assert!(run.status.success(), "{}", run.stderr);
    let lines = run.lines();
    assert_eq!(
        lines[..4],
        [
            "square(1) = 1",
            "square(2) = 4",
            "square(3): the worker was killed",
            "square(4) = 16"
        ]
    );
    assert!(
        lines[4].starts_with("square(5): ") && lines[4].contains("I do not like 5"),
        "{lines:?}"
    );
    assert_eq!(
        lines[5..],
        ["square(6) = 36", "The pool still has 2 workers"]
    );
}

#[test]
fn named() {
    let name = format!("multiproc-examples-test-{}", std::process::id());
    let reader = Run::start("named_reader", &[&name]);
    reader.wait_for("Waiting for named_writer\n");
    let writer = run("named_writer", &[&name]);
    let reader = reader.finish();
    assert!(reader.status.success(), "{}", reader.stderr);

    let sent = ["from another program", "over shared memory", "goodbye"];
    assert!(
        writer
            .lines()
            .into_iter()
            .eq(sent.map(|line| format!("Sent: {line}")))
    );
    let received = sent.map(|line| format!("Received: {line}"));
    assert_eq!(reader.lines()[0], "Waiting for named_writer");
    assert_eq!(reader.lines()[1..4], received);
    assert_eq!(reader.lines()[4..], ["The writer has gone"]);
}

#[test]
fn named_writer_says_that_nobody_is_there() {
    let name = format!("multiproc-examples-test-nobody-{}", std::process::id());
    let run = Run::start("named_writer", &[&name]).finish();
    assert!(!run.status.success());
    assert_eq!(run.stdout, "");
}

#[test]
fn pool_methods() {
    assert_eq!(
        lines("pool_methods"),
        [
            "apply: 25",
            "apply_async: 36",
            "map: [1, 4, 9, 16, 25]",
            "map_async: [1, 4, 9, 16, 25]",
            "starmap: [2, 12, 30]",
            "starmap_async: [2, 12, 30]",
            "imap: [1, 4, 9, 16, 25]",
            "imap_unordered, sorted: [1, 4, 9, 16, 25]",
            "The pool is closed and joined",
        ]
    );
}

#[test]
fn insights() {
    let printed = lines("insights");
    assert_eq!(printed.len(), 5, "{printed:?}");
    for (line, worker) in printed.iter().zip(1..=2) {
        let start = format!("PoolWorker-{worker}: ");
        assert!(
            line.starts_with(&start) && line.contains(" items, working "),
            "{line}"
        );
    }
    assert!(
        printed[2].starts_with("insights::slow took "),
        "{printed:?}"
    );
    assert!(
        printed[3].starts_with("insights::quick took "),
        "{printed:?}"
    );
    assert!(printed[4].starts_with("work waited "), "{printed:?}");
}

#[test]
fn mandelbrot() {
    let folder = Folder::new("mandelbrot");
    let file = folder.0.join("picture.png");
    let printed = run("mandelbrot", &[path(&file)]).lines();
    assert_eq!(printed, [format!("Wrote {}, 1200 x 800", file.display())]);

    let file = std::io::BufReader::new(fs::File::open(&file).expect("the picture is there"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut grey = vec![0; reader.output_buffer_size().expect("a small picture")];
    let info = reader.next_frame(&mut grey).expect("a whole picture");
    assert_eq!(
        (info.width, info.height, grey.len()),
        (1200, 800, 1200 * 800)
    );
    let at = |x: usize, y: usize| grey[y * 1200 + x];
    assert_eq!(at(800, 400), 0, "the origin is in the set");
    assert!(at(0, 0) > 200, "the corner is far from it");
    for (x, y) in [(300, 100), (500, 250), (700, 390)] {
        assert_eq!(at(x, y), at(x, 800 - y), "its two halves are alike");
    }
}

// What the tests above stand on.

/// One example, finished: what it printed and how it ended.
struct Finished {
    pid: u32,
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Finished {
    fn lines(&self) -> Vec<String> {
        self.stdout.lines().map(str::to_owned).collect()
    }
}

/// One example that is running.
struct Run {
    name: &'static str,
    mark: String,
    child: Child,
    stdout: Collected,
    stderr: Collected,
    started: Instant,
}

impl Run {
    fn start(name: &'static str, arguments: &[&str]) -> Run {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let mark = format!(
            "{}-{}",
            std::process::id(),
            RUNS.fetch_add(1, Ordering::Relaxed)
        );
        let program = examples().join(name);
        assert!(
            program.exists(),
            "{} is missing: run `cargo build --examples` first when you run this test alone",
            program.display()
        );
        let mut child = Command::new(program)
            .args(arguments)
            .env(MARK, &mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the example starts");
        let stdout = collect(child.stdout.take().expect("piped"));
        let stderr = collect(child.stderr.take().expect("piped"));
        Run {
            name,
            mark,
            child,
            stdout,
            stderr,
            started: Instant::now(),
        }
    }

    /// Waits until the example has printed this.
    fn wait_for(&self, printed: &str) {
        while !self.stdout.so_far().contains(printed) {
            assert!(
                self.started.elapsed() < DEADLINE,
                "{}: {:?}",
                self.name,
                self.stdout.so_far()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the main process, for its processes to be gone, and for the ends of both pipes.
    fn finish(mut self) -> Finished {
        let status = loop {
            if let Some(status) = self
                .child
                .try_wait()
                .expect("the example can be waited for")
            {
                break status;
            }
            if self.started.elapsed() > DEADLINE {
                let left = living(&self.mark, self.child.id());
                end(&left);
                self.child.wait().expect("the example can be waited for");
                panic!(
                    "{} did not end within {DEADLINE:?}; {} processes",
                    self.name,
                    left.len()
                );
            }
            thread::sleep(Duration::from_millis(1));
        };
        let parted = Instant::now();
        loop {
            let left = living(&self.mark, self.child.id());
            if left.is_empty() {
                break;
            }
            if parted.elapsed() > PARTING {
                end(&left);
                panic!("{} left processes behind: {left:?}", self.name);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Finished {
            pid: self.child.id(),
            status,
            stdout: self.stdout.run_out(),
            stderr: self.stderr.run_out(),
        }
    }
}

/// Runs an example that must succeed and keep standard error clean.
fn run(name: &'static str, arguments: &[&str]) -> Finished {
    let run = Run::start(name, arguments).finish();
    assert!(
        run.status.success(),
        "{name}: {}\n{}",
        run.status,
        run.stderr
    );
    assert_eq!(run.stderr, "", "{name} wrote to standard error");
    run
}

fn lines(name: &'static str) -> Vec<String> {
    run(name, &[]).lines()
}

fn number_after(line: &str, label: &str) -> u32 {
    let number = line
        .strip_prefix(label)
        .unwrap_or_else(|| panic!("no {label:?} in {line:?}"));
    number
        .parse()
        .unwrap_or_else(|_| panic!("no number in {line:?}"))
}

/// Where cargo puts examples: beside the folder of the test programs.
fn examples() -> PathBuf {
    let test = std::env::current_exe().expect("this program has a path");
    test.ancestors()
        .nth(2)
        .expect("target/PROFILE/deps/TEST")
        .join("examples")
}

/// What comes out of a pipe: so far, and to the end.
struct Collected {
    so_far: Arc<Mutex<String>>,
    thread: JoinHandle<()>,
}

fn collect(pipe: impl Read + Send + 'static) -> Collected {
    let so_far = Arc::new(Mutex::new(String::new()));
    let text = so_far.clone();
    let thread = thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let line = String::from_utf8(line.expect("a pipe")).expect("text");
            *text.lock().expect("unharmed") += &(line + "\n");
        }
    });
    Collected { so_far, thread }
}

impl Collected {
    fn so_far(&self) -> String {
        self.so_far.lock().expect("unharmed").clone()
    }

    fn run_out(self) -> String {
        self.thread.join().expect("a thread that only reads");
        self.so_far.lock().expect("unharmed").clone()
    }
}

/// The living processes of a run: those with its mark in their environment, or in its group.
fn living(mark: &str, group: u32) -> Vec<u32> {
    let mark = format!("{MARK}={mark}");
    let group = group.to_string();
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            // After the name, which may hold anything: `) STATE PARENT GROUP ...`.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let mut fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
            let lives = fields
                .next()
                .is_some_and(|state| state != "Z" && state != "X");
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let marked = environment
                .split(|&byte| byte == 0)
                .any(|variable| variable == mark.as_bytes());
            lives && (marked || fields.nth(1) == Some(&group))
        })
        .collect()
}

/// Ends what a failed run left, so that it does not disturb the next one.
fn end(pids: &[u32]) {
    for pid in pids {
        let _ = Command::new("kill").arg("-9").arg(pid.to_string()).status();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("multiproc-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder in the temporary directory");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
