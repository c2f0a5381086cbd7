//! multiproc beside what users would pick today: real processes on CPUs of their own, peers taking turns in every round,
//! medians with their range, and ratios from one run.
//!
//! Every cell of every round runs in a fresh process, this program started again with `--cell`, so that no peer meets the
//! threads, memory or descriptors of another.

mod group;
mod ours;
mod peer;
mod rig;

use anyhow::{Context, Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rig::report::{self, Measured, Outcome};
use rig::row::{Cell, Group, Row};
use rig::{Pace, Sample, chart, cpu};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Measures multiproc beside its peers and prints one table
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// What to measure; everything if nothing is named
    groups: Vec<Group>,

    /// How many times each is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Two short rounds, to see that everything runs
    #[arg(long)]
    quick: bool,

    /// Only what has this in its row's or its peer's name; may be given several times
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,

    /// Also write the figures here
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Also draw the figures here
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// End with an error if one of our own figures falls short of what is asked of it
    #[arg(long)]
    check: bool,

    /// Name everything that can be measured and stop
    #[arg(long)]
    list: bool,

    /// Measure one cell once, in this process
    #[arg(long, hide = true)]
    cell: Option<String>,

    /// Be the one that is killed: what it does, and the name it finds
    #[arg(long, hide = true)]
    victim: Vec<String>,
}

/// A cell that takes longer than this is ended.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> Result<ExitCode> {
    procspawn::init();
    let args = Args::parse();
    if let [part, name] = args.victim.as_slice() {
        ours::death::victim(part, name)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = rows();
    let pace = if args.quick { Pace::QUICK } else { Pace::USUAL };
    if let Some(id) = &args.cell {
        return run_here(&rows, id, &pace);
    }
    let rows: Vec<Row> = rows
        .into_iter()
        .filter_map(|row| wanted(row, &args))
        .collect();
    if args.list {
        for row in &rows {
            for cell in &row.cells {
                println!("{}", row.id(cell));
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let machine = cpu::machine()?;
    let rounds = if args.quick { 2 } else { args.rounds.max(1) };
    println!("{}", machine.join("\n"));
    println!(
        "{rounds} rounds, peers taking turns, {:?} each; median (min – max)",
        pace.window
    );
    println!("ratio: how many times as good as the one it stands against, in this run\n");
    let measured = run_all(&rows, rounds, args.quick)?;
    println!("{}", report::table(&measured));
    if let Some(path) = &args.csv {
        report::csv(&measured, &machine[0], path)?;
    }
    if let Some(path) = &args.svg {
        chart::svg(&measured, &machine[0], path)?;
    }
    let short: Vec<String> = measured.iter().flat_map(Measured::short).collect();
    if args.check && !short.is_empty() {
        println!("short of what is asked:\n{}", short.join("\n"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn rows() -> Vec<Row> {
    let mut rows = group::rows();
    ours::add(&mut rows);
    rows
}

/// What is left of a row when only some groups, rows or peers are asked for. The peer that a row compares with stays.
fn wanted(mut row: Row, args: &Args) -> Option<Row> {
    if !args.groups.is_empty() && !args.groups.contains(&row.group) {
        return None;
    }
    let named = |name: &str| {
        args.only.is_empty() || args.only.iter().any(|text| name.contains(text.as_str()))
    };
    if !named(&row.name) {
        if !row.cells.iter().any(|cell| named(&cell.peer)) {
            return None;
        }
        let rival = row.rival;
        row.cells
            .retain(|cell| named(&cell.peer) || cell.peer == rival);
    }
    Some(row)
}

/// One sample in this process: its figures, or why there are none, as the only line of output.
fn run_here(rows: &[Row], id: &str, pace: &Pace) -> Result<ExitCode> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let found = rows
        .iter()
        .find_map(|row| Some((row, row.cells.iter().find(|cell| row.id(cell) == id)?)));
    let (_, cell) = found.with_context(|| format!("nothing is called {id}"))?;
    match (cell.run)(pace) {
        Ok(sample) => {
            println!(
                "figures {} {}",
                sample.value,
                sample.beside.unwrap_or(f64::NAN)
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("{error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Every round of every row; within a round each peer has its turn, another one first each time.
fn run_all<'a>(rows: &'a [Row], rounds: usize, quick: bool) -> Result<Vec<Measured<'a>>> {
    let cpus = cpu::allowed()?.len();
    let turns: usize = rows
        .iter()
        .map(|row| row.cells.len() * rounds.min(row.rounds))
        .sum();
    let bar = ProgressBar::new(turns as u64);
    bar.set_style(ProgressStyle::with_template(
        "{elapsed} {wide_bar} {pos}/{len} {msg:40}",
    )?);
    let mut all = Vec::new();
    for row in rows {
        let fresh = |cell: &Cell| Outcome {
            peer: cell.peer.clone(),
            ask: cell.ask,
            samples: Vec::new(),
            trouble: None,
        };
        let mut outcomes: Vec<Outcome> = row.cells.iter().map(fresh).collect();
        for round in 0..rounds.min(row.rounds) {
            for turn in 0..row.cells.len() {
                let at = (turn + round) % row.cells.len();
                bar.set_message(format!("{}: {}", row.group.name(), row.name));
                if cpus < row.cpus {
                    outcomes[at].trouble = Some(format!("needs {} CPUs, {cpus} allowed", row.cpus));
                } else if outcomes[at].trouble.is_none() {
                    match run_apart(&row.id(&row.cells[at]), quick) {
                        Ok(sample) => outcomes[at].samples.push(sample),
                        Err(error) => {
                            outcomes[at].samples.clear();
                            outcomes[at].trouble = Some(format!("{error:#}"));
                        }
                    }
                }
                bar.inc(1);
            }
        }
        all.push(Measured { row, outcomes });
    }
    bar.finish_and_clear();
    Ok(all)
}

/// One sample in a process of its own.
fn run_apart(id: &str, quick: bool) -> Result<Sample> {
    let mut output = File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC)?);
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--cell", id])
        .args(quick.then_some("--quick"));
    command
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .process_group(0);
    let mut child = command
        .spawn()
        .context("starting a process for one sample")?;
    let pid = child.id();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > DEADLINE {
            break None;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let _ = killpg(Pid::from_raw(pid as i32), Signal::SIGKILL);
    child.wait()?;
    peer::ringfire::tidy(pid);
    let mut text = String::new();
    output.rewind()?;
    output.read_to_string(&mut text)?;
    if status.is_none() {
        bail!("ended after {DEADLINE:?}");
    }
    if let Some(figures) = text.lines().find_map(|line| line.strip_prefix("figures ")) {
        let mut figures = figures.split(' ').map(str::parse::<f64>);
        if let (Some(Ok(value)), Some(Ok(beside))) = (figures.next(), figures.next()) {
            return Ok(Sample {
                value,
                beside: (!beside.is_nan()).then_some(beside),
            });
        }
    }
    let told = text
        .lines()
        .find(|line| line.starts_with("thread ") || line.contains("panicked"));
    let last = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("no output");
    bail!(
        "{}",
        told.map_or(last.to_string(), |told| format!("{told} … {last}"))
    )
}
