//! The service without a network device, frame by frame and in a time that is made up. For tests and fuzz targets.
#![expect(clippy::missing_panics_doc, reason = "what cannot be ends the test that uses this")]

use std::sync::Arc;

use serde_json::Value;

use super::stack::Stack;
use super::{DEFAULT_ADDRESS, Mmds, MmdsConfig, MmdsStore, MmdsVersion};
use crate::metrics::MmdsMetrics;
use crate::rate_limiter::timer::Nanos;

/// A stack, and a clock.
pub struct FrameHarness {
    mmds: Arc<Mmds>,
    stack: Stack,
    now: Nanos,
}

impl FrameHarness {
    /// A service of `version` that gives out `document`.
    pub fn new(version: MmdsVersion, document: Value) -> Self {
        let store = Arc::new(MmdsStore::default());
        assert_eq!(store.put(document), Ok(()));
        let config = MmdsConfig {
            network_interfaces: vec!["net0".to_owned()],
            version,
            ipv4_address: Some(DEFAULT_ADDRESS),
            imds_compat: false,
        };
        let mmds = Arc::new(Mmds::new(&config, store));
        let now = 1_000_000_000;
        Self { stack: Stack::new(mmds.clone(), now), mmds, now }
    }

    /// What the service has counted.
    pub fn metrics(&self) -> Arc<MmdsMetrics> {
        self.mmds.metrics()
    }

    /// The time, in nanoseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The guest sends a frame. Whether it is for the service; others do not come to it.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        let taken = self.mmds.is_addressed_by(frame);
        if taken {
            self.stack.input(frame.to_vec(), self.now);
        }
        taken
    }

    /// The next frame for the guest, which it takes.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let frame = self.stack.peek()?.to_vec();
        self.stack.pop(self.now);
        Some(frame)
    }

    /// Lets `time` nanoseconds pass, in which the service does what it wants to do. How often it wanted.
    pub fn pass(&mut self, time: u64) -> usize {
        let end = self.now + time;
        let mut count = 0;
        while let Some(next) = self.next_run().filter(|next| *next <= end) {
            self.now = next;
            self.stack.run(next);
            count += 1;
        }
        self.now = end;
        count
    }

    /// When it wants to do something.
    pub fn next_run(&mut self) -> Option<u64> {
        self.stack.next_run(self.now)
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> u64 {
        let metrics = self.mmds.metrics();
        metrics.connections_created.get() - metrics.connections_destroyed.get()
    }
}
