//! The main thread: device notifications, the console and signals, one at a time.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use devices::virtio::device::{DeviceEvent, Trigger};
use devices::virtio::transport::core::TransportCore;
use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};

use crate::console::{Input, Request as ConsoleRequest};
use crate::signals::{Signal, Signals};
use crate::vcpu::{GuestEvent, GuestEvents};

/// Something that the controller has to see to.
#[derive(Debug)]
pub(crate) enum Wake {
    /// What may be the VM's end.
    Ends(LoopEvent),
    /// Another thread asks for something.
    Requests,
    /// It is time for a line of metrics.
    Metrics,
    /// The process was stopped, and goes on.
    Continued,
}

/// What may be the VM's end.
#[derive(Debug)]
pub(crate) enum LoopEvent {
    /// The guest said its last word.
    Guest(GuestEvent),
    /// Nobody serves the guest's memory any more.
    MemoryLost,
    /// The user typed `Ctrl-A x`.
    Quit,
    /// The process was asked to end by this signal.
    Terminate(i32),
    /// The VM was saved, and is to end by that.
    Saved,
}

/// What was found in one round of the loop.
#[derive(Clone, Default)]
struct Found {
    end: Rc<Cell<Option<LoopEvent>>>,
    requests: Rc<Cell<bool>>,
    metrics: Rc<Cell<bool>>,
    memory_lost: Rc<Cell<bool>>,
    continued: Rc<Cell<bool>>,
}

impl Found {
    /// Of several events in a round, one from outside counts: a guest that resets all the time must not hide a SIGTERM.
    fn note(&self, event: LoopEvent) {
        let event = match self.end.take() {
            Some(outside @ (LoopEvent::Quit | LoopEvent::Terminate(_))) => outside,
            _ => event,
        };
        self.end.set(Some(event));
    }

    fn take(&self) -> Option<Wake> {
        // The guest may have had its last word without the pages that do not come.
        let lost = self.memory_lost.take().then_some(LoopEvent::MemoryLost);
        let end = self.end.take().or(lost).map(Wake::Ends);
        end.or_else(|| self.continued.take().then_some(Wake::Continued))
            .or_else(|| self.requests.take().then_some(Wake::Requests))
            .or_else(|| self.metrics.take().then_some(Wake::Metrics))
    }
}

/// Watches descriptors and hands each event to what it belongs to.
pub(crate) struct EventLoop {
    manager: EventManager<Box<dyn MutEventSubscriber>>,
    found: Found,
    virtio: Vec<Arc<TransportCore>>,
    /// Those of `virtio` that are watched.
    watched: Vec<SubscriberId>,
}

/// What the loop watches for one VM.
pub(crate) struct Watched {
    /// The guest's last word.
    pub guest: Arc<GuestEvents>,
    /// Virtio devices.
    pub virtio: Vec<Arc<TransportCore>>,
    /// Readable when another thread asks for something.
    pub requests: Option<RawFd>,
    /// Readable when it is time for a line of metrics.
    pub metrics_timer: Option<RawFd>,
    /// Readable when the process is gone that serves the guest's memory.
    pub memory_lost: Option<RawFd>,
    /// Standard input, when the console has it.
    pub input: Option<Input>,
}

impl EventLoop {
    /// A loop that watches what belongs to one VM, and `signals`.
    ///
    /// # Errors
    /// What epoll said.
    pub(crate) fn new(watched: Watched, signals: Rc<Signals>) -> io::Result<Self> {
        let mut manager: EventManager<Box<dyn MutEventSubscriber>> =
            EventManager::new().map_err(|error| io::Error::other(error.to_string()))?;
        let found = Found::default();
        manager.add_subscriber(Box::new(GuestWatch { events: watched.guest, found: found.clone() }));
        if let Some(timer) = watched.metrics_timer {
            manager.add_subscriber(Box::new(FlagWatch { fd: timer, flag: found.metrics.clone() }));
        }
        if let Some(lost) = watched.memory_lost {
            manager.add_subscriber(Box::new(FlagWatch { fd: lost, flag: found.memory_lost.clone() }));
        }
        manager.add_subscriber(Box::new(ProcessWatch {
            signals,
            input: watched.input,
            found: found.clone(),
        }));
        let mut events = Self { manager, found, virtio: watched.virtio, watched: Vec::new() };
        if let Some(requests) = watched.requests {
            events.watch_requests(requests);
        }
        events.watch_devices();
        Ok(events)
    }

    /// Watches `requests`, which is readable when another thread asks for something, and was not watched so far.
    pub(crate) fn watch_requests(&mut self, requests: RawFd) {
        let flag = self.found.requests.clone();
        self.manager.add_subscriber(Box::new(FlagWatch { fd: requests, flag }));
    }

    /// Serves the virtio devices, from now on or again. What their descriptors said meanwhile is found then.
    pub(crate) fn watch_devices(&mut self) {
        if self.watched.is_empty() {
            let watch = |transport: &Arc<TransportCore>| -> Box<dyn MutEventSubscriber> {
                Box::new(VirtioWatch(Arc::clone(transport)))
            };
            self.watched =
                self.virtio.iter().map(|transport| self.manager.add_subscriber(watch(transport))).collect();
        }
    }

    /// Leaves the virtio devices alone, which do nothing of their own accord.
    pub(crate) fn ignore_devices(&mut self) {
        for id in self.watched.drain(..) {
            if let Err(error) = self.manager.remove_subscriber(id) {
                log::error!("a device cannot be left alone: {error:?}");
            }
        }
    }

    /// Serves devices until there is something for the controller to see to.
    ///
    /// # Errors
    /// What epoll said.
    pub(crate) fn run(&mut self) -> io::Result<Wake> {
        loop {
            if let Some(wake) = self.found.take() {
                return Ok(wake);
            }
            self.manager.run().map_err(|error| io::Error::other(error.to_string()))?;
        }
    }

    /// Serves devices like [`run`](Self::run), but no longer than until `end`, to the millisecond.
    ///
    /// # Errors
    /// What epoll said.
    pub(crate) fn run_until(&mut self, end: Instant) -> io::Result<Option<Wake>> {
        loop {
            if let Some(wake) = self.found.take() {
                return Ok(Some(wake));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let milliseconds = left.as_millis().max(1).try_into().unwrap_or(i32::MAX);
            let served = self.manager.run_with_timeout(milliseconds);
            served.map_err(|error| io::Error::other(error.to_string()))?;
        }
    }
}

fn watch(ops: &mut EventOps<'_>, events: Events) {
    if let Err(error) = ops.add(events) {
        log::error!("a descriptor cannot be watched: {error:?}");
    }
}

struct GuestWatch {
    events: Arc<GuestEvents>,
    found: Found,
}

impl MutEventSubscriber for GuestWatch {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, Events::new(self.events.wake(), EventSet::IN));
    }

    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        if let Some(event) = self.events.take() {
            self.found.note(LoopEvent::Guest(event));
        }
    }
}

/// Sets a flag when a descriptor is readable, which the controller empties.
struct FlagWatch {
    fd: RawFd,
    flag: Rc<Cell<bool>>,
}

impl MutEventSubscriber for FlagWatch {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, Events::new_raw(self.fd, EventSet::IN));
    }

    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        self.flag.set(true);
    }
}

struct VirtioWatch(Arc<TransportCore>);

/// Marks an event's number as that of a backend and not of a queue.
const BACKEND: u32 = 1 << 31;

impl MutEventSubscriber for VirtioWatch {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        for (event, queue) in self.0.watched_queue_events().iter().zip(0u32..) {
            // Each notification is an edge, so that nothing has to empty the eventfd.
            watch(ops, Events::with_data(event, queue, EventSet::IN | EventSet::EDGE_TRIGGERED));
        }
        for backend in self.0.backend_fds() {
            let interest = match backend.trigger {
                Trigger::Level => EventSet::IN,
                Trigger::Edge => EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED,
            };
            watch(ops, Events::with_data_raw(backend.fd, backend.token | BACKEND, interest));
        }
    }

    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        let number = events.data();
        self.0.process(if number & BACKEND == 0 {
            DeviceEvent::Queue(number as u16)
        } else {
            DeviceEvent::Backend(number & !BACKEND)
        });
    }
}

/// What comes from outside of the guest: signals and the console. They are one, because SIGCONT gives the terminal back.
struct ProcessWatch {
    signals: Rc<Signals>,
    input: Option<Input>,
    found: Found,
}

impl MutEventSubscriber for ProcessWatch {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, Events::new(&*self.signals, EventSet::IN));
        if let Some(input) = &mut self.input {
            input.init(ops);
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.fd() != self.signals.as_raw_fd() {
            if let Some(ConsoleRequest::Quit) =
                self.input.as_mut().and_then(|input| input.process(events, ops))
            {
                self.found.note(LoopEvent::Quit);
            }
            return;
        }
        match self.signals.read() {
            Some(Signal::Terminate(number)) => self.found.note(LoopEvent::Terminate(number)),
            Some(Signal::Stop) => {
                crate::console::restore_terminal();
                crate::signals::stop_process();
            }
            Some(Signal::Continue) => {
                self.found.continued.set(true);
                if let Some(input) = &mut self.input {
                    input.take_terminal(ops);
                }
            }
            Some(Signal::Resize) => {
                if let Some(input) = &self.input {
                    input.resize();
                }
            }
            None => {}
        }
    }
}
