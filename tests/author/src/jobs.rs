//! A queue of jobs: functions with their arguments, from any process; and what came of each, back to whoever asked.

use anyhow::Result;
use multiproc::{Func, Pool, Queue, Receiver, Sender, TaskError};
use serde::{Deserialize, Serialize};

/// A function, its arguments, and where its outcome goes.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub id: u64,
    pub run: Func<(Vec<u64>,), u64>,
    pub arguments: Vec<u64>,
    pub answer: Sender<Outcome>,
}

/// What came of a job: an error of a task travels like any value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub id: u64,
    pub result: Result<u64, TaskError>,
}

/// Runs jobs until nobody is left who could bring one.
pub fn serve(pool: &Pool, mut jobs: Receiver<Job>) -> Result<u64> {
    let mut done = 0;
    loop {
        let mut job = match jobs.recv() {
            Ok(job) => job,
            Err(multiproc::RecvError::Closed) => return Ok(done),
            Err(error) => return Err(error.into()),
        };
        let task = pool.apply_async(Func::call, (job.run, (job.arguments,)));
        done += 1;
        let id = job.id;
        task.on_done(move |result| {
            // Whoever asked may be gone.
            let _ = job.answer.send(Outcome { id, result });
        });
    }
}

/// A place to bring jobs to.
pub fn queue() -> Result<(Sender<Job>, Receiver<Job>)> {
    Ok(Queue::new(16)?)
}

#[cfg(test)]
mod tests {
    use multiproc::Process;

    use super::*;
    use crate::LONG;

    fn product(numbers: Vec<u64>) -> u64 {
        numbers.iter().product()
    }

    fn fatal(_: Vec<u64>) -> u64 {
        std::process::abort()
    }

    /// In another process: asks for three things, and gives back what came of them.
    fn client(mut jobs: Sender<Job>) -> Vec<Outcome> {
        let (answer, mut outcomes) = Queue::<Outcome>::new(4).unwrap();
        let runs = [
            Func::of(product),
            Func::of(fatal),
            Func::of(|numbers: Vec<u64>| numbers[9]),
        ];
        for (id, run) in (0..).zip(runs) {
            let answer = answer.try_clone().unwrap();
            let arguments = vec![2, 3, 7];
            jobs.send(Job {
                id,
                run,
                arguments,
                answer,
            })
            .unwrap();
        }
        drop((jobs, answer));
        outcomes.iter().collect()
    }

    #[test]
    fn jobs_come_from_processes_and_their_outcomes_go_back() -> Result<()> {
        let pool = Pool::new(2)?;
        let (jobs, waiting) = queue()?;
        let child = Process::spawn(client, (jobs,))?;
        assert_eq!(serve(&pool, waiting)?, 3);
        pool.wait_idle(LONG);
        let mut outcomes = child.join()?;
        outcomes.sort_by_key(|outcome| outcome.id);
        assert_eq!(outcomes.len(), 3);
        assert_eq!(outcomes[0].result, Ok(42));
        let died = outcomes[1].result.as_ref().unwrap_err();
        assert_eq!(died.death().unwrap().how().signal(), Some(6));
        assert!(matches!(
            outcomes[2].result,
            Err(TaskError::Panicked { .. })
        ));
        Ok(())
    }
}
