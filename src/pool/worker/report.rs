//! What a worker says of chunks that it works on: what failed, and what it needs.

use super::state::WorkerState;
use crate::chunk::Span;
use crate::message;
use crate::pool::error::{Failure, Report};
use crate::pool::record::{self, REPORT_HEAD};
use crate::pool::wire::Ask;
use crate::sync::Ordering;

/// Bytes that are asked for at least, for reasons of failures.
const PAGE: u64 = 1024;

impl WorkerState {
    fn ask(&mut self, ask: Ask) {
        let page = &self.wire.page;
        self.mailbox.ask(page, &self.row, self.kin, ask);
    }

    /// Memory for the chunk being worked on; `None` if there is none.
    pub(super) fn more_room(&mut self, bytes: u64) -> Option<u64> {
        self.ask(Ask::Room { bytes });
        let place = self.mailbox.answer(&self.row, self.kin);
        (place != 0).then_some(place)
    }

    pub(super) fn report_ready(&mut self) {
        self.ask(Ask::Ready);
    }

    pub(super) fn report_not_ready(&mut self, failure: Failure) {
        let (place, len) = self
            .write_report(failure, Span::default(), 0)
            .unwrap_or((0, 0));
        self.ask(Ask::NotReady { place, len });
        // The report is read before this process ends and its room goes back.
        self.mailbox.answer(&self.row, self.kin);
    }

    /// Says why items of the chunk have no result.
    pub(super) fn fail(&mut self, items: Span, failure: Failure) {
        if self.current.fails_fast {
            self.stop_behind(items.start);
        }
        if let Some(cell) = self.wire.cell(self.current.cell) {
            // Seen with the chunk's bit (edge Q).
            cell.has_failures.store(1, Ordering::Relaxed);
        }
        let Some(chunk) = self.chunk() else { return };
        let before = chunk.failures.load(Ordering::Relaxed);
        if before == u64::MAX {
            // All of it has failed already, and to ask for room once more takes its time.
            return;
        }
        // Without a reason they have no result all the same, and the pool says that nobody could say why.
        let place = match self.write_report(failure, items, before) {
            Some((place, _)) => place,
            None => match self.reserve(REPORT_HEAD) {
                Some(at) => {
                    let head = [before, items.word(), 0];
                    self.wire.bytes.copy_in(at, bytemuck::cast_slice(&head));
                    at as u64
                }
                None => return self.lose(),
            },
        };
        if let Some(chunk) = self.chunk() {
            // Release: who finds the place finds the record.
            chunk.failures.store(place, Ordering::Release);
        }
    }

    /// There is no room to say what failed: everything of this chunk has.
    fn lose(&self) {
        if let Some(chunk) = self.chunk() {
            chunk.failures.store(u64::MAX, Ordering::Release);
        }
    }

    /// Writes a report; where it is, and how long it is with its head.
    fn write_report(&mut self, failure: Failure, items: Span, before: u64) -> Option<(u64, u64)> {
        let report = Report {
            pid: self.pid,
            name: self.name.clone(),
            failure,
        };
        let mut bytes = Vec::new();
        message::encode(&report, &mut bytes).ok()?;
        let len = REPORT_HEAD + bytes.len() as u64;
        let at = self.reserve(len)?;
        let head = [before, items.word(), bytes.len() as u64];
        let to = &self.wire.bytes;
        to.copy_in(at, bytemuck::cast_slice(&head));
        to.copy_in(at + REPORT_HEAD as usize, &bytes);
        Some((at as u64, len))
    }

    /// Room for a report of the chunk being worked on.
    fn reserve(&mut self, len: u64) -> Option<usize> {
        let len = len.next_multiple_of(8);
        if self.reports.1 < len {
            let bytes = len.max(PAGE);
            let place = self.more_room(bytes)?;
            self.reports = (place, bytes);
        }
        let (place, left) = self.reports;
        self.reports = (place + len, left - len);
        record::inside(&self.wire.bytes, place, len)
    }
}
