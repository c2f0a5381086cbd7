//! A pre-fork server: processes that accept from one listening socket, each replaced when it dies.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use multiproc::{Child, Death, Fd, Lock, Process};

/// The server: its workers end with it.
pub struct Server {
    listener: TcpListener,
    served: Lock<u64>,
    workers: Vec<Child<Result<(), String>>>,
}

impl Server {
    /// Listens on some port of this machine alone.
    pub fn start(workers: usize) -> Result<Server> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port")?;
        let mut server = Server {
            listener,
            served: Lock::new(0)?,
            workers: Vec::new(),
        };
        for _ in 0..workers {
            let worker = server.worker()?;
            server.workers.push(worker);
        }
        Ok(server)
    }

    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// How many lines were answered.
    pub fn served(&self) -> Result<u64> {
        Ok(*self.served.lock_or_repair(|_| ())?)
    }

    /// Replaces the workers that have died; how they did.
    pub fn tend(&mut self) -> Result<Vec<Death>> {
        let mut deaths = Vec::new();
        for at in 0..self.workers.len() {
            if let Some(death) = self.workers[at].death() {
                deaths.push(death);
                self.workers[at] = self.worker()?;
            }
        }
        Ok(deaths)
    }

    fn worker(&self) -> Result<Child<Result<(), String>>> {
        let listener = Fd::from(self.listener.try_clone()?);
        Ok(Process::spawn(work, (listener, self.served.clone()))?)
    }
}

fn work(listener: Fd<TcpListener>, served: Lock<u64>) -> Result<(), String> {
    let listener = listener.into_inner();
    loop {
        answer(&listener, &served).map_err(|error| format!("{error:#}"))?;
    }
}

fn answer(listener: &TcpListener, served: &Lock<u64>) -> Result<()> {
    let (stream, _) = listener.accept()?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let mut count = served.lock_or_repair(|_| ())?;
    if line.trim() == "crash" {
        std::process::abort();
    }
    *count += 1;
    drop(count);
    // Whoever asked may be gone.
    let _ = (&stream).write_all(line.to_uppercase().as_bytes());
    Ok(())
}

/// What a server answers to a line.
pub fn ask(server: SocketAddr, line: &str) -> Result<String> {
    let mut stream = TcpStream::connect(server)?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::LONG;

    #[test]
    fn it_serves_while_its_workers_die() -> Result<()> {
        let mut server = Server::start(2)?;
        let address = server.address()?;
        for round in 1..=3 {
            assert_eq!(ask(address, "one")?, "ONE");
            // Its connection is closed, or reset, without an answer.
            assert!(ask(address, "crash").map_or(true, |answer| answer.is_empty()));
            let end = Instant::now() + LONG;
            let deaths = loop {
                let deaths = server.tend()?;
                if !deaths.is_empty() || Instant::now() > end {
                    break deaths;
                }
                std::thread::yield_now();
            };
            assert_eq!(deaths.len(), 1);
            assert_eq!(deaths[0].how().signal(), Some(6));
            assert_eq!(ask(address, "two")?, "TWO");
            assert_eq!(server.served()?, 2 * round);
        }
        Ok(())
    }
}
