//! An array of a million numbers that four processes read in place: it is never copied.
//! Run: cargo run --example frozen
use multiproc::{Frozen, Pool};

fn sum(numbers: Frozen<u64>, from: usize, to: usize) -> u64 {
    numbers[from..to].iter().sum()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u64> = (1..=1_000_000).collect();
    let numbers = Frozen::from_slice(&numbers)?;

    let pool = Pool::new(4)?;
    let quarter = numbers.len() / 4;
    let parts = (0..4).map(|n| (numbers.clone(), n * quarter, (n + 1) * quarter));
    let sums = pool.starmap(sum, parts)?;

    println!("Sums: {sums:?}");
    println!("Total: {}", sums.iter().sum::<u64>());
    Ok(())
}
