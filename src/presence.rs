//! How a VM is seen from outside: its name, its socket, and who waits to hear that it runs.
//!
//! A VM that was given no name and no socket gets both only when its guest has run for a moment, so that they do not take
//! its time; and where the host has no place for them it does without.

use std::cell::{OnceCell, RefCell};
use std::error::Error;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::rc::Rc;

use api::{Limits, Server, StartTimes};
use vmm::controller::Controller;

use crate::args::ControlArgs;
use crate::detach::Report;
use crate::name::Name;

/// One VM as others see it.
pub(crate) struct Presence {
    // Dropped in this order: the socket is in the folder.
    server: RefCell<Option<Server>>,
    name: OnceCell<Name>,
    id: String,
    /// The name was given and not invented.
    named: bool,
    report: Option<Report>,
}

impl Presence {
    /// A VM that runs where it was started, and is called `id` or, without one, something.
    pub(crate) fn new(id: Option<&str>) -> Self {
        Self {
            server: RefCell::default(),
            name: OnceCell::new(),
            id: id.map_or_else(crate::name::invent, str::to_owned),
            named: id.is_some(),
            report: None,
        }
    }

    /// A VM in the background, which is called `id`; who waits for it hears by `report`.
    pub(crate) fn detached(id: String, name: Name, report: Report) -> Self {
        Self { server: RefCell::default(), name: name.into(), id, named: true, report: Some(report) }
    }

    /// What it is called.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// It runs in the background.
    pub(crate) fn is_detached(&self) -> bool {
        self.report.is_some()
    }

    /// Takes the name and makes the socket that were asked for, before there is a VM, and has the rest made when the guest
    /// runs.
    pub(crate) fn appear(
        self: &Rc<Self>,
        controller: &mut Controller,
        control: &ControlArgs,
        start_times: &StartTimes,
        limits: Limits,
        can_start: bool,
    ) -> Result<(), Box<dyn Error>> {
        if self.name.get().is_none() && (self.named || control.api_sock.is_some()) {
            match Name::take(&self.id) {
                Ok(name) => drop(self.name.set(name)),
                Err(error) if self.named => return Err(format!("--id {}: {error}", self.id).into()),
                Err(error) => log::debug!("the VM has no folder: {error}"),
            }
        }
        if let Some(path) = &control.api_sock {
            self.listen(controller, path, limits.clone())?;
            if let Some(server) = &*self.server.borrow() {
                server.metrics().started(start_times);
            }
            self.link(path);
            if !can_start {
                self.tell();
            }
        }
        let listens = !control.no_api;
        if listens {
            controller.keep_console();
        }
        let me = Rc::clone(self);
        let settle = move |controller: &mut Controller| {
            me.settle(|name| {
                if listens
                    && me.server.borrow().is_none()
                    && let Err(error) = me.listen(controller, &name.socket(), limits)
                {
                    let level = if me.named { log::Level::Warn } else { log::Level::Debug };
                    log::log!(level, "nobody can ask the VM by its name: {}", crate::chain(&*error));
                }
            });
        };
        // Who gave a name or a socket, or waits for the name, is about to use it.
        if self.named || control.api_sock.is_some() {
            controller.when_started(settle);
        } else {
            controller.when_settled(settle);
        }
        Ok(())
    }

    /// The guest runs: takes a name if there is none yet, has `listen` make a socket there, and tells who waits.
    fn settle(&self, listen: impl FnOnce(&Name)) {
        if self.name.get().is_none() {
            match Name::take(&self.id) {
                Ok(name) => drop(self.name.set(name)),
                Err(error) => log::debug!("the VM has no folder: {error}"),
            }
        }
        if let Some(name) = self.name.get() {
            listen(name);
        }
        self.tell();
    }

    fn listen(&self, controller: &mut Controller, path: &Path, limits: Limits) -> Result<(), Box<dyn Error>> {
        let server = Server::start(path, controller.remote()?, limits)?;
        controller.measure("api_server", server.metrics());
        controller.listen(server.listener());
        self.server.replace(Some(server));
        Ok(())
    }

    /// Has the VM's folder name a socket that is elsewhere.
    fn link(&self, socket: &Path) {
        let Some(name) = self.name.get() else { return };
        if let Err(error) = std::path::absolute(socket).and_then(|socket| symlink(socket, name.socket())) {
            log::warn!("nobody can ask the VM by its name: {error}");
        }
    }

    fn tell(&self) {
        if let Some(report) = &self.report {
            report.started(&self.id);
        }
    }

    /// The VM has ended: gives the answers that are due, and removes the socket.
    pub(crate) fn fall_silent(&self) {
        drop(self.server.take());
    }

    /// It has failed. A VM in the background leaves its folder behind with the reason, unless who started it hears that.
    pub(crate) fn fail(&self, error: &str) {
        log::error!("{error}");
        if let (Some(report), Some(name)) = (&self.report, self.name.get())
            && !report.failed(error)
        {
            name.leave(error);
        }
    }
}
