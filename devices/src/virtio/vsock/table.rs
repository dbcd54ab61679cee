//! All connections: by their ports for the guest's packets, by their places for the host's events, and in turn for what
//! they have to send.

use std::collections::{HashMap, VecDeque};

use super::connection::Connection;
use super::packet::Ports;

/// Connections that a guest can have at a time, those of both directions together. One more is reset.
pub const MAX_CONNECTIONS: usize = 1023;
/// Bytes that a guest may have on the way to one host program, before that program reads them: `buf_alloc`.
pub(super) const WINDOW: u32 = 256 << 10;
/// The same for connections that come when many are there.
pub(super) const SMALL_WINDOW: u32 = 32 << 10;
/// Bytes that all windows of the larger kind come to at most. With the smaller ones beside them a guest can have no more
/// than twice as much kept for it.
const MAX_LARGE_WINDOWS: u64 = 32 << 20;

#[derive(Debug, Default)]
struct Slot {
    connection: Option<Connection>,
    /// How often the place was given away: what epoll still says of an earlier connection is not taken for this one's.
    generation: u32,
    /// It is in `ready`.
    queued: bool,
}

/// All connections of a device.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u16>,
    by_ports: HashMap<Ports, u16>,
    /// Who has something to send, in the order of their turns.
    ready: VecDeque<u16>,
    large_windows: u64,
}

impl Table {
    /// Connections that there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= MAX_CONNECTIONS
    }

    /// The window that the next connection gets.
    pub(super) fn window(&self) -> u32 {
        if self.large_windows + u64::from(WINDOW) <= MAX_LARGE_WINDOWS { WINDOW } else { SMALL_WINDOW }
    }

    /// Takes in a connection whose ports no other has. `None` when the table is full.
    pub(super) fn insert(&mut self, connection: Connection) -> Option<u16> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < MAX_CONNECTIONS => {
                self.slots.push(Slot::default());
                self.slots.len() as u16 - 1
            }
            None => return None,
        };
        self.by_ports.insert(connection.ports(), index);
        if connection.window() == WINDOW {
            self.large_windows += u64::from(WINDOW);
        }
        self.slots.get_mut(usize::from(index))?.connection = Some(connection);
        Some(index)
    }

    /// Forgets a connection.
    pub(super) fn remove(&mut self, index: u16) {
        self.detach(index);
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        let Some(connection) = slot.connection.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        if connection.window() == WINDOW {
            self.large_windows -= u64::from(WINDOW);
        }
        self.free.push(index);
    }

    /// Lets another connection have the ports of this one.
    pub(super) fn detach(&mut self, index: u16) {
        if let Some(ports) = self.get(index).map(Connection::ports)
            && self.by_ports.get(&ports) == Some(&index)
        {
            self.by_ports.remove(&ports);
        }
    }

    pub(super) fn get(&self, index: u16) -> Option<&Connection> {
        self.slots.get(usize::from(index))?.connection.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u16) -> Option<&mut Connection> {
        self.slots.get_mut(usize::from(index))?.connection.as_mut()
    }

    /// The place of the connection with these ports.
    pub(super) fn find(&self, ports: Ports) -> Option<u16> {
        self.by_ports.get(&ports).copied()
    }

    /// The places of all connections.
    pub(super) fn indices(&self) -> Vec<u16> {
        (0..).zip(&self.slots).filter(|(_, slot)| slot.connection.is_some()).map(|(index, _)| index).collect()
    }

    /// What epoll calls a connection: below 2^48.
    pub(super) fn token(&self, index: u16) -> u64 {
        let generation = self.slots.get(usize::from(index)).map_or(0, |slot| slot.generation);
        u64::from(generation) << 16 | u64::from(index)
    }

    /// The connection that epoll means, unless it is gone.
    pub(super) fn find_token(&self, token: u64) -> Option<u16> {
        let index = token as u16;
        (self.token(index) == token && self.get(index).is_some()).then_some(index)
    }

    /// Gives a connection a turn, after all that have one coming.
    pub(super) fn make_ready(&mut self, index: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(index))
            && !slot.queued
        {
            slot.queued = true;
            self.ready.push_back(index);
        }
    }

    /// Whether a connection has a turn coming.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whose turn it is.
    pub(super) fn next_ready(&mut self) -> Option<u16> {
        let index = self.ready.pop_front()?;
        if let Some(slot) = self.slots.get_mut(usize::from(index)) {
            slot.queued = false;
        }
        Some(index)
    }
}
