//! A worker is killed in the middle of a task: that task says so, and the pool goes on.
//! Run: cargo run --example crash
use multiproc::{Pool, TaskError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn square(x: u64) -> u64 {
    if x == 3 {
        kill(Pid::this(), Signal::SIGKILL).expect("a process may kill itself");
    }
    if x == 5 {
        panic!("I do not like {x}");
    }
    x * x
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(2)?;
    for x in 1..=6 {
        match pool.apply(square, (x,)) {
            Ok(result) => println!("square({x}) = {result}"),
            Err(TaskError::WorkerDied { .. }) => println!("square({x}): the worker was killed"),
            Err(error) => println!("square({x}): {error}"),
        }
    }
    println!("The pool still has {} workers", pool.workers().len());
    Ok(())
}
