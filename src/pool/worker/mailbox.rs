//! A worker's end of its mailbox.

use crate::chunk;
use crate::error::SegmentError;
use crate::kin::Kin;
use crate::layout::{PoolPage, PoolRow};
use crate::pool::wire::Ask;
use crate::signal::Patience;
use crate::sync::Ordering;

/// The worker's end of its mailbox.
pub(super) struct Mailbox {
    seat: usize,
    asked: u64,
    patience: Patience,
}

impl Mailbox {
    pub(super) fn new(seat: u16, row: &PoolRow) -> Mailbox {
        Mailbox {
            seat: usize::from(seat),
            asked: row.asked.load(Ordering::Relaxed),
            patience: Patience::new(),
        }
    }

    /// Asks for something. The answer of [`Ask::Room`] is to be waited for.
    pub(super) fn ask(&mut self, page: &PoolPage, row: &PoolRow, kin: &Kin, ask: Ask) {
        // The words of the last request may not be overwritten before it was read.
        self.answer(row, kin);
        self.asked += 1;
        for (word, value) in row.request.iter().zip(ask.words()) {
            word.store(value, Ordering::Relaxed);
        }
        // The pool's end is in `Supervisor::read_mail`.
        row.asked.store(self.asked, Ordering::Release);
        chunk::set(&page.mail, self.seat);
        page.supervisor.notify_one();
    }

    /// Waits until everything that was asked is answered; the last answer.
    pub(super) fn answer(&mut self, row: &PoolRow, kin: &Kin) -> u64 {
        let asked = self.asked;
        let look = || {
            let is_answered = row.answered.load(Ordering::Acquire) >= asked;
            Ok::<_, SegmentError>(is_answered.then_some(()))
        };
        // The pool answers every request, or ends this process.
        while let Ok(None) = row
            .answers
            .wait(&mut self.patience, None, kin.deaths(), look, |_| Ok(None))
        {}
        row.answer.load(Ordering::Relaxed)
    }
}
