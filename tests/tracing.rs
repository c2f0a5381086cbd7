//! What subscribers of `tracing` hear, with the feature of that name: starts, tasks and deaths.

#![cfg(all(feature = "tracing", not(loom)))]

use std::fmt::{Debug, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use multiproc::{Pool, Process};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What was heard in this process, one line each.
static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collects;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Collects {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "multiproc"
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(format!("span {}", span.metadata().name()));
        span.record(&mut line);
        HEARD.lock().unwrap().push(line.0);
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        HEARD.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn listen() {
    tracing::subscriber::set_global_default(Collects).unwrap();
}

fn heard() -> Vec<String> {
    HEARD.lock().unwrap().clone()
}

fn wait_for(parts: &[&str]) {
    let end = Instant::now() + Duration::from_secs(20);
    let is_heard = |heard: &[String]| {
        heard
            .iter()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    while !is_heard(&heard()) {
        assert!(Instant::now() < end, "{parts:?} is not in {:#?}", heard());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn double(x: u64) -> u64 {
    2 * x
}

#[test]
fn starts_tasks_and_deaths_are_told() {
    listen();
    let child = Process::builder()
        .name("reader")
        .spawn(|| -> u8 { std::process::abort() }, ())
        .unwrap();
    let pid = format!("pid={}", child.pid());
    wait_for(&["DEBUG", "process started", "reader", &pid]);
    child.join().unwrap_err();
    wait_for(&["WARN", "process died", "reader", &pid, "signal 6 (SIGABRT)"]);

    let pool = Pool::builder()
        .workers(1)
        .initializer(listen, ())
        .build()
        .unwrap();
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
    wait_for(&["process started", "PoolWorker-1"]);
    let there = pool.apply(heard, ()).unwrap();
    let is_told = |line: &String| line.starts_with("span task") && line.contains("double");
    assert!(there.iter().any(is_told), "{there:#?}");
    pool.apply(|| -> u8 { std::process::exit(7) }, ())
        .unwrap_err();
    wait_for(&["process died", "PoolWorker-1", "exited with code 7"]);
}
