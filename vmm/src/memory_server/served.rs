//! One VM whose memory is served.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::image::{Image, PAGE, Run};
use super::report::Counts;
use crate::memory::Used;
use crate::memory::handshake::Part;
use crate::memory::userfault::{Event, Userfault};
use crate::snapshot::working_set::MAX_RANGES;

/// Bytes around a page that was asked for that are given with it, aligned: a guest that reads one page of a file often
/// reads the next, and giving 16 takes far less than 16 times as long.
const AROUND: u64 = 64 << 10;
/// The same where there are zeroes, which take no memory.
const ZEROES_AROUND: u64 = 1 << 20;
/// Faults of a VM that can wait, far more than it has threads.
const MAX_WAITING: usize = 4096;

/// What is known of a page of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// Nothing was given.
    Missing,
    /// It was given.
    Given,
    /// The VM gave it back; it reads as zeroes.
    Removed,
}

/// What is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Snapshot,
    Zeroes,
}

/// How far giving came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// All is there, and this many bytes of it were not before.
    All(u64),
    /// The VM is about to give pages back and takes none meanwhile.
    Later,
}

/// What VMs are served with.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The snapshot.
    pub(super) image: Arc<Image>,
    /// What is sent before it is asked for: ranges in whole pages that lie in the snapshot.
    pub(super) working_set: Arc<[Used]>,
}

/// A VM's memory.
#[derive(Debug)]
pub(super) struct Served {
    uffd: Userfault,
    parts: Vec<Part>,
    plan: Plan,
    /// For each page of [`PAGE`] bytes, however large the VM's are.
    state: Vec<Page>,
    /// Offsets that somebody waits for.
    waiting: VecDeque<u64>,
    /// The range of the working set that is next, and how many bytes of it were seen to.
    next: usize,
    done: u64,
    /// What was asked for, in that order, if that is to be known.
    recorded: Option<Vec<Used>>,
    counts: Counts,
    buffer: Vec<u8>,
}

impl Served {
    pub(super) fn new(uffd: Userfault, parts: Vec<Part>, plan: Plan, record: bool) -> Self {
        let count = plan.image.len() / PAGE;
        Self {
            uffd,
            parts,
            plan,
            state: vec![Page::Missing; count as usize],
            waiting: VecDeque::new(),
            next: 0,
            done: 0,
            recorded: record.then(Vec::new),
            counts: Counts::default(),
            buffer: Vec::new(),
        }
    }

    pub(super) const fn uffd(&self) -> &Userfault {
        &self.uffd
    }

    /// What was given so far.
    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What was asked for, in that order.
    pub(super) fn take_recorded(&mut self) -> Option<Vec<Used>> {
        self.recorded.take()
    }

    /// Somebody waits for a page that could not be given yet.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// There is something to send.
    pub(super) fn sends_ahead(&self) -> bool {
        self.next < self.plan.working_set.len()
    }

    /// Gives what is waited for, as far as it goes; and if nothing is, a little of the working set.
    ///
    /// # Errors
    /// The VM has gone, does what it should not, or a file cannot be read: it cannot be served any more.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        let start = Instant::now();
        let events = self.uffd.events()?;
        if events.is_empty() && self.waiting.is_empty() {
            return self.send_ahead();
        }
        for event in events {
            self.note(event)?;
        }
        while let Some(offset) = self.waiting.front().copied() {
            if self.answer(offset)? == Given::Later {
                break;
            }
            self.waiting.pop_front();
        }
        self.counts.busy += start.elapsed();
        Ok(())
    }

    fn note(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Fault(address) => {
                let (part, offset) =
                    self.locate(address).ok_or_else(|| strange("a fault outside of its memory"))?;
                let page = offset / part.page_size * part.page_size;
                if self.waiting.len() == MAX_WAITING {
                    return Err(strange("more faults than it can have"));
                }
                self.waiting.push_back(page);
                self.counts.faults += 1;
            }
            Event::Remove(addresses) => {
                let outside = || strange("to give back what is not its memory");
                let (part, start) = self.locate(addresses.start).ok_or_else(outside)?;
                let whole = addresses.start.is_multiple_of(PAGE) && addresses.end.is_multiple_of(PAGE);
                if !whole || addresses.end <= addresses.start || addresses.end > part.addresses().end {
                    return Err(outside());
                }
                let len = addresses.end - addresses.start;
                self.mark(&(start..start + len), Page::Removed);
                self.counts.removed += len;
            }
            Event::Other(number) => {
                return Err(strange(&format!("event {number:#x}, which memory of VMs has not")));
            }
        }
        Ok(())
    }

    /// Gives the page at `offset`, which is waited for, with what is like it around.
    fn answer(&mut self, offset: u64) -> io::Result<Given> {
        let before = self.state_of(offset);
        let (window, content) = self.window(offset)?;
        let given = self.give(&window, content)?;
        match given {
            // It is there, and who waits for it was not woken by that.
            Given::All(0) => {
                let (part, address) = self.place(offset)?;
                self.uffd.wake(address, part.page_size)?;
            }
            Given::All(bytes) if content == Content::Snapshot => self.counts.asked += bytes,
            Given::All(bytes) => self.counts.zeroes += bytes,
            Given::Later => return Ok(Given::Later),
        }
        if before == Page::Missing
            && let Some(recorded) = &mut self.recorded
            && recorded.len() < MAX_RANGES
        {
            recorded.push(Used { range: window, written: false });
        }
        Ok(given)
    }

    /// Sends what is next of the working set and was not given yet, once.
    fn send_ahead(&mut self) -> io::Result<()> {
        while let Some(Used { range, .. }) = self.plan.working_set.get(self.next).cloned() {
            let mut rest = (range.start + self.done..range.end).step_by(PAGE as usize);
            let Some(offset) = rest.find(|offset| self.state_of(*offset) == Page::Missing) else {
                self.next += 1;
                self.done = 0;
                continue;
            };
            let (window, content) = self.window(offset)?;
            match self.give(&window, content)? {
                Given::Later => {}
                Given::All(bytes) => {
                    self.done = window.end.min(range.end) - range.start;
                    match content {
                        Content::Snapshot => self.counts.ahead += bytes,
                        Content::Zeroes => self.counts.zeroes += bytes,
                    }
                }
            }
            return Ok(());
        }
        Ok(())
    }

    /// The page at `offset` and what there is of the same kind around it, in the same state.
    fn window(&self, offset: u64) -> io::Result<(Range<u64>, Content)> {
        let (part, _) = self.place(offset)?;
        let state = self.state_of(offset);
        let run = self.plan.image.run(offset);
        let content = match (state, &run) {
            (Page::Removed, _) => Content::Zeroes,
            // Larger pages can have both; reading them tells.
            (_, Run::Hole(_)) if part.page_size == PAGE => Content::Zeroes,
            _ => Content::Snapshot,
        };
        let start = offset / part.page_size * part.page_size;
        if state == Page::Given || part.page_size > PAGE {
            return Ok((start..start + part.page_size, content));
        }
        let run = match (state, run) {
            (Page::Removed, _) => 0..u64::MAX,
            (_, Run::Data(range) | Run::Hole(range)) => range,
        };
        let around = if content == Content::Zeroes { ZEROES_AROUND } else { AROUND };
        let aligned = offset / around * around;
        let part = part.offsets();
        let first = aligned.max(run.start).max(part.start);
        let last = (aligned + around).min(run.end).min(part.end);
        let alike = |page: &u64| self.state_of(page * PAGE) == state;
        let before = (first / PAGE..start / PAGE).rev().take_while(alike).count() as u64;
        let behind = (start / PAGE..last / PAGE).take_while(alike).count() as u64;
        Ok((start - before * PAGE..start + behind * PAGE, content))
    }

    /// Gives all of `window`, in whole pages of one part; what is there already stays.
    fn give(&mut self, window: &Range<u64>, content: Content) -> io::Result<Given> {
        let (part, address) = self.place(window.start)?;
        let page_size = part.page_size;
        let by_zeroes = content == Content::Zeroes && page_size == PAGE;
        let len = (window.end - window.start) as usize;
        if !by_zeroes {
            self.buffer.resize(len, 0);
            match content {
                Content::Zeroes => self.buffer.fill(0),
                Content::Snapshot => drop(self.plan.image.read(window.start, &mut self.buffer)?),
            }
        }
        let (mut at, mut given) = (0, 0);
        while at < len as u64 {
            let filled = if by_zeroes {
                self.uffd.zero(address + at, len as u64 - at)
            } else {
                self.uffd.copy(address + at, self.buffer.get(at as usize..).unwrap_or_default())
            };
            let put = match filled {
                Ok(put) => put,
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => 0,
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(Given::Later),
                Err(error) => return Err(error),
            };
            given += put;
            let seen = put.max(page_size);
            // A page that the VM gives back may be there a moment longer.
            if put > 0 || self.state_of(window.start + at) == Page::Missing {
                self.mark(&(window.start + at..window.start + at + seen), Page::Given);
            }
            at += seen;
        }
        Ok(Given::All(given))
    }

    /// The part of memory that an address is in, and where it is in the snapshot.
    fn locate(&self, address: u64) -> Option<(&Part, u64)> {
        let part = self.parts.iter().find(|part| part.addresses().contains(&address))?;
        Some((part, part.offset + (address - part.base_host_virt_addr)))
    }

    /// The part of memory that has what is at `offset` of the snapshot, and its address.
    fn place(&self, offset: u64) -> io::Result<(&Part, u64)> {
        let part = self.parts.iter().find(|part| part.offsets().contains(&offset));
        let part = part.ok_or_else(|| strange("no memory for all of the snapshot"))?;
        Ok((part, part.base_host_virt_addr + (offset - part.offset)))
    }

    fn state_of(&self, offset: u64) -> Page {
        self.state.get((offset / PAGE) as usize).copied().unwrap_or(Page::Missing)
    }

    fn mark(&mut self, range: &Range<u64>, page: Page) {
        let pages = (range.start / PAGE) as usize..(range.end / PAGE) as usize;
        self.state.get_mut(pages).unwrap_or_default().fill(page);
    }
}

/// A VM that is not as it should be.
pub(super) fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the VM reports {what}"))
}
