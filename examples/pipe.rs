//! Two processes talk over a pipe: sentences go one way, their word counts come back.
//! Run: cargo run --example pipe
use multiproc::{Pipe, PipeEnd, Process};

fn count(mut end: PipeEnd<usize, String>) {
    while let Ok(sentence) = end.recv() {
        end.send(sentence.split_whitespace().count())
            .expect("the parent listens");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut here, there) = Pipe::<String, usize>::new()?;
    let child = Process::spawn(count, (there,))?;

    for sentence in ["one", "two words", "and now four words"] {
        here.send(sentence.to_string())?;
        println!("{sentence}: {}", here.recv()?);
    }
    drop(here); // The child's recv now says `Closed`, and it returns.
    child.join()?;
    println!("The child has finished");
    Ok(())
}
