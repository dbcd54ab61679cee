//! A guest that panics, faults or resets: what the user is told, and what the VM's exit code is.

use std::sync::atomic::{AtomicU32, Ordering};

use devices::legacy::pvpanic::Panic;

use super::{Controller, Ending, Event, OnReset, Origin};
use crate::event_loop::LoopEvent;
use crate::vcpu::GuestEvent;
use crate::vm::Vm;

/// Lines about what a guest can do as often as it likes, in the life of this process.
const MAX_NOTES: u32 = 8;
static NOTES: AtomicU32 = AtomicU32::new(0);

/// The exit codes of what a guest does. What has one ends the VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitOn {
    /// Its kernel panicked, and says so (pvpanic). Without a code the guest decides what comes of it.
    pub panic: Option<u8>,
    /// A fault that no handler took.
    pub triple_fault: Option<u8>,
    /// It reset itself.
    pub reset: Option<u8>,
}

impl ExitOn {
    /// The code for `ending`, if it has one.
    pub fn code(&self, ending: Ending) -> Option<u8> {
        match ending {
            Ending::Panic => self.panic,
            Ending::TripleFault => self.triple_fault,
            Ending::Reset => self.reset,
            Ending::PowerOff | Ending::Saved | Ending::Quit | Ending::Signal(_) => None,
        }
    }
}

impl Controller {
    /// Whether the guest boots again after `event`.
    pub(super) fn restarts_after(&self, event: &GuestEvent) -> bool {
        let has_code = match event {
            GuestEvent::Reset => self.options.exit_on.reset.is_some(),
            GuestEvent::TripleFault => self.options.exit_on.triple_fault.is_some(),
            GuestEvent::PowerOff | GuestEvent::Panic | GuestEvent::Fault(_) => return false,
        };
        self.options.on_reset == OnReset::Restart && !has_code
    }

    /// Tells the user why the guest ends, where that is no power-off and no error.
    pub(super) fn notify_of(&self, event: &LoopEvent, vm: &Vm) {
        let LoopEvent::Guest(event) = event else { return };
        match event {
            // Told as an error.
            GuestEvent::TripleFault if !vm.memory_is_whole() && !self.restarts_after(event) => {}
            GuestEvent::TripleFault => note(self.notify, self.triple_fault(vm)),
            GuestEvent::Reset if !self.restarts_after(event) => (self.notify)("the guest reset itself"),
            // The listener has told of a panic, and the error tells of a fault.
            GuestEvent::Reset | GuestEvent::Panic | GuestEvent::PowerOff | GuestEvent::Fault(_) => {}
        }
    }

    /// What a triple fault says, which many a kernel takes that is not where it expects to be.
    fn triple_fault(&self, vm: &Vm) -> &'static str {
        match self.origin {
            _ if vm.devices().has_written() => "the guest took a triple fault",
            Origin::Booted => {
                "the guest took a triple fault before it wrote anything: its kernel may be damaged, need other alignment or \
                 hardware, or be none for x86-64; --cmdline with earlyprintk=serial may show more"
            }
            Origin::Restored => {
                "the guest took a triple fault before it wrote anything: the memory may be that of another snapshot than the state"
            }
        }
    }

    /// Has a panic of the guest's kernel told to everybody, and end the VM if it has an exit code.
    pub(super) fn watch_panic(&self, vm: &Vm) {
        let (told, notify, guest) = (self.told.clone(), self.notify, vm.events().clone());
        let ends = self.options.exit_on.panic.is_some();
        vm.devices().pvpanic.listen(Box::new(move |panic| {
            told.tell_of_guest(&Event::Panic);
            match panic {
                Panic::Panicked => note(notify, "the guest panicked (pvpanic)"),
                Panic::CrashLoaded => {
                    note(notify, "the guest panicked (pvpanic), and its crash kernel takes over");
                }
            }
            if ends && panic == Panic::Panicked {
                guest.report(GuestEvent::Panic);
            }
        }));
    }
}

/// Tells the user `line`, but not more lines than a user would read.
fn note(notify: fn(&str), line: &str) {
    if NOTES
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |notes| (notes < MAX_NOTES).then_some(notes + 1))
        .is_ok()
    {
        notify(line);
    }
}
