//! Serving a virtqueue in shares, so that no queue keeps the event loop from the others.

use super::device::DeviceError;
use super::queue::{Chain, VirtQueue};

impl VirtQueue {
    /// Hands each available chain to `each`, until none is left or `share` is used up; what is left then comes in a
    /// later call of the device's `process`. `each` gives the chain back, and says how much of the share it took:
    /// 1 at least, whatever it says.
    ///
    /// # Errors
    /// When the driver broke the ring or a chain, and what `each` says.
    pub fn serve(
        &mut self,
        share: usize,
        mut each: impl FnMut(&mut Self, Chain) -> Result<usize, DeviceError>,
    ) -> Result<(), DeviceError> {
        self.disable_notifications()?;
        let mut used = 0_usize;
        loop {
            while used < share {
                let Some(chain) = self.pop()? else { break };
                used = used.saturating_add(each(self, chain)?.max(1));
            }
            if used >= share {
                self.continue_later();
                break;
            }
            if !self.enable_notifications()? {
                break;
            }
            // Counts too: a driver may move the index to and fro.
            used += 1;
        }
        self.notify_driver()
    }
}
