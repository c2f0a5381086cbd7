//! The calls of a pool: one item, many, at once or one after another.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::Context;
use super::engine::Engine;
use super::error::TaskError;
use super::feed::{Feed, Shares, single};
use super::held::Held;
use super::imap::{Imap, Order};
use super::items::Source;
use super::plan::Cut;
use super::step::Step;
use super::supervise::Loose;
use super::task::Task;
use super::work::{Group, Parcel, Work};
use crate::kin;

/// Jobs of one call that are under way at once, if they have many chunks.
const DEPTH: usize = 4;
/// The same, if they have few.
const MOST: usize = 64;

/// How a call is made: over which pool, with what context, in which chunks.
#[derive(Clone)]
pub(super) struct How<'p> {
    pub(super) engine: &'p Arc<Engine>,
    pub(super) context: Option<Arc<Context>>,
    pub(super) chunk: Option<NonZeroUsize>,
}

pub(super) fn not_forked() -> Result<(), TaskError> {
    if kin::forked() {
        return Err(TaskError::Forked);
    }
    // Where the program has closed our descriptors no worker can be made, ended or heard of any more.
    kin::check().map_err(|error| TaskError::PoolBroken {
        item: 0,
        why: error.to_string(),
    })
}

impl<'p> How<'p> {
    pub(super) fn of(engine: &'p Arc<Engine>) -> How<'p> {
        How {
            engine,
            context: None,
            chunk: None,
        }
    }

    fn shares(&self) -> Shares {
        let workers = self.engine.control.seats.len();
        let cut = match self.chunk {
            Some(chunk) => Cut::Every(chunk),
            None => Cut::Guided {
                workers: NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN),
            },
        };
        Shares {
            cut,
            per_job: cut.limit(),
        }
    }

    pub(super) fn apply<S: Step>(&self, item: &S::In) -> Result<S::Out, TaskError> {
        not_forked()?;
        let parcel = single::<S>(self.engine, self.context.clone(), item, None)?;
        let held = Held::submit(self.engine, parcel)?;
        self.engine.wait_for(&held.work, None);
        held.work.only(self.engine)
    }

    pub(super) fn apply_async<S: Step>(&self, item: &S::In) -> Task<S::Out> {
        self.task(
            |group| {
                let parcel = single::<S>(self.engine, self.context.clone(), item, Some(group))?;
                self.submit_for(group, parcel).map(|work| vec![work])
            },
            |engine, works| match works {
                [work] => work.only(engine),
                // Nothing was submitted: the reason is known to the task.
                _ => Err(TaskError::PoolClosed { item: 0 }),
            },
        )
    }

    pub(super) fn map<S, I>(&self, items: I) -> Result<Vec<S::Out>, TaskError>
    where
        S: Step,
        I: Source<S::In>,
    {
        not_forked()?;
        let mut feed = Feed::<S, _>::new(self.engine, self.shares(), self.context.clone(), items)?;
        let mut flying: VecDeque<(Held<'_>, usize)> = VecDeque::new();
        let mut chunks = 0;
        let mut results = Vec::new();
        let mut unsent = None;
        let mut loose = None;
        loop {
            let workers = self.engine.control.seats.len();
            while unsent.is_none()
                && (flying.len() < DEPTH || (chunks < 2 * workers && flying.len() < MOST))
            {
                match feed.next(None) {
                    Ok(None) => break,
                    Ok(Some(parcel)) => {
                        let its = parcel.work.chunks();
                        chunks += its;
                        flying.push_back((Held::submit(self.engine, parcel)?, its));
                    }
                    Err(error) => unsent = Some(error),
                }
                if loose.is_none() && flying.len() > 1 {
                    loose = Some(Loose::new(self.engine));
                }
            }
            let Some((held, its)) = flying.pop_front() else {
                break;
            };
            if results.is_empty() {
                results.reserve_exact(feed.at_least());
            }
            self.engine.wait_for(&held.work, None);
            held.work.append_to(self.engine, &mut results)?;
            chunks -= its;
            if let Some(average) = held.work.average() {
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
        self.task(
            |group| {
                let context = self.context.clone();
                let mut feed = Feed::<S, _>::new(self.engine, self.shares(), context, items)?;
                let mut works = Vec::new();
                let error = loop {
                    match feed.next(Some(group)) {
                        Ok(None) => return Ok(works),
                        Ok(Some(parcel)) => match self.submit_for(group, parcel) {
                            Ok(work) => works.push(work),
                            Err(error) => break error,
                        },
                        Err(error) => break error,
                    }
                };
                for work in &works {
                    self.engine.cancel(work);
                    work.let_go(self.engine);
                }
                Err(error)
            },
            |engine, works| {
                let mut results = Vec::new();
                for work in works {
                    work.append_to(engine, &mut results)?;
                }
                Ok(results)
            },
        )
    }

    /// A task of what `submit` submits.
    fn task<R>(
        &self,
        submit: impl FnOnce(&Arc<Group>) -> Result<Vec<Arc<Work>>, TaskError>,
        finish: fn(&Engine, &[Arc<Work>]) -> Result<R, TaskError>,
    ) -> Task<R> {
        let group = Group::new();
        self.engine.unwatched.fetch_add(1, Ordering::SeqCst);
        let submitted = not_forked().and_then(|()| submit(&group));
        if group.one_ended() {
            self.engine.unwatched.fetch_sub(1, Ordering::SeqCst);
        } else {
            self.engine.watch();
        }
        let (works, refused) = match submitted {
            Ok(works) => (works, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Task::new(self.engine, works, group, refused, finish)
    }

    fn submit_for(&self, group: &Group, parcel: Parcel) -> Result<Arc<Work>, TaskError> {
        let work = Arc::clone(&parcel.work);
        group.add();
        self.engine.submit(parcel).map_err(|ending| {
            group.one_ended();
            work.never(self.engine);
            ending.error(work.first)
        })?;
        Ok(work)
    }

    pub(super) fn imap<S, I>(&self, items: I, order: Order) -> Imap<'p, S, I>
    where
        S: Step,
        I: Source<S::In>,
    {
        let chunk = self.chunk.unwrap_or(NonZeroUsize::MIN);
        let shares = Shares {
            cut: Cut::Every(chunk),
            per_job: chunk.get().min(Cut::Every(NonZeroUsize::MAX).limit()),
        };
        let feed =
            not_forked().and_then(|()| Feed::new(self.engine, shares, self.context.clone(), items));
        Imap::new(self.engine, feed, order)
    }
}
