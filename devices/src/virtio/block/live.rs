//! What changes while the guest runs: the file behind the disk, and the limits. Both are host's business; the caller holds
//! the device's lock.

use std::path::Path;
use std::sync::Arc;

use log::info;

use super::device::BlockDevice;
use super::engine::Target;
use super::error::BlockError;
use super::image::DiskImage;
use crate::rate_limiter::RateLimiterConfig;

impl BlockDevice {
    /// Puts the file at `path` behind the disk, as it was opened: read-only or writable, with or without the page cache. What
    /// is under way is finished on the old file, which is then closed; the guest is told of the new size. `path` may
    /// name the same file, for its new size.
    ///
    /// # Errors
    /// As for [`open`](Self::open). The old file is then still behind the disk, and nothing has changed.
    pub fn swap(&mut self, path: &Path) -> Result<(), BlockError> {
        let image = Arc::new(self.image.successor(path, self.purpose)?);
        match self.active.take() {
            None => {
                self.switch_to(image);
                self.config_changed = true;
            }
            Some(mut active) => {
                let target = Target { image: image.clone(), ..active.target.clone() };
                let engine = match self.new_engine(target.clone(), active.queue.size()) {
                    Ok(engine) => engine,
                    Err(source) => {
                        self.active = Some(active);
                        return Err(BlockError::NoIoUring { id: self.drive_id.clone(), source });
                    }
                };
                // A ring that the driver broke shows itself at its next use, too.
                let _ = self.finish_all(&mut active);
                (active.engine, active.target) = (engine, target);
                self.switch_to(image);
                active.interrupt.signal_config_change();
                // For what had to wait until the old file was done.
                active.queue.continue_later();
                self.active = Some(active);
            }
        }
        self.metrics.swaps.increment();
        info!("drive {} is now {}, {} bytes", self.drive_id, path.display(), self.size());
        Ok(())
    }

    fn switch_to(&mut self, image: Arc<DiskImage>) {
        self.limits.sectors = image.sectors();
        self.config_space.set_capacity(image.sectors());
        self.image = image;
    }

    /// Changes the limits: a bucket that `config` names replaces the old one and is full, one that is absent stays as it is,
    /// one of size 0 goes.
    pub fn set_rate_limiter(&mut self, config: &RateLimiterConfig) {
        let waited = self.limiter.is_blocked();
        self.limiter.update(config);
        if waited && let Some(active) = &self.active {
            active.queue.continue_later();
        }
    }
}
