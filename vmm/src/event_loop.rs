//! The main thread: device notifications, the console and signals, one at a time.

use std::cell::Cell;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

use devices::virtio::device::{DeviceEvent, Trigger};
use devices::virtio::transport::core::TransportCore;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};

use crate::console::{Input, Request as ConsoleRequest};
use crate::signals::{Signal, Signals};
use crate::vcpu::{GuestEvent, GuestEvents};

/// Something that the controller has to decide on.
#[derive(Debug)]
pub(crate) enum LoopEvent {
    /// The guest said its last word.
    Guest(GuestEvent),
    /// The user typed `Ctrl-A x`.
    Quit,
    /// The process was asked to end by this signal.
    Terminate(i32),
}

/// What was found in one round of the loop.
#[derive(Clone, Default)]
struct Found(Rc<Cell<Option<LoopEvent>>>);

impl Found {
    /// Of several events in a round, one from outside counts: a guest that resets all the time must not hide a SIGTERM.
    fn note(&self, event: LoopEvent) {
        let event = match self.0.take() {
            Some(outside @ (LoopEvent::Quit | LoopEvent::Terminate(_))) => outside,
            _ => event,
        };
        self.0.set(Some(event));
    }

    fn take(&self) -> Option<LoopEvent> {
        self.0.take()
    }
}

/// Watches descriptors and hands each event to what it belongs to.
pub(crate) struct EventLoop {
    manager: EventManager<Box<dyn MutEventSubscriber>>,
    found: Found,
}

/// What the loop watches for one VM.
pub(crate) struct Watched {
    /// The guest's last word.
    pub guest: Arc<GuestEvents>,
    /// Virtio devices.
    pub virtio: Vec<Arc<TransportCore>>,
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
        for transport in watched.virtio {
            manager.add_subscriber(Box::new(VirtioWatch(transport)));
        }
        manager.add_subscriber(Box::new(ProcessWatch {
            signals,
            input: watched.input,
            found: found.clone(),
        }));
        Ok(Self { manager, found })
    }

    /// Serves devices until there is something to decide.
    ///
    /// # Errors
    /// What epoll said.
    pub(crate) fn run(&mut self) -> io::Result<LoopEvent> {
        loop {
            if let Some(event) = self.found.take() {
                return Ok(event);
            }
            self.manager.run().map_err(|error| io::Error::other(error.to_string()))?;
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

struct VirtioWatch(Arc<TransportCore>);

/// Marks an event's number as that of a backend and not of a queue.
const BACKEND: u32 = 1 << 31;

impl MutEventSubscriber for VirtioWatch {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        for (event, queue) in self.0.queue_events().iter().zip(0u32..) {
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
