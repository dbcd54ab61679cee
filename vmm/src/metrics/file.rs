//! `--metrics-path`: a line of JSON every minute, whenever it is asked for, and at the end.
//!
//! The file may be a named pipe. Nobody waits for its reader: a line that does not fit is lost, and one that fits in part
//! is finished before the next.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vmm_sys_util::timerfd::TimerFd;

use super::{Counter, Snapshot};
use crate::append;

/// Time from one line to the next.
const INTERVAL: Duration = Duration::from_mins(1);

/// `metrics`: where metrics are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// A file, which is appended to or made, or a named pipe.
    pub metrics_path: PathBuf,
    /// Every line has the VM's name, as `id`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emit_id: bool,
    /// What every line has as well, as `properties`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

impl MetricsConfig {
    /// Lines of nothing but metrics, in `metrics_path`.
    pub fn new(metrics_path: PathBuf) -> Self {
        Self { metrics_path, emit_id: false, properties: BTreeMap::new() }
    }

    /// The line for `snapshot` of the VM `id`.
    pub fn line(&self, id: &str, snapshot: &Snapshot) -> Value {
        let mut line = snapshot.to_json();
        if let Value::Object(line) = &mut line {
            if self.emit_id {
                line.insert("id".to_owned(), id.into());
            }
            if !self.properties.is_empty() {
                let properties =
                    self.properties.iter().map(|(key, value)| (key.clone(), value.clone().into()));
                line.insert("properties".to_owned(), Value::Object(properties.collect()));
            }
        }
        line
    }
}

/// What writing metrics counts.
#[derive(Debug, Default, Serialize)]
pub struct MetricsFileMetrics {
    /// Lines that were written.
    pub lines: Counter,
    /// Lines that were lost: nobody reads the pipe, or the host refused them.
    pub lost_lines: Counter,
}

/// The file, with the time of its next line.
pub struct MetricsFile {
    file: File,
    timer: TimerFd,
    /// What is left of the last line.
    rest: Vec<u8>,
}

impl MetricsFile {
    /// Opens the file at `path` and starts the clock.
    ///
    /// # Errors
    /// What the host said.
    pub fn open(path: &Path) -> io::Result<Self> {
        let from_errno = |error: vmm_sys_util::errno::Error| io::Error::from_raw_os_error(error.errno());
        let file = append::open(path)?;
        let mut timer = TimerFd::new().map_err(from_errno)?;
        timer.reset(INTERVAL, Some(INTERVAL)).map_err(from_errno)?;
        Ok(Self { file, timer, rest: Vec::new() })
    }

    /// What the host knows of the file.
    ///
    /// # Errors
    /// What the host said.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Readable when it is time for a line.
    pub fn timer(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// Empties the timer once it is readable.
    pub fn acknowledge(&mut self) {
        // Does not block: it is readable when this is called.
        let _ = self.timer.wait();
    }

    /// Writes a line.
    ///
    /// # Errors
    /// What the host said; the line is lost then.
    pub fn write(&mut self, line: &Value) -> io::Result<()> {
        self.write_rest()?;
        if !self.rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.rest = format!("{line}\n").into_bytes();
        let len = self.rest.len();
        let written = self.write_rest();
        if self.rest.len() == len {
            // Nothing of it is there, so nothing is to be finished.
            self.rest.clear();
            written?;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        written
    }

    /// Writes as much as fits.
    fn write_rest(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            match self.file.write(&self.rest) {
                Ok(written) => drop(self.rest.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::OpenOptionsExt;
    use std::sync::Arc;

    use super::super::Registry;
    use super::*;

    fn registry(size: usize) -> Registry {
        let mut registry = Registry::default();
        registry.add("text", Arc::new("x".repeat(size)));
        registry
    }

    #[test]
    fn lines_are_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics");
        std::fs::write(&path, "before\n").unwrap();
        let mut file = MetricsFile::open(&path).unwrap();
        for _ in 0..2 {
            file.write(&registry(10).gather().to_json()).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, "before"));
        let json: serde_json::Value = serde_json::from_str(lines[2]).unwrap();
        assert_eq!(json["text"], "xxxxxxxxxx");
    }

    #[test]
    fn a_line_has_the_id_and_properties_that_were_asked_for() {
        let json = r#"{"metrics_path": "m", "emit_id": true, "properties": {"zone": "a"}}"#;
        let config: MetricsConfig = serde_json::from_str(json).unwrap();
        let line = config.line("web", &registry(1).gather());
        assert_eq!(
            (&line["id"], &line["properties"]["zone"], &line["text"]),
            (&"web".into(), &"a".into(), &"x".into())
        );
        let line = MetricsConfig::new("m".into()).line("web", &registry(1).gather());
        assert!(line.get("id").is_none() && line.get("properties").is_none());
    }

    #[expect(unsafe_code, reason = "mkfifo(3) has no wrapper in the standard library")]
    fn fifo(path: &Path) {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path ends in a NUL.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    }

    #[test]
    fn a_pipe_that_nobody_reads_loses_lines_and_every_line_in_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        fifo(&path);
        let mut file = MetricsFile::open(&path).unwrap();
        let snapshot = registry(30_000).gather().to_json();
        let results: Vec<_> = (0..5).map(|_| file.write(&snapshot).is_ok()).collect();
        assert!(results[0] && !results[4], "{results:?}");
        let mut reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        file.write(&snapshot).unwrap();
        let _ = reader.read_to_string(&mut text);
        let lines = text.lines().count();
        assert_eq!(lines, results.iter().filter(|written| **written).count() + 1);
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}
