//! A pre-fork server: the parent accepts connections and its workers serve them. One dies; the others go on.
//! Run: cargo run --example prefork
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use multiproc::{Fd, Pool};

/// In a worker: answers one line.
fn serve(connection: Fd<TcpStream>) -> Result<(), String> {
    let mut line = String::new();
    let mut stream = &*connection;
    let read = BufReader::new(stream).read_line(&mut line);
    read.map_err(|error| error.to_string())?;
    if line.trim() == "crash" {
        std::process::abort();
    }
    // The parent has the connection as well until it hears of the result, so it is not enough to drop it.
    let answered = stream
        .write_all(line.to_uppercase().as_bytes())
        .and_then(|()| stream.shutdown(Shutdown::Both));
    answered.map_err(|error| error.to_string())
}

/// What the server says to a line; nothing if it closes the connection.
fn ask(server: SocketAddr, line: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(2)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let server = listener.local_addr()?;

    let lines = ["one", "two", "crash", "three", "four", "five"];
    let clients = lines.map(|line| thread::spawn(move || ask(server, line)));

    let mut served = Vec::new();
    for _ in 0..lines.len() {
        let (connection, _) = listener.accept()?;
        served.push(pool.apply_async(serve, (Fd::from(connection),)));
    }
    for (line, client) in lines.iter().zip(clients) {
        let answer = client.join().expect("a client does not panic")?;
        println!("{line}: {answer:?}");
    }
    let ended = served.into_iter().map(|task| task.get());
    println!("Workers lost: {}", ended.filter(Result::is_err).count());
    pool.close();
    pool.join()?;
    Ok(())
}
