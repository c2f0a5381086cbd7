//! Every method of the pool on the same squares and products, one line each.
//! Run: cargo run --example pool_methods
use multiproc::Pool;

fn square(x: u64) -> u64 {
    x * x
}

fn multiply(x: u64, y: u64) -> u64 {
    x * y
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(4)?;
    let pairs = [(1, 2), (3, 4), (5, 6)];

    println!("apply: {}", pool.apply(square, (5,))?);
    println!("apply_async: {}", pool.apply_async(square, (6,)).get()?);
    println!("map: {:?}", pool.map(square, 1..=5)?);
    println!("map_async: {:?}", pool.map_async(square, 1..=5).get()?);
    println!("starmap: {:?}", pool.starmap(multiply, pairs)?);
    println!(
        "starmap_async: {:?}",
        pool.starmap_async(multiply, pairs).get()?
    );

    let in_order: Vec<u64> = pool.imap(square, 1..=5).collect::<Result<_, _>>()?;
    println!("imap: {in_order:?}");

    let mut as_they_finish: Vec<u64> = pool
        .imap_unordered(square, 1..=5)
        .collect::<Result<_, _>>()?;
    as_they_finish.sort();
    println!("imap_unordered, sorted: {as_they_finish:?}");

    pool.close();
    pool.join()?;
    println!("The pool is closed and joined");
    Ok(())
}
