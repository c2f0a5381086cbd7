//! Where a pool's time goes: what each worker did, how long work waited, which functions are slow.
//! Run: cargo run --example insights
use std::thread::sleep;
use std::time::Duration;

use multiproc::Pool;

fn quick(x: u64) -> u64 {
    x + 1
}

fn slow(milliseconds: u64) {
    sleep(Duration::from_millis(milliseconds));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(2)?;
    pool.ready()?;
    pool.map(quick, 0..10_000)?;
    pool.map(slow, [20, 30, 40])?;

    let insights = pool.insights();
    for worker in &insights.workers {
        let (name, items) = (worker.worker.name(), worker.items);
        println!("{name}: {items} items, working {:?}", worker.working);
    }
    for task in &insights.slowest {
        println!("{} took {:?} at most", task.function, task.time);
    }
    println!("work waited {:?} on the average", insights.queue_wait.mean);
    Ok(())
}
