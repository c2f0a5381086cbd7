//! A worker's place: its seat, the tickets it takes, the memory it reads and writes.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use bytemuck::{CheckedBitPattern, NoUninit};

use super::arena::Place;
use super::context::{HEAD, Name};
use super::control::{Cell, Control, NOTICE_LANE, Notice, Record, TICKET_LANE};
use super::error::{Failure, What};
use super::job::{self, Busy, Generation, Lease, Naming, Span, Ticket};
use crate::error::SegmentError;
use crate::frozen::Frozen;
use crate::handle::{self, Travelling};
use crate::kin::{self, Kin};
use crate::layout::{Chunk, Extent, Seat};
use crate::message::{self, DecodeError, Message, Sink};
use crate::process::task::{self, Entry, TaskName};
use crate::ring::{Reader, Writer};
use crate::segment::{Bytes, Segment, View};
use crate::signal::Patience;
use crate::sync::Ordering;
use crate::sys;

/// What an extent of the arena holds.
pub(super) const ARENA: &str = "arena";

/// Contexts a worker keeps decoded.
const CONTEXTS: usize = 4;

/// The chunk a worker works on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Current {
    ticket: Ticket,
    index: usize,
    pub(super) span: Span,
    pub(super) input: Place,
    pub(super) input_len: u64,
    pub(super) output: Place,
    pub(super) room: u64,
}

/// All that a task's body works on in a worker.
pub struct Station {
    kin: &'static Kin,
    control: Control,
    seat: u16,
    row: View<Seat>,
    hunter: RefCell<Hunter>,
    notices: Writer,
    patience: Patience,
    /// Requests for room that were made.
    requests: u64,
    extents: Vec<Option<(u64, Bytes)>>,
    epoch: u64,
    contexts: Vec<(Name, Rc<dyn Any>)>,
    /// The array that items lay in last.
    array: Option<(Name, Rc<dyn Any>)>,
    /// What a function without a context is given.
    nothing: Rc<dyn Any>,
    last_task: Option<(TaskName, Entry<Station>)>,
    /// Chunks that may still be leased; `None` for any number.
    pub(super) left: Option<u64>,
    pub(super) current: Current,
    /// Arguments of the initializer.
    pub(super) initial: Vec<u8>,
    pub(super) failed: Option<Failure>,
    pub(super) scratch: Vec<u8>,
}

impl fmt::Debug for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Station")
            .field("seat", &self.seat)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

/// Takes tickets.
struct Hunter {
    tickets: Reader,
    /// Items begun before.
    turn: u32,
}

/// What came of waiting for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hunt {
    /// Something to do.
    Ticket(Ticket),
    /// The pool is closing.
    Over,
}

impl Station {
    /// Takes the seat that the pool has prepared in its segment.
    pub(super) fn new(
        segment: Segment,
        seat: u16,
        left: Option<u64>,
    ) -> Result<Station, SegmentError> {
        let kin = kin::kin()?;
        let control = Control::attach(segment)?;
        let row = control
            .seats
            .get(usize::from(seat))
            .cloned()
            .ok_or(crate::error::Corrupt("a pool has no such seat"))?;
        let notices = Writer::attach(NOTICE_LANE, &row.lane, &row.notices);
        let tickets = Reader::attach(TICKET_LANE, &control.page.lane);
        let turn = Naming::from_word(row.item.load(Ordering::Relaxed)).turn;
        Ok(Station {
            kin,
            control,
            seat,
            row,
            hunter: RefCell::new(Hunter { tickets, turn }),
            notices,
            patience: Patience::new(),
            requests: 0,
            extents: Vec::new(),
            epoch: 0,
            contexts: Vec::new(),
            array: None,
            nothing: Rc::new(()),
            last_task: None,
            left,
            current: Current {
                ticket: Ticket {
                    cell: 0,
                    generation: Generation::default(),
                },
                index: 0,
                span: Span { start: 0, count: 0 },
                input: Place::default(),
                input_len: 0,
                output: Place::default(),
                room: 0,
            },
            initial: Vec::new(),
            failed: None,
            scratch: Vec::new(),
        })
    }

    /// Waits for a ticket.
    pub(super) fn hunt(&mut self) -> Result<Hunt, SegmentError> {
        let (page, row, hunter) = (&self.control.page, &self.row, &self.hunter);
        job::hunt(&row.now);
        let look = || hunter.borrow_mut().look(&self.control, row);
        let check = |_| {
            job::tire(&row.now);
            hunter.borrow_mut().look(&self.control, row)
        };
        let found = page
            .tasks
            .wait(&mut self.patience, None, self.kin.deaths(), look, check)?;
        let Some(Hunt::Ticket(ticket)) = found else {
            return Ok(Hunt::Over);
        };
        job::take_up(&row.now);
        let more = self
            .hunter
            .borrow_mut()
            .tickets
            .peek(&page.lane, &page.tickets)?;
        if more.is_some() {
            page.tasks.notify_one();
        }
        Ok(Hunt::Ticket(ticket))
    }

    /// Does what a ticket asks for: leases chunks of its job until none is left.
    pub(super) fn serve(&mut self, ticket: Ticket) {
        let busy = Busy::from_word(self.row.busy.load(Ordering::Relaxed)).begun(sys::now());
        self.row.busy.store(busy.word(), Ordering::Relaxed);
        let mut ticket = ticket;
        let mut committed = 0;
        let mut single = false;
        while !single && self.left != Some(0) {
            let Some(cell) = self.control.cell(ticket.cell) else {
                break;
            };
            let (generation, index) = match cell.cursor() {
                Some(cursor) => job::claim(cursor),
                None => {
                    single = true;
                    (ticket.generation, 0)
                }
            };
            if generation != ticket.generation {
                // The cell holds a later job by now, and the chunk claimed is one of that.
                self.finished(ticket, committed);
                committed = 0;
                ticket.generation = generation;
                self.name_nothing();
                self.row.ticket.store(ticket.word(), Ordering::Release);
            }
            let Some(chunk) = self
                .control
                .cell(ticket.cell)
                .and_then(|cell| cell.chunks().get(index))
            else {
                break;
            };
            let Some(lease) = job::lease(&chunk.state, generation, self.seat) else {
                continue;
            };
            if let Some(left) = &mut self.left {
                *left -= 1;
            }
            committed += u32::from(self.work(ticket, index, lease));
        }
        self.row
            .busy
            .store(busy.ended(sys::now()).word(), Ordering::Relaxed);
        if self.left != Some(0) && self.notices.room_hint(&self.row.lane) > 0 {
            // Whoever hears this may bring the next ticket at once, and need not wake anybody for it.
            job::hunt(&self.row.now);
        }
        self.finished(ticket, committed);
    }

    fn finished(&mut self, ticket: Ticket, chunks: u32) {
        if chunks > 0 {
            self.notify(Notice::Finished { ticket, chunks });
        }
    }

    /// Runs the items of a leased chunk and commits it.
    fn work(&mut self, ticket: Ticket, index: usize, lease: Lease) -> bool {
        let chunk = self.chunk_of(ticket, index);
        let read = |word: &crate::sync::AtomicU64| word.load(Ordering::Relaxed);
        self.current = Current {
            ticket,
            index,
            span: Span::from_word(read(&chunk.span)),
            input: Place::from_word(read(&chunk.input)),
            input_len: read(&chunk.input_len),
            output: Place::from_word(read(&chunk.output)),
            room: read(&chunk.room),
        };
        let words = self
            .cell_of(ticket)
            .job()
            .task
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed));
        match self.entry(TaskName::from_words(words)) {
            Ok(entry) => entry(self),
            Err(why) => {
                for item in self.items() {
                    self.fail(item, Failure::NoFunction(why.clone()));
                }
            }
        }
        job::commit(&self.chunk_of(ticket, index).state, lease)
    }

    fn cell_of(&self, ticket: Ticket) -> Cell<'_> {
        // Every ticket that is served has a cell (see `serve`).
        self.control
            .cell(ticket.cell)
            .unwrap_or(Cell::Single(&self.control.page.singles[0]))
    }

    fn chunk_of(&self, ticket: Ticket, index: usize) -> &Chunk {
        &self.cell_of(ticket).chunks()[index]
    }

    /// The chunk being worked on.
    pub(super) fn chunk(&self) -> &Chunk {
        self.chunk_of(self.current.ticket, self.current.index)
    }

    /// Its items.
    pub(super) fn items(&self) -> std::ops::Range<u32> {
        let span = self.current.span;
        span.start..span.start + span.count
    }

    fn entry(&mut self, name: TaskName) -> Result<Entry<Station>, String> {
        match self.last_task {
            Some((last, entry)) if last == name => Ok(entry),
            _ => {
                let entry = task::resolve(name).map_err(|error| error.to_string())?;
                self.last_task = Some((name, entry));
                Ok(entry)
            }
        }
    }

    /// Turn of the next item of the chunk less its index.
    pub(super) fn turns(&self) -> u32 {
        let before = self.hunter.borrow().turn;
        before.wrapping_add(1).wrapping_sub(self.current.span.start)
    }

    /// Where an item is named that is about to run.
    pub(super) fn row(&self) -> View<Seat> {
        self.row.clone()
    }

    /// Names the item that is about to run.
    #[inline]
    pub(super) fn begin(&self, naming: Naming) {
        // Release: who finds this item named also finds the result of the one before.
        self.row.item.store(naming.word(), Ordering::Release);
    }

    /// The chunk is done: `next` is the first that was not begun.
    pub(super) fn begun(&mut self, next: Naming) {
        self.hunter.get_mut().turn = next.turn.wrapping_sub(1);
    }

    fn name_nothing(&mut self) {
        let turn = self.hunter.get_mut().turn;
        let none = Naming {
            item: Naming::NONE,
            turn,
        };
        self.row.item.store(none.word(), Ordering::Relaxed);
    }

    /// Tells the pool that an item has failed.
    pub(super) fn fail(&mut self, item: u32, failure: Failure) {
        let record = self.record(&failure);
        let ticket = self.current.ticket;
        self.notify(Notice::Failed {
            ticket,
            item,
            record,
        });
    }

    /// Writes why something failed where the pool can read it.
    fn record(&mut self, failure: &Failure) -> Record {
        let nothing = Record {
            place: Place::default(),
            len: 0,
        };
        let mut bytes = Vec::new();
        if message::encode(failure, &mut bytes).is_err() {
            return nothing;
        }
        let Ok(len) = u32::try_from(bytes.len()) else {
            return nothing;
        };
        match self.room(u64::from(len)) {
            Some(place) => match self.bytes(place, u64::from(len)) {
                Some((to, at)) => {
                    to.copy_in(at, &bytes);
                    Record { place, len }
                }
                None => nothing,
            },
            None => nothing,
        }
    }

    /// Asks the pool for memory and waits for it; `None` if there is none.
    pub(super) fn room(&mut self, bytes: u64) -> Option<Place> {
        self.requests += 1;
        let ticket =
            (self.row.now.load(Ordering::Relaxed) == job::AT_WORK).then_some(self.current.ticket);
        self.notify(Notice::Room { ticket, bytes });
        let (row, requests) = (&self.row, self.requests);
        let look = || -> Result<Option<()>, std::convert::Infallible> {
            Ok((row.grants.load(Ordering::Acquire) >= requests).then_some(()))
        };
        // The pool answers every request, or ends this process.
        while let Ok(None) =
            row.granted
                .wait(&mut self.patience, None, self.kin.deaths(), look, |_| {
                    Ok(None)
                })
        {}
        let place = row.grant.load(Ordering::Relaxed);
        (place != 0).then_some(Place::from_word(place))
    }

    /// Tells the pool something.
    pub(super) fn notify(&mut self, notice: Notice) {
        let row = &self.row;
        if self.notices.room(&row.lane) == 0 {
            let notices = &mut self.notices;
            let mut look = || -> Result<Option<()>, std::convert::Infallible> {
                Ok((notices.room(&row.lane) > 0).then_some(()))
            };
            while let Ok(None) = row.lane.full.wait(
                &mut self.patience,
                None,
                self.kin.deaths(),
                &mut look,
                |_| Ok(None),
            ) {}
        }
        let payload = self.notices.payload(&row.notices, 0);
        for (to, word) in payload.iter().zip(notice.words()) {
            to.store(word, Ordering::Relaxed);
        }
        self.notices.publish(&row.notices, 1);
        self.control.page.results.notify_one();
    }

    /// Tells the pool that this worker is ready, or why it is not.
    pub(super) fn report(&mut self, failure: Option<Failure>) {
        match failure {
            None => self.notify(Notice::Ready),
            Some(failure) => {
                let record = self.record(&failure);
                self.notify(Notice::NotReady { record });
            }
        }
    }

    /// To be called before this worker ends of its own accord, perhaps with chunks of its ticket's job not
    /// leased: the pool finds them by the ticket.
    pub(super) fn leave(&mut self) {
        self.name_nothing();
    }

    /// The memory at a place, and where in it the place begins. `None` if it is not there.
    pub(super) fn bytes(&mut self, place: Place, len: u64) -> Option<(Bytes, usize)> {
        let bytes = match usize::from(place.extent).checked_sub(1) {
            None => self.control.inline().clone(),
            Some(extent) => self.extent(extent)?,
        };
        let end = place.offset.checked_add(len)?;
        (end <= bytes.len() as u64).then_some((bytes, place.offset as usize))
    }

    fn extent(&mut self, extent: usize) -> Option<Bytes> {
        let page = &self.control.page;
        let epoch = page.epoch.load(Ordering::Acquire);
        if epoch != self.epoch {
            // Some extent was given back: let go of all that are not what they were.
            self.epoch = epoch;
            for (known, its) in self.extents.iter_mut().zip(&page.extents) {
                let stamp = its.stamp.load(Ordering::Acquire);
                if known.as_ref().is_some_and(|(seen, _)| *seen != stamp) {
                    *known = None;
                }
            }
        }
        let its = page.extents.get(extent)?;
        let stamp = its.stamp.load(Ordering::Acquire);
        let known = self.extents.get(extent).and_then(Option::as_ref);
        if let Some((_, bytes)) = known.filter(|(seen, _)| *seen == stamp) {
            return Some(bytes.clone());
        }
        let segment = segment_of(its)?;
        let bytes = segment.bytes(0, segment.len() as u64).ok()?;
        if self.extents.len() <= extent {
            self.extents.resize_with(extent + 1, || None);
        }
        self.extents[extent] = Some((stamp, bytes.clone()));
        Some(bytes)
    }

    /// Copies `len` bytes from a place into the scratch.
    pub(super) fn load(&mut self, place: Place, len: u64) -> bool {
        let Some((bytes, at)) = self.bytes(place, len) else {
            return false;
        };
        let Ok(len) = usize::try_from(len) else {
            return false;
        };
        self.scratch.clear();
        bytes.append_to(at, len, &mut self.scratch);
        true
    }

    /// The context of the job, decoded once and kept.
    pub(super) fn context<C: Message>(&mut self) -> Result<Rc<C>, Failure> {
        let ticket = self.current.ticket;
        let place = self.cell_of(ticket).job().context.load(Ordering::Relaxed);
        let unreadable = |error| Failure::Decode(What::Context, error);
        if place == 0 {
            if let Ok(nothing) = Rc::clone(&self.nothing).downcast() {
                return Ok(nothing);
            }
            return message::decode::<C>(&[]).map(Rc::new).map_err(unreadable);
        }
        let place = Place::from_word(place);
        let (name, len) = self.head(place)?;
        let known = self.contexts.iter().find(|(known, _)| *known == name);
        if let Some(context) = known.and_then(|(_, context)| Rc::clone(context).downcast().ok()) {
            return Ok(context);
        }
        let context = Rc::new(self.body::<C>(place, len)?.map_err(unreadable)?);
        self.contexts.truncate(CONTEXTS - 1);
        self.contexts
            .insert(0, (name, Rc::clone(&context) as Rc<dyn Any>));
        Ok(context)
    }

    /// The array that the chunk's items lie in; the last one is kept.
    pub(super) fn array<A>(&mut self) -> Result<Rc<Frozen<A>>, Failure>
    where
        A: NoUninit + CheckedBitPattern,
    {
        let place = self.current.input;
        let (name, len) = self.head(place)?;
        let known = self.array.as_ref().filter(|(known, _)| *known == name);
        if let Some(array) = known.and_then(|(_, array)| Rc::clone(array).downcast().ok()) {
            return Ok(array);
        }
        let array = self.body::<Frozen<A>>(place, len)?;
        let array = array.map_err(|error| Failure::Decode(What::Arguments, error))?;
        let array = Rc::new(array);
        self.array = Some((name, Rc::clone(&array) as Rc<dyn Any>));
        Ok(array)
    }

    /// Name and length of a value that is decoded once.
    fn head(&mut self, place: Place) -> Result<(Name, u64), Failure> {
        let (bytes, at) = self.bytes(place, HEAD).ok_or_else(lost)?;
        let mut head = [0; HEAD as usize];
        bytes.copy_out(at, &mut head);
        let [name, more, len] = bytemuck::cast::<[u8; HEAD as usize], [u64; 3]>(head);
        Ok(([name, more], len))
    }

    fn body<T: Message>(
        &mut self,
        place: Place,
        len: u64,
    ) -> Result<Result<T, DecodeError>, Failure> {
        if !self.load(place.after(HEAD), len) {
            return Err(lost());
        }
        Ok(message::decode::<T>(&self.scratch))
    }
}

fn lost() -> Failure {
    let reason = "it is not where the pool's memory says that it is";
    Failure::Decode(What::Context, DecodeError::Refused(reason.to_owned()))
}

impl Hunter {
    /// A ticket, if there is one and I am the quickest.
    #[inline]
    fn look(&mut self, control: &Control, row: &Seat) -> Result<Option<Hunt>, SegmentError> {
        let page = &control.page;
        let Some(payload) = self.tickets.peek(&page.lane, &page.tickets)? else {
            let closing = page.closing.load(Ordering::Relaxed) != 0;
            return Ok(closing.then_some(Hunt::Over));
        };
        let word = payload[0].load(Ordering::Relaxed);
        let before = row.now.load(Ordering::Relaxed);
        let none = Naming {
            item: Naming::NONE,
            turn: self.turn,
        };
        row.item.store(none.word(), Ordering::Relaxed);
        // Named before it is taken: if I die in between, the pool offers the ticket's job once more.
        row.ticket.store(word, Ordering::Release);
        row.now.store(job::AT_WORK, Ordering::Relaxed);
        if !self.tickets.take(&page.lane, 1) {
            row.now.store(before, Ordering::Relaxed);
            return Ok(None);
        }
        Ok(Ticket::from_word(word).map(Hunt::Ticket))
    }
}

/// The segment of an extent.
fn segment_of(extent: &Extent) -> Option<Segment> {
    let words = extent.handle.iter();
    let bytes: Vec<u8> = words
        .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
        .collect();
    let len = usize::from(bytes[0]);
    let segment = message::decode::<Travelling>(bytes.get(1..1 + len)?).ok()?;
    segment.0.expect(ARENA).ok()?;
    Some(segment.0)
}

/// The handle of an extent, as it stands in the pool's segment.
pub(super) fn handle_of(segment: &Segment) -> Option<[u64; 7]> {
    let mut bytes = [0; 56];
    let mut room = &mut bytes[1..];
    // The pool keeps its extents open for as long as they stand there, so nothing is to be kept for the way.
    let (len, _) = handle::collect(handle::Transport::Socket, || {
        message::encode(&Travelling(segment.clone()), &mut room)
    });
    bytes[0] = len.ok().filter(|len| *len < 56)? as u8;
    let mut words = [0; 7];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes.try_into().map_or(0, u64::from_ne_bytes);
    }
    Some(words)
}

/// Writes one after another into a stretch of shared memory, as far as it goes.
pub(super) struct Stretch<'a> {
    bytes: &'a Bytes,
    at: usize,
    left: usize,
}

impl<'a> Stretch<'a> {
    /// `len` bytes from `at` on; the caller has checked that they are inside.
    pub(super) fn new(bytes: &'a Bytes, at: usize, len: usize) -> Stretch<'a> {
        Stretch {
            bytes,
            at,
            left: len,
        }
    }
}

impl Sink for Stretch<'_> {
    #[inline(always)]
    fn put(&mut self, from: &[u8]) {
        let fits = from.len().min(self.left);
        self.bytes.copy_in(self.at, &from[..fits]);
        self.at += fits;
        self.left -= fits;
    }

    #[inline(always)]
    fn put_word(&mut self, word: u64, size: usize) {
        let bytes = word.to_ne_bytes();
        if size <= self.left {
            // A copy of a length known when compiling is a store, not a call.
            self.bytes.copy_in(self.at, &bytes[..size]);
            self.at += size;
            self.left -= size;
        } else {
            self.put(&bytes[..size]);
        }
    }
}

/// The bytes ended before they should.
pub(super) fn truncated(needed: u64, left: u64) -> DecodeError {
    DecodeError::Truncated {
        needed: usize::try_from(needed).unwrap_or(usize::MAX),
        left: usize::try_from(left).unwrap_or(usize::MAX),
    }
}
