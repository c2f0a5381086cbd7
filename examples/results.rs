//! A pool of four processes computes squares; the results come back in the order of the numbers.
//! Run: cargo run --example results
use multiproc::Pool;

fn square(n: u64) -> u64 {
    n * n
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers = vec![1, 2, 3, 4, 5];
    let pool = Pool::new(4)?;
    let results = pool.map(square, numbers)?;
    println!("Results: {results:?}");
    Ok(())
}
