//! The calls of a pool: one item, many, at once or one after another.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::error::TaskError;
use super::feed::{Feed, Shares, Unfed, remember, single};
use super::imap::{Imap, Order};
use super::items::Source;
use super::job::{Group, Job, Record};
use super::memory::SHORTAGE;
use super::outcome::Ending;
use super::plan::Cut;
use super::shared::PoolShared;
use super::step::Step;
use super::task::Task;
use super::waited::{Flying, Waited};
use crate::kin;

/// How a call is made: over which pool, with what context, in which chunks, for how long.
#[derive(Clone)]
pub(super) struct CallOptions<'p> {
    pub(super) shared: &'p Arc<PoolShared>,
    pub(super) context: Option<Arc<Context>>,
    pub(super) chunk: Option<NonZeroUsize>,
    pub(super) limit: Option<Duration>,
    /// Why nothing can be called: the context could not be sent.
    pub(super) refused: Option<TaskError>,
}

impl<'p> CallOptions<'p> {
    pub(super) fn of(shared: &'p Arc<PoolShared>) -> CallOptions<'p> {
        CallOptions {
            shared,
            context: None,
            chunk: None,
            limit: None,
            refused: None,
        }
    }

    fn usable(&self) -> Result<(), TaskError> {
        self.shared.usable()?;
        self.refused.clone().map_or(Ok(()), Err)
    }

    pub(super) fn with_chunk_size(self, items: usize) -> CallOptions<'p> {
        let chunk = Some(NonZeroUsize::new(items).unwrap_or(NonZeroUsize::MIN));
        CallOptions { chunk, ..self }
    }

    pub(super) fn with_timeout(self, limit: Duration) -> CallOptions<'p> {
        let limit = Some(limit);
        CallOptions { limit, ..self }
    }

    fn shares(&self, cut: Cut, per_job: usize, fails_fast: bool) -> Shares {
        Shares {
            cut,
            per_job,
            context: self.context.clone(),
            limit: self.limit,
            fails_fast,
        }
    }

    fn many(&self) -> Shares {
        let workers = NonZeroUsize::new(self.shared.workers()).unwrap_or(NonZeroUsize::MIN);
        let cut = self.chunk.map_or(Cut::Guided { workers }, Cut::Every);
        self.shares(cut, cut.limit(), true)
    }

    fn one(&self) -> Shares {
        let chunk = self.chunk.unwrap_or(NonZeroUsize::MIN);
        let most = chunk.get().min(Cut::Every(NonZeroUsize::MAX).limit());
        self.shares(Cut::Every(chunk), most, false)
    }

    pub(super) fn apply<S: Step>(&self, item: &S::In) -> Result<S::Out, TaskError> {
        self.usable()?;
        let record = single::<S>(self.shared, &self.one(), item, None)?;
        let slot = self.shared.slot();
        let waited = Waited::submit(&**self.shared, record, slot.number)?;
        self.shared.wait_for(&waited.job, &slot, None);
        remember::<S>(&waited.job);
        waited.job.only()
    }

    pub(super) fn apply_async<S: Step>(&self, item: &S::In) -> Task<S::Out> {
        self.task(|group| {
            self.wait_for_room(1)?;
            let record = single::<S>(self.shared, &self.one(), item, Some(group))?;
            let job = self.submit_for(group, record)?;
            Ok(vec![job])
        })
        .finish_with(|jobs| match jobs {
            [job] => job.only(),
            // Nothing was submitted: the reason is known to the task.
            _ => Err(TaskError::PoolClosed { item: 0 }),
        })
    }

    /// The results of many items; of a step that ends the call itself, those up to that one.
    pub(super) fn map<S, I>(&self, items: I) -> Result<Vec<S::Out>, TaskError>
    where
        S: Step,
        I: Source<S::In>,
    {
        self.usable()?;
        let shared = self.shared;
        let mut feed = Feed::new::<S>(shared, self.many(), items)?;
        let mut flying = Flying::new(shared);
        let mut results = Vec::new();
        let mut unsent = None;
        loop {
            while unsent.is_none() && flying.has_room() {
                let returns = shared.memory.returns();
                match feed.next::<S>(None, !flying.is_empty()) {
                    Ok(None) => break,
                    Ok(Some(record)) => flying.submit(record)?,
                    // There may be memory when the results of those are read.
                    Err(Unfed::Short(_)) if !flying.is_empty() => break,
                    Err(Unfed::Short(_)) if shared.wait_for_memory(returns) => {}
                    Err(error) => unsent = Some(error.error()),
                }
            }
            if results.is_empty() {
                results.reserve_exact(feed.at_least());
            }
            let Some(waited) = flying.land() else {
                break;
            };
            if waited.job.append_to(&mut results)? {
                return Ok(results);
            }
            if let Some(average) = waited.job.average() {
                feed.guess = average + average / 4 + 16;
            }
        }
        unsent.map_or(Ok(results), Err)
    }

    pub(super) fn map_async<S, I>(&self, items: I) -> Task<Vec<S::Out>>
    where
        S: Step,
        I: Source<S::In>,
    {
        self.task(|group| {
            let shared = self.shared;
            let mut feed = Feed::new::<S>(shared, self.many(), items)?;
            let mut jobs: Submitted<'_> = Submitted {
                shared,
                jobs: Vec::new(),
            };
            let mut is_ahead = false;
            loop {
                if group.has_failed() {
                    // Whatever came of the items that are left, nobody could read it.
                    return Ok(std::mem::take(&mut jobs.jobs));
                }
                let returns = shared.memory.returns();
                match feed.next::<S>(Some(group), is_ahead) {
                    Ok(None) => return Ok(std::mem::take(&mut jobs.jobs)),
                    Ok(Some(record)) => {
                        self.wait_for_room(u64::from(record.job.items))?;
                        jobs.jobs.push(self.submit_for(group, record)?);
                        is_ahead = true;
                    }
                    Err(Unfed::Short(_))
                        if shared.memory.wait(returns, SHORTAGE)
                            || jobs.jobs.iter().any(|job| !job.has_ended()) => {}
                    // Results that wait to be read may have more than half.
                    Err(Unfed::Short(_)) if is_ahead => is_ahead = false,
                    Err(Unfed::Short(_)) if shared.wait_for_memory(returns) => {}
                    Err(error) => return Err(error.error()),
                }
            }
        })
        .finish_with(|jobs| {
            let mut results = Vec::new();
            for job in jobs {
                if job.append_to(&mut results)? {
                    break;
                }
            }
            Ok(results)
        })
    }

    /// Waits until so many items more may be submitted.
    fn wait_for_room(&self, items: u64) -> Result<(), TaskError> {
        let Some(limit) = self.shared.settings.queue_limit else {
            return Ok(());
        };
        self.shared.usable()?;
        self.shared.wait_until(None, |board| {
            board.closed.is_some() || has_room(board.counts.outstanding(), items, limit)
        });
        Ok(())
    }

    /// The limit of items that are submitted and have not ended, if no more may be now. Whoever asks at the same time
    /// may be quicker.
    pub(super) fn full(&self) -> Option<u64> {
        let limit = self
            .shared
            .settings
            .queue_limit
            .filter(|_| !kin::forked())?;
        let outstanding = self
            .shared
            .with_board(|board, _| board.counts.outstanding());
        (!has_room(outstanding, 1, limit)).then_some(limit)
    }

    /// A task of what `submit` submits.
    fn task(
        &self,
        submit: impl FnOnce(&Arc<Group>) -> Result<Vec<Arc<Job>>, TaskError>,
    ) -> Unfinished {
        let group = Group::new();
        // Said also when the iterator, or a value that is encoded, panics.
        let said = SaidLater {
            shared: self.shared,
            group: &group,
        };
        let submitted = self.usable().and_then(|()| submit(&group));
        drop(said);
        Unfinished {
            shared: Arc::clone(self.shared),
            submitted,
            group,
        }
    }

    fn submit_for(&self, group: &Group, record: Box<Record>) -> Result<Arc<Job>, TaskError> {
        let job = Arc::clone(&record.job);
        group.add();
        let refused = |ending: Ending| {
            self.shared.notify.tell_all(group.one_ended());
            ending.error(job.first)
        };
        self.shared.submit(record).map_err(refused)?;
        Ok(job)
    }

    pub(super) fn imap<S, I>(&self, items: I, order: Order) -> Imap<'p, I, S::In, S::Out>
    where
        S: Step,
        I: Source<S::In>,
    {
        let feed = self
            .usable()
            .and_then(|()| Feed::new::<S>(self.shared, self.one(), items));
        Imap::new::<S>(self.shared, feed, order)
    }
}

fn has_room(outstanding: u64, items: u64, limit: u64) -> bool {
    // More than the limit at once are taken when there is nothing else.
    outstanding == 0 || outstanding.saturating_add(items) <= limit
}

/// Jobs of a task that is not whole yet: cancelled, if it does not become so.
struct Submitted<'a> {
    shared: &'a PoolShared,
    jobs: Vec<Arc<Job>>,
}

impl Drop for Submitted<'_> {
    fn drop(&mut self) {
        for job in &self.jobs {
            self.shared
                .with_board(|board, after| board.cancel(job, after));
        }
    }
}

/// Whoever submits is no reason to wait any more.
struct SaidLater<'a> {
    shared: &'a PoolShared,
    group: &'a Group,
}

impl Drop for SaidLater<'_> {
    fn drop(&mut self) {
        self.shared.notify.tell_all(self.group.one_ended());
    }
}

/// A task whose results are not known how to be read yet.
struct Unfinished {
    shared: Arc<PoolShared>,
    submitted: Result<Vec<Arc<Job>>, TaskError>,
    group: Arc<Group>,
}

impl Unfinished {
    fn finish_with<R>(self, finish: fn(&[Arc<Job>]) -> Result<R, TaskError>) -> Task<R> {
        let (jobs, refused) = match self.submitted {
            Ok(jobs) => (jobs, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Task::new(self.shared, jobs, self.group, refused, finish)
    }
}
