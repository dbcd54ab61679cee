//! A message for each virtqueue and one for the configuration, as the driver assigns them to MSI-X vectors.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use crate::pci::msix::Msix;
use crate::state::StateError;
use crate::virtio::transport::core::Signal;

/// VIRTIO_MSI_NO_VECTOR: no message is sent (virtio 1.3, 4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;
/// Bits of the ISR status (4.1.4.5).
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// The interrupts of a virtio function.
///
/// There is no interrupt line. A driver that does not use MSI-X can poll the ISR status, which is set for it alone.
pub(super) struct PciSignal {
    msix: Msix,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    isr: AtomicU8,
}

impl PciSignal {
    pub(super) fn new(msix: Msix, queues: usize) -> Self {
        Self {
            msix,
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            isr: AtomicU8::new(0),
        }
    }

    pub(super) fn msix(&self) -> &Msix {
        &self.msix
    }

    /// The ISR status, which reading clears.
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::SeqCst)
    }

    /// config_msix_vector.
    pub(super) fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::SeqCst)
    }

    /// Sets config_msix_vector; one that the table does not have reads back as none.
    pub(super) fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(self.existing(vector), Ordering::SeqCst);
    }

    /// queue_msix_vector of virtqueue `queue`.
    pub(super) fn queue_vector(&self, queue: u32) -> u16 {
        self.of_queue(queue).map_or(NO_VECTOR, |vector| vector.load(Ordering::SeqCst))
    }

    /// Sets queue_msix_vector of virtqueue `queue`; one that the table does not have reads back as none.
    pub(super) fn set_queue_vector(&self, queue: u32, vector: u16) {
        if let Some(current) = self.of_queue(queue) {
            current.store(self.existing(vector), Ordering::SeqCst);
        }
    }

    /// config_msix_vector, queue_msix_vector of each virtqueue, and the ISR status, which stays.
    pub(super) fn save(&self) -> (u16, Vec<u16>, u8) {
        let Self { msix: _, config_vector: _, queue_vectors, isr } = self;
        let vectors = queue_vectors.iter().map(|vector| vector.load(Ordering::SeqCst)).collect();
        (self.config_vector(), vectors, isr.load(Ordering::SeqCst))
    }

    /// Takes over what [`save`](Self::save) gave.
    ///
    /// # Errors
    /// When there are no such vectors or causes, or not so many virtqueues.
    pub(super) fn restore(&self, config: u16, queues: &[u16], isr: u8) -> Result<(), StateError> {
        let (here, there) = (self.queue_vectors.len(), queues.len());
        if here != there {
            return Err(StateError::new(format!(
                "the state has vectors of {there} queues, and there are {here}"
            )));
        }
        if let Some(vector) =
            queues.iter().chain([&config]).find(|vector| self.existing(**vector) != **vector)
        {
            let all = self.msix.vectors();
            return Err(StateError::new(format!("no interrupt has vector {vector}: there are {all}")));
        }
        if isr & !(ISR_QUEUE | ISR_CONFIG) != 0 {
            return Err(StateError::new(format!("no ISR status is {isr:#x}")));
        }
        self.config_vector.store(config, Ordering::SeqCst);
        for (to, from) in self.queue_vectors.iter().zip(queues) {
            to.store(*from, Ordering::SeqCst);
        }
        self.isr.store(isr, Ordering::SeqCst);
        Ok(())
    }

    fn of_queue(&self, queue: u32) -> Option<&AtomicU16> {
        self.queue_vectors.get(usize::try_from(queue).ok()?)
    }

    fn existing(&self, vector: u16) -> u16 {
        if vector < self.msix.vectors() { vector } else { NO_VECTOR }
    }

    fn raise(&self, cause: u8, vector: u16) -> io::Result<()> {
        if self.msix.enabled() {
            return self.msix.signal(vector);
        }
        self.isr.fetch_or(cause, Ordering::SeqCst);
        Ok(())
    }
}

impl Signal for PciSignal {
    fn signal_queue(&self, queue: u16) -> io::Result<()> {
        self.raise(ISR_QUEUE, self.queue_vector(queue.into()))
    }

    fn signal_config_change(&self) -> io::Result<()> {
        self.raise(ISR_CONFIG, self.config_vector())
    }

    fn reset(&self) {
        let Self { msix, config_vector, queue_vectors, isr } = self;
        msix.clear_pending();
        std::iter::once(config_vector)
            .chain(queue_vectors)
            .for_each(|vector| vector.store(NO_VECTOR, Ordering::SeqCst));
        isr.store(0, Ordering::SeqCst);
    }
}
