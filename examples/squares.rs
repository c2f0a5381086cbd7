//! A pool of four processes maps a function over a list.
//! Run: cargo run --example squares
use multiproc::Pool;

fn square(x: u64) -> u64 {
    x * x
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(4)?;
    println!("{:?}", pool.map(square, [1, 2, 3, 4, 5])?);
    Ok(())
}
