//! Computes the Mandelbrot set row by row over a pool, with a progress bar, and writes a picture.
//! Run: cargo run --release --example mandelbrot [FILE.png]
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget};
use multiproc::Pool;

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 800;
const STEPS: u32 = 1000;

/// One row of grey values. Rows near the middle take far longer than those at the edges.
fn row(y: u32) -> (u32, Vec<u8>) {
    let im = f64::from(y) / f64::from(HEIGHT) * 2.4 - 1.2;
    let grey = |x: u32| {
        let re = f64::from(x) / f64::from(WIDTH) * 3.6 - 2.4;
        let (mut a, mut b) = (0.0, 0.0);
        for step in 0..STEPS {
            (a, b) = (a * a - b * b + re, 2.0 * a * b + im);
            if a * a + b * b > 4.0 {
                return 255 - (f64::from(step).ln_1p() / f64::from(STEPS).ln_1p() * 255.0) as u8;
            }
        }
        0
    };
    (y, (0..WIDTH).map(grey).collect())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or("mandelbrot.png".into());
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(HEIGHT.into()), target);

    let pool = Pool::default();
    let mut picture = vec![0; (WIDTH * HEIGHT) as usize];
    for result in pool.imap_unordered(row, 0..HEIGHT) {
        let (y, greys) = result?;
        let start = (y * WIDTH) as usize;
        picture[start..start + greys.len()].copy_from_slice(&greys);
        bar.inc(1);
    }
    bar.finish_and_clear();

    let mut encoder = png::Encoder::new(BufWriter::new(File::create(&path)?), WIDTH, HEIGHT);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header()?.write_image_data(&picture)?;
    println!("Wrote {path}, {WIDTH} x {HEIGHT}");
    Ok(())
}
