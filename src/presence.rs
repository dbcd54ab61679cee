//! How a VM is seen from outside: its name, its socket, and who waits to hear that it runs.
//!
//! What need not be there before takes none of the guest's time: who gave a name finds the socket as soon as the guest runs,
//! and is answered when it has run for a moment. A VM that was given no name and no socket gets both only then, and where the
//! host has no place for them it does without.

use std::cell::{OnceCell, RefCell};
use std::error::Error;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::rc::Rc;

use api::{Limits, Server, Socket, StartTimes};
use vmm::controller::Controller;

use crate::args::ControlArgs;
use crate::detach::Report;
use crate::name::{Name, TakeError};

/// One VM as others see it.
pub(crate) struct Presence {
    // Dropped in this order: the socket is in the folder.
    server: RefCell<Option<Server>>,
    /// It is not served yet.
    socket: RefCell<Option<Socket>>,
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
            socket: RefCell::default(),
            name: OnceCell::new(),
            id: id.map_or_else(crate::name::invent, str::to_owned),
            named: id.is_some(),
            report: None,
        }
    }

    /// A VM in the background, which is called `id`; who waits for it hears by `report`.
    pub(crate) fn detached(id: String, name: Name, report: Report) -> Self {
        Self {
            server: RefCell::default(),
            socket: RefCell::default(),
            name: name.into(),
            id,
            named: true,
            report: Some(report),
        }
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
                // Whoever starts it there has its socket, or asks for none.
                Err(TakeError::NoFolder(error)) if control.api_sock.is_some() || control.no_api => {
                    log::warn!("rvmm ps does not show the VM: {error}");
                }
                Err(error) if self.named => return Err(format!("--id {}: {error}", self.id).into()),
                Err(error) => log::debug!("the VM has no folder: {error}"),
            }
        }
        if let Some(path) = &control.api_sock {
            self.serve(controller, Socket::bind(path)?, limits.clone())?;
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
        let wants_socket = listens && control.api_sock.is_none();
        // Who gave a name or a socket, or waits for the name, is about to use it.
        if self.named || control.api_sock.is_some() {
            let me = Rc::clone(self);
            controller.when_started(move |_| me.show(wants_socket));
        }
        let me = Rc::clone(self);
        controller.when_settled(move |controller| me.settle(controller, wants_socket, limits));
        Ok(())
    }

    /// The guest runs: takes a name if there is none yet, makes a socket there if one is wanted, and tells who waits.
    fn show(&self, wants_socket: bool) {
        if self.name.get().is_none() {
            match Name::take(&self.id) {
                Ok(name) => drop(self.name.set(name)),
                Err(error) => log::debug!("the VM has no folder: {error}"),
            }
        }
        if let Some(name) = self.name.get().filter(|_| wants_socket) {
            match Socket::bind(&name.socket()) {
                Ok(socket) => drop(self.socket.replace(Some(socket))),
                Err(error) => self.stays_alone(&error),
            }
        }
        self.tell();
    }

    /// The guest has run for a moment.
    fn settle(&self, controller: &mut Controller, wants_socket: bool, limits: Limits) {
        if self.name.get().is_none() {
            self.show(wants_socket);
        }
        if let Some(socket) = self.socket.take()
            && let Err(error) = self.serve(controller, socket, limits)
        {
            self.stays_alone(&*error);
        }
    }

    /// Its socket cannot be.
    fn stays_alone(&self, error: &dyn Error) {
        let level = if self.named { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "nobody can ask the VM by its name: {}", crate::chain(error));
    }

    fn serve(
        &self,
        controller: &mut Controller,
        socket: Socket,
        limits: Limits,
    ) -> Result<(), Box<dyn Error>> {
        let server = Server::start(socket, controller.remote()?, limits)?;
        controller.measure("api_server", server.metrics());
        controller.listen(server.listener());
        // Firecracker's clients wait for this line.
        log::info!("API server started.");
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
        drop(self.socket.take());
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
