//! Lines on stdout that nobody has to wait for.
//!
//! A pipe that nobody reads gets full, and whoever writes to it waits. So a thread writes the lines, and those that there is
//! no room for are lost. How many they were is said where they would have been.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

/// Lines that wait for the thread.
const WAITING: usize = 256;
/// How long the last of them may take at the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where lines go.
pub(super) struct Lines {
    queue: SyncSender<String>,
    /// Lines that were lost since that was last said.
    lost: Arc<AtomicU64>,
    /// Says how many were lost.
    note: fn(u64) -> String,
    /// Says that the thread has written all, by having no sender.
    written: Receiver<()>,
}

impl Lines {
    /// Has a thread `write` each line; `note` makes one of the number of lines that were lost. The thread hears the signals
    /// that this one does.
    pub(super) fn to(mut write: impl FnMut(&str) + Send + 'static, note: fn(u64) -> String) -> Self {
        let (queue, lines) = mpsc::sync_channel::<String>(WAITING);
        let (writing, written) = mpsc::sync_channel::<()>(0);
        let lost = Arc::new(AtomicU64::new(0));
        let left = Arc::clone(&lost);
        let all = move || {
            for line in lines {
                write(&line);
            }
            match left.load(Ordering::Relaxed) {
                0 => {}
                left => write(&note(left)),
            }
            drop(writing);
        };
        if let Err(error) = thread::Builder::new().name("lines".to_owned()).spawn(all) {
            log::warn!("nothing is printed: {error}");
        }
        Self { queue, lost, note, written }
    }

    /// Has `line` written when its turn comes, or loses it.
    pub(super) fn say(&self, line: String) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 && self.queue.try_send((self.note)(lost)).is_ok() {
            self.lost.store(0, Ordering::Relaxed);
        }
        if self.lost.load(Ordering::Relaxed) > 0 || self.queue.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is written, but not long for somebody who does not read.
    pub(super) fn finish(self) {
        let Self { queue, lost: _, note: _, written } = self;
        drop(queue);
        let _ = written.recv_timeout(PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Read as _, Write as _};
    use std::time::Instant;

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_is_lost_is_counted() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let write = move |line: &str| writer.write_all(line.as_bytes()).unwrap();
        let lines = Lines::to(write, |lost| format!("lost {lost}\n"));
        let began = Instant::now();
        let long = "x".repeat(1000);
        for number in 0..2000 {
            lines.say(format!("{number} {long}\n"));
        }
        assert!(began.elapsed() < Duration::from_secs(5));
        // Whoever begins to read gets what waited.
        // More than a pipe holds: so there is room for lines again.
        let mut text = vec![0; 128 << 10];
        reader.read_exact(&mut text).unwrap();
        let reading = thread::spawn(move || {
            reader.read_to_end(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        });
        lines.say("last\n".to_owned());
        lines.finish();
        let text = reading.join().unwrap();
        let (mut next, mut lost) = (0, 0);
        for line in text.lines().filter(|line| *line != "last") {
            if let Some(count) = line.strip_prefix("lost ") {
                lost += count.parse::<usize>().unwrap();
                next += count.parse::<usize>().unwrap();
            } else {
                assert!(line.starts_with(&format!("{next} ")), "{next}: {line}");
                next += 1;
            }
        }
        assert!(text.ends_with("last\n") && next == 2000, "{next}");
        assert!((1..=2000 - WAITING).contains(&lost), "{lost}");
    }

    #[test]
    fn the_end_does_not_wait_for_somebody_who_does_not_read() {
        let (_reader, mut writer) = io::pipe().unwrap();
        let lines = Lines::to(move |line| drop(writer.write_all(line.as_bytes())), |_| String::new());
        lines.say("x".repeat(1 << 20));
        lines.finish();
    }
}
