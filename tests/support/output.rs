//! What a running program has printed so far.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::timeout;

#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    ended: bool,
}

/// Collects a stream in the background, so that nobody is ever held up by a full pipe.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<(Mutex<Collected>, Condvar)>);

impl Output {
    /// The output of a program whose output goes elsewhere.
    pub(crate) fn none() -> Self {
        Self::of(std::io::empty())
    }

    /// Starts to collect `stream`.
    pub(crate) fn of(mut stream: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let collector = output.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = stream.read(&mut buffer).unwrap_or(0); // a terminal without its other side is an error
                let mut collected = collector.0.0.lock().unwrap();
                collected.bytes.extend_from_slice(&buffer[..count]);
                collected.ended = count == 0;
                collector.0.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        output
    }

    /// Waits until `done` holds for all that was printed so far, or the stream has ended; says whether it holds.
    pub(crate) fn wait(&self, mut done: impl FnMut(&str) -> bool) -> bool {
        let (lock, condition) = &*self.0;
        let mut holds = false;
        let collected = lock.lock().unwrap();
        drop(condition.wait_timeout_while(collected, timeout(), |collected| {
            holds = done(&String::from_utf8_lossy(&collected.bytes));
            !holds && !collected.ended
        }));
        holds
    }

    /// All that was printed so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }

    /// All that was printed, once the stream has ended.
    pub(crate) fn finish(&self) -> String {
        self.wait(|_| false);
        self.text()
    }
}
