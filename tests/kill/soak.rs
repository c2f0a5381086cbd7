//! Everything at once, for as long as is asked for, with an eye on what grows.
//!
//! Queues, a lock, pipes and pools, each with processes of its own that are killed and replaced; now and then the
//! zygote that makes them is killed too. Nothing may hang, nothing may be torn or repeated, and at the end
//! straight lines are laid through what there was: memory, descriptors, mappings and processes must not rise.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::queue::Way;
use crate::{Toll, asked, lock, pipe, pool, queue};

pub(crate) const TESTS: &[crate::Test] = &[("everything_at_once", everything_at_once)];

/// How long it takes when nothing is asked for.
const USUAL: Duration = Duration::from_secs(10);
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// The first samples are taken while everything is still coming up: one part of so many.
const WARMING: usize = 4;
/// Fewer samples are not enough to tell a slope from chance.
const ENOUGH: usize = 40;

fn everything_at_once() -> Result<(), Failed> {
    let is_asked = asked("MULTIPROC_KILLS").is_some() || asked("MULTIPROC_SECONDS").is_some();
    let toll = match is_asked {
        true => Toll::of(0),
        false => Toll::during(USUAL),
    };
    let begun = Instant::now();
    let (outcomes, samples, zygotes) = thread::scope(|scope| {
        let sampler = scope.spawn(|| samples(&toll));
        let killer = scope.spawn(|| kill_zygotes(&toll));
        let teams: [fn(&Toll) -> Result<(), Failed>; 5] = [
            |toll| queue::torture(64, Way::Take, toll),
            |toll| queue::torture(16, Way::Lease, toll),
            lock::torture,
            pipe::torture::<Vec<u8>>,
            pool::torture,
        ];
        let teams = teams.map(|team| {
            let toll = &toll;
            scope.spawn(move || team(toll).inspect_err(|_| toll.give_up()))
        });
        let outcomes = teams.map(|team| match team.join() {
            Ok(outcome) => outcome,
            Err(_) => {
                toll.give_up();
                Err("a team has panicked".into())
            }
        });
        let samples = sampler.join().expect("samples are taken");
        (
            outcomes,
            samples,
            killer.join().expect("zygotes are killed"),
        )
    });
    let took = begun.elapsed();
    eprintln!("{took:.1?}, {zygotes} zygotes killed");
    outcomes.into_iter().collect::<Result<Vec<()>, _>>()?;
    nobody_left()?;
    judge(&samples)
}

/// Kills the zygote now and then; how often.
fn kill_zygotes(toll: &Toll) -> u64 {
    let mut killed = 0;
    while !toll.is_paid() {
        thread::sleep(Duration::from_millis(100));
        if killed % 5 == 0 {
            // Slowly, so that most processes are made by one.
            thread::sleep(Duration::from_millis(500));
        }
        let zygote = family().into_iter().find(|(pid, row)| row.is_zygote(*pid));
        if let Some((pid, _)) = zygote.filter(|_| toll.take_one()) {
            // It may have ended since.
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            killed += 1;
        }
    }
    killed
}

/// What `/proc` says of a process.
struct Row {
    name: String,
    parent: u32,
}

impl Row {
    fn of(pid: u32) -> Option<Row> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (before, after) = text.rsplit_once(')')?;
        Some(Row {
            name: before.split_once('(')?.1.to_owned(),
            parent: after.split_ascii_whitespace().nth(1)?.parse().ok()?,
        })
    }

    fn is_zygote(&self, pid: u32) -> bool {
        self.name == format!("zygote-{pid}")
    }
}

/// This process and all that come from it.
fn family() -> HashMap<u32, Row> {
    let entries = fs::read_dir("/proc").expect("there is /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: HashMap<u32, Row> = pids
        .filter_map(|pid: u32| Some((pid, Row::of(pid)?)))
        .collect();
    let me = std::process::id();
    let is_mine = |mut pid: u32| {
        // Parents are told apart from strangers within so many generations.
        for _ in 0..8 {
            match all.get(&pid) {
                _ if pid == me => return true,
                Some(row) => pid = row.parent,
                None => return false,
            }
        }
        false
    };
    let mine: HashSet<u32> = all.keys().copied().filter(|pid| is_mine(*pid)).collect();
    all.into_iter()
        .filter(|(pid, _)| mine.contains(pid))
        .collect()
}

/// What there is at a moment.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    seconds: f64,
    /// KiB: private memory of all processes, and the segments that this one has.
    memory: f64,
    /// Of this process, the only one that lives from the beginning to the end.
    descriptors: f64,
    mappings: f64,
    /// This one and all that come from it.
    processes: f64,
}

impl Sample {
    fn now(begun: Instant) -> Sample {
        let family = family();
        let private: u64 = family.keys().filter_map(|pid| private(*pid)).sum();
        let entries = fs::read_dir("/proc/self/fd").expect("there is /proc");
        let mappings = fs::read_to_string("/proc/self/maps").expect("there is /proc");
        Sample {
            seconds: begun.elapsed().as_secs_f64(),
            memory: (segments() + private) as f64,
            descriptors: entries.count() as f64,
            mappings: mappings.lines().count() as f64,
            processes: family.len() as f64,
        }
    }
}

/// KiB of memory that is a process's own.
fn private(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// KiB of all segments that this process has.
fn segments() -> u64 {
    let entries = fs::read_dir("/proc/self/fd").expect("there is /proc");
    let mut seen = HashSet::new();
    entries
        .flatten()
        .filter(|entry| {
            fs::read_link(entry.path())
                .is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:multiproc"))
        })
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .filter(|data| seen.insert(data.ino()))
        .map(|data| data.blocks() / 2)
        .sum()
}

/// What there is from time to time, until those who kill begin to end.
fn samples(toll: &Toll) -> Vec<Sample> {
    let begun = Instant::now();
    let mut samples = Vec::new();
    loop {
        thread::sleep(SAMPLE_EVERY);
        let sample = Sample::now(begun);
        if toll.is_paid() {
            return samples;
        }
        samples.push(sample);
    }
}

/// The straight line through some values by time, and how far they are from it.
struct Line {
    mean: f64,
    slope: f64,
    deviation: f64,
}

impl Line {
    /// By least squares.
    fn through(points: &[(f64, f64)]) -> Line {
        let count = points.len() as f64;
        let x_mean = points.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean = points.iter().map(|(_, y)| y).sum::<f64>() / count;
        let spread: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
        let common: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - mean)).sum();
        let slope = common / spread;
        let rest: f64 = points
            .iter()
            .map(|(x, y)| (y - mean - slope * (x - x_mean)).powi(2))
            .sum();
        Line {
            mean,
            slope,
            deviation: (rest / count).sqrt(),
        }
    }
}

/// Says what rose, and fails if it did so plainly: by more than the values waver, and by more than a little.
fn judge(samples: &[Sample]) -> Result<(), Failed> {
    let samples = &samples[samples.len() / WARMING..];
    if samples.len() < ENOUGH {
        eprintln!("{} samples are too few for slopes", samples.len());
        return Ok(());
    }
    let took = samples[samples.len() - 1].seconds - samples[0].seconds;
    let values: [(&str, fn(&Sample) -> f64); 4] = [
        ("KiB of memory", |sample| sample.memory),
        ("descriptors", |sample| sample.descriptors),
        ("mappings", |sample| sample.mappings),
        ("processes", |sample| sample.processes),
    ];
    let mut rising = Vec::new();
    for (name, value) in values {
        let points: Vec<_> = samples
            .iter()
            .map(|sample| (sample.seconds, value(sample)))
            .collect();
        let line = Line::through(&points);
        let rise = line.slope * took;
        let text = format!(
            "{name}: {:.0} on the average, {rise:+.1} in {took:.0} s, wavering by {:.1}",
            line.mean, line.deviation
        );
        eprintln!("{text}");
        if rise > 2.0 * line.deviation && rise > line.mean / 50.0 {
            rising.push(text);
        }
    }
    match rising.is_empty() {
        true => Ok(()),
        false => Err(format!("it rises: {}", rising.join("; ")).into()),
    }
}

/// At the end nobody lives but this process, its zygote and what that keeps ready.
fn nobody_left() -> Result<(), Failed> {
    let me = std::process::id();
    let others = || -> Vec<String> {
        let family = family().into_iter();
        family
            .filter(|(pid, row)| *pid != me && !row.name.starts_with("zygote-"))
            .map(|(pid, row)| format!("{} ({pid})", row.name))
            .collect()
    };
    let end = Instant::now() + Duration::from_secs(10);
    while !others().is_empty() {
        if Instant::now() > end {
            return Err(format!("left: {:?}", others()).into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
