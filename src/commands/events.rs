//! `rvmm events ID`

use std::process::ExitCode;

use super::{Outcome, fit, logs};
use crate::args::VmArgs;
use crate::name::known::{self, PATIENCE};

/// Bytes of a line at most; the rest of a longer one is dropped.
const MAX_LINE: usize = 64 << 10;
/// What the data of a server-sent event begins with.
const DATA: &[u8] = b"data: ";

/// Prints what happens to the VM, a JSON object per line, until it ends.
pub(crate) fn run(args: &VmArgs) -> Outcome {
    let vm = known::find(&args.id)?;
    let mut lines = Lines::default();
    let asked = vm.reach("read the events of", PATIENCE)?;
    asked.follow("/rvmm/events", |bytes| logs::write(&lines.take(bytes)), super::note_loss)?;
    Ok(ExitCode::SUCCESS)
}

/// Finds the data of events in a stream of pieces.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The data, a line each, of the events that `bytes` completes.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                if let Some(found) = self.0.strip_prefix(DATA) {
                    // What is no JSON is no event of rvmm's.
                    let line = fit::json_line(found);
                    data.extend(line.into_iter().flat_map(|line| (line + "\n").into_bytes()));
                }
                self.0.clear();
            } else if self.0.len() < MAX_LINE {
                self.0.push(*byte);
            }
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_found_however_it_is_cut_up() {
        let stream = b"event: state\ndata: {\"state\":\"Running\"}\n\nevent: reset\ndata: {}\n\n";
        for size in [1, 7, stream.len()] {
            let mut lines = Lines::default();
            let data: Vec<u8> = stream.chunks(size).flat_map(|piece| lines.take(piece)).collect();
            assert_eq!(data, b"{\"state\":\"Running\"}\n{}\n");
        }
    }

    #[test]
    fn what_is_no_event_drives_no_terminal() {
        let stream = b"data: \x1b[2J\ndata: {\"a\":\"\\u001b\xc2\x9b\"}\r\ndata: {}\n";
        assert_eq!(Lines::default().take(stream), b"{\"a\":\"\\u001b\\u009b\"}\n{}\n");
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_than_it_may() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            assert!(lines.take(&[b'x'; 4096]).is_empty());
        }
        assert_eq!(lines.0.len(), MAX_LINE);
    }
}
