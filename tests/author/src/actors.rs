//! Actors: each a process with a mailbox, started again when it dies, with the mail that it had not taken.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use multiproc::{Child, Death, Func, JoinError, Message, Process, Queue, Receiver, Sender};

/// What an actor runs: takes its mail until there is none to come.
pub type Behaviour<M> = Func<(Receiver<M>,), ()>;

/// One actor and who watches over it.
pub struct Actor<M: 'static> {
    name: String,
    behaviour: Behaviour<M>,
    tx: Sender<M>,
    /// Kept, so that mail waits while nobody lives who takes it.
    rx: Receiver<M>,
    child: Child<()>,
    restarts: u32,
}

impl<M: Message + Send + Sync> Actor<M> {
    /// Starts one, that is started again so many times at most.
    pub fn start(name: &str, behaviour: Behaviour<M>, restarts: u32) -> Result<Actor<M>> {
        let (tx, rx) = Queue::new(64)?;
        let child = run(name, behaviour, &rx)?;
        Ok(Actor {
            name: name.to_owned(),
            behaviour,
            tx,
            rx,
            child,
            restarts,
        })
    }

    /// Puts mail into its mailbox.
    pub fn send(&mut self, mail: M) -> Result<()> {
        self.tx
            .send(mail)
            .with_context(|| format!("no mail to {}", self.name))
    }

    /// Sees to it, waiting so long for its end: how it died, if it did and was started again.
    pub fn tend(&mut self, limit: Duration) -> Result<Option<Death>> {
        let why = match self.child.join_timeout(limit) {
            Ok(_) => return Ok(None),
            Err(why) => why,
        };
        let death = self.child.death();
        if self.restarts == 0 {
            return Err(why).with_context(|| format!("{} is given up", self.name));
        }
        self.restarts -= 1;
        self.child = run(&self.name, self.behaviour, &self.rx)?;
        match (death, why) {
            (Some(death), _) => Ok(Some(death)),
            (None, JoinError::Panicked { .. }) => Ok(None),
            (None, why) => Err(why.into()),
        }
    }

    /// Gives no more mail, and waits until it has done with what there is.
    pub fn finish(self, limit: Duration) -> Result<()> {
        let Actor {
            tx,
            rx,
            child,
            name,
            ..
        } = self;
        drop((tx, rx));
        match child.join_timeout(limit)? {
            Some(()) => Ok(()),
            None => bail!("{name} has not finished within {limit:?}"),
        }
    }
}

fn run<M: Message>(name: &str, behaviour: Behaviour<M>, rx: &Receiver<M>) -> Result<Child<()>> {
    let process = Process::builder().name(name);
    Ok(process.spawn(Func::call, (behaviour, (rx.try_clone()?,)))?)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::LONG;

    #[derive(Serialize, Deserialize)]
    enum Mail {
        Add(u64, Sender<u64>),
        Die,
    }

    fn adder(mut mail: Receiver<Mail>) {
        let mut sum = 0;
        for mail in &mut mail {
            match mail {
                Mail::Add(more, mut answer) => {
                    sum += more;
                    let _ = answer.send(sum);
                }
                Mail::Die => std::process::abort(),
            }
        }
    }

    #[test]
    fn it_is_started_again_and_given_up_in_the_end() -> Result<()> {
        let mut actor = Actor::start("adder", Func::of(adder), 1)?;
        let (answers, mut sums) = Queue::<u64>::new(4)?;
        actor.send(Mail::Add(2, answers.try_clone()?))?;
        assert_eq!(sums.recv_timeout(LONG)?, 2);
        actor.send(Mail::Die)?;
        let death = actor.tend(LONG)?.context("it died")?;
        assert_eq!(
            (death.name(), death.how().signal()),
            (Some("adder"), Some(6))
        );
        // Mail goes on to the next one, which begins anew.
        actor.send(Mail::Add(3, answers.try_clone()?))?;
        assert_eq!(sums.recv_timeout(LONG)?, 3);
        actor.send(Mail::Die)?;
        let given_up = actor.tend(LONG).unwrap_err();
        let said = format!("{given_up:#}");
        assert_eq!(
            said,
            "adder is given up: the process was ended by signal 6 (SIGABRT)"
        );
        Ok(())
    }

    #[test]
    fn it_finishes_with_its_mail() -> Result<()> {
        let mut actor = Actor::start("adder", Func::of(adder), 0)?;
        let (answers, mut sums) = Queue::<u64>::new(16)?;
        for _ in 0..10 {
            actor.send(Mail::Add(1, answers.try_clone()?))?;
        }
        drop(answers);
        actor.finish(LONG)?;
        assert_eq!(sums.iter().last(), Some(10));
        Ok(())
    }
}
