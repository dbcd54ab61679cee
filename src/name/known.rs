//! The VMs of this user, as their folders tell, and asking them.

use std::error::Error;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use api::client::{Client, ClientError};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::process::Process;
use super::{ERROR, LOG, Name, PID, SOCKET, TakeError, holder, is_invented, is_valid, number, regular};

/// How long a VM may take for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a process takes to end whose socket is gone.
const ENDING: Duration = Duration::from_millis(300);
/// Values in an answer: an object takes a hundred times the bytes in memory that it takes in JSON. The metrics of the largest
/// VM are some ten thousand.
const MAX_VALUES: usize = 64 << 10;
/// Bytes that are read of why a VM failed.
const MAX_ERROR: u64 = 4096;
/// How old a folder is that has nobody's lock in it and never will.
const ABANDONED: Duration = Duration::from_secs(2);

/// A VM that there is or was.
#[derive(Debug)]
pub(crate) struct Known {
    /// Its name.
    pub(crate) id: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// How it is.
    pub(crate) life: Life,
    /// When it was started.
    pub(crate) since: SystemTime,
}

/// How a VM is, as far as that can be seen without asking it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// This process runs it; `None` where it is not to be seen which: in another PID namespace, for one.
    Alive(Option<u32>),
    /// Its process ended without a word: killed, for one.
    Dead,
    /// It ran in the background, and ended for this reason.
    Failed(String),
}

/// All VMs, by name.
///
/// # Errors
/// Why the runtime folder cannot be read.
pub(crate) fn all() -> Result<Vec<Known>, String> {
    let unreadable = |error: io::Error| format!("cannot see which VMs there are: {error}");
    let Some(folder) = vmm::runtime_dir::existing().map_err(unreadable)? else { return Ok(Vec::new()) };
    let names = fs::read_dir(folder).map_err(unreadable)?.filter_map(|entry| {
        let entry = entry.ok().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))?;
        let id = entry.file_name().into_string().ok().filter(|id| is_valid(id))?;
        look(id, entry.path())
    });
    let mut names: Vec<Known> = names.collect();
    names.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(names)
}

/// The VM whose folder this is. None for a folder that is only just coming or going.
fn look(id: String, folder: PathBuf) -> Option<Known> {
    let Ok(file) = regular::open(&folder.join(PID)) else {
        let since = fs::metadata(&folder).and_then(|metadata| metadata.modified()).ok()?;
        let abandoned = since.elapsed().is_ok_and(|age| age > ABANDONED);
        return abandoned.then_some(Known { id, folder, life: Life::Dead, since });
    };
    let since = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
    let life = match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Life::Alive(holder::find(&file)),
        _ => match regular::open(&folder.join(ERROR)) {
            Ok(error) => Life::Failed(read_line(error)),
            Err(_) => Life::Dead,
        },
    };
    Some(Known { id, folder, life, since })
}

fn read_line(file: File) -> String {
    let mut bytes = Vec::new();
    let _ = file.take(MAX_ERROR).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

/// The VM that is called `id`, or the only one whose name begins so.
///
/// # Errors
/// That there is none, or which there are.
pub(crate) fn find(id: &str) -> Result<Known, String> {
    choose(id, all()?)
}

/// The VM that is called `id`, to end or to clear it: a script that means one that is gone must not hit its neighbour.
/// Only of a name that was made up the beginning is enough.
///
/// # Errors
/// That there is none, or which could be meant.
pub(crate) fn find_whole(id: &str) -> Result<Known, String> {
    choose_whole(id, all()?)
}

fn choose_whole(id: &str, all: Vec<Known>) -> Result<Known, String> {
    match choose(id, all)? {
        known if known.id == id || is_invented(&known.id) => Ok(known),
        known => Err(format!(
            "no VM is called {id:?}; this verb takes whole names: write {} if that is the one",
            known.id
        )),
    }
}

fn choose(id: &str, mut all: Vec<Known>) -> Result<Known, String> {
    if let Some(exact) = all.iter().position(|known| known.id == id) {
        return Ok(all.swap_remove(exact));
    }
    all.retain(|known| !id.is_empty() && known.id.starts_with(id));
    let others: Vec<String> = all.iter().skip(1).map(|known| known.id.clone()).collect();
    match all.into_iter().next() {
        None => Err(format!("no VM is called {id:?}; rvmm ps shows which there are")),
        Some(known) if others.is_empty() => Ok(known),
        Some(known) => Err(format!(
            "{id:?} is the beginning of {} and {}; write more of it",
            known.id,
            others.join(", ")
        )),
    }
}

impl Known {
    /// Where its socket is, or a link to it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    /// Where rvmm's own log is, if it was in the background.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join(LOG)
    }

    /// Seconds since it was started.
    pub(crate) fn uptime(&self) -> u64 {
        self.since.elapsed().map_or(0, |age| age.as_secs())
    }

    /// Its process, to `what` it.
    ///
    /// # Errors
    /// That it has ended, in one line.
    pub(crate) fn process(&self, what: &str) -> Result<Process, String> {
        let Life::Alive(pid) = self.life else { return Err(self.ended(what)) };
        let Some(pid) = pid else {
            return Err(format!(
                "cannot {what} {}: no process that can be seen from here holds the lock on {}; end it where it was \
                 started, in its PID namespace or as its user",
                self.id,
                self.folder.join(PID).display()
            ));
        };
        let process = Process::open(pid).map_err(|error| format!("cannot {what} {}: {error}", self.id))?;
        // It is the VM's if the VM has still not ended.
        if self.is_alive() {
            Ok(process)
        } else {
            Err(format!("cannot {what} {}: it has ended just now", self.id))
        }
    }

    /// What asks it, to `what` it.
    ///
    /// # Errors
    /// That it has ended or listens nowhere, in one line.
    pub(crate) fn reach(&self, what: &'static str, patience: Duration) -> Result<Reached<'_>, String> {
        let Self { id, .. } = self;
        if !matches!(self.life, Life::Alive(_)) {
            return Err(self.ended(what));
        }
        if fs::symlink_metadata(self.socket()).is_err() {
            return Err(format!(
                "cannot {what} {id}: it listens nowhere: it was started with --no-api, or its socket could not be made, or \
                 was removed; rvmm kill {id} ends it"
            ));
        }
        let client = Client::new(&self.socket(), patience)
            .map_err(|error| format!("cannot {what} {id}: {}", crate::chain(&error)))?;
        Ok(Reached { vm: self, what, client })
    }

    /// Whether its process is still there.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.life, Life::Alive(_))
            && look(self.id.clone(), self.folder.clone()).is_some_and(|now| now.life == self.life)
    }

    /// Whether its process has ended or is about to: its socket goes first.
    fn ends(&self) -> bool {
        if self.life == Life::Alive(None) {
            thread::sleep(ENDING);
            return !self.is_alive();
        }
        self.process("")
            .and_then(|process| process.wait(ENDING).map_err(|error| error.to_string()))
            .unwrap_or(true)
    }

    fn ended(&self, what: &str) -> String {
        let Self { id, life, .. } = self;
        match life {
            Life::Failed(error) => {
                format!("cannot {what} {id}: it has failed: {error} (rvmm logs --vmm {id}, rvmm rm {id})")
            }
            _ => format!("cannot {what} {id}: it is dead; rvmm rm {id} clears what it left behind"),
        }
    }

    /// Removes what it left behind.
    ///
    /// # Errors
    /// That it is running, or that it cannot be.
    pub(crate) fn clear(&self) -> Result<(), String> {
        let Self { id, .. } = self;
        match Name::take(id) {
            Ok(name) => {
                drop(name);
                match self.folder.symlink_metadata() {
                    Ok(_) => Err(format!(
                        "{id} is cleared, but {} stays: something else is in it; remove that",
                        self.folder.display()
                    )),
                    Err(_) => Ok(()),
                }
            }
            Err(TakeError::Running { pid }) => Err(format!(
                "cannot remove {id}: it is running (pid {}); rvmm stop {id} ends it",
                number(pid)
            )),
            Err(why @ (TakeError::NoFolder(_) | TakeError::Refused(_))) => {
                Err(format!("cannot remove {id}: {why}"))
            }
        }
    }
}

/// A VM that is there to be asked.
#[derive(Debug)]
pub(crate) struct Reached<'a> {
    vm: &'a Known,
    what: &'static str,
    client: Client,
}

/// The wait before a follower that was cut off before it got a byte tries again.
const AFTER_NOTHING: Duration = Duration::from_millis(50);

impl Reached<'_> {
    /// What is at `path`.
    pub(crate) fn get(&self, path: &'static str) -> Result<Vec<u8>, String> {
        self.client.get(path).map_err(|error| self.explain(&error))
    }

    /// The JSON that is at `path`.
    pub(crate) fn json<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, String> {
        parse(&self.get(path)?)
            .map_err(|why| format!("cannot {} {}: its answer {why}", self.what, self.vm.id))
    }

    /// Puts `body` to `path`.
    pub(crate) fn put(&self, path: &'static str, body: impl Into<Vec<u8>>) -> Result<(), String> {
        self.client.put(path, body.into()).map_err(|error| self.explain(&error))
    }

    /// Changes what is at `path`.
    pub(crate) fn patch(&self, path: &'static str, body: &Value) -> Result<(), String> {
        self.client.patch(path, body.to_string()).map_err(|error| self.explain(&error))
    }

    /// Has `take` called with nothing when the VM has granted it, then with what is at `path` and what comes there, until the VM
    /// ends. Whoever is too slow begins again.
    pub(crate) fn follow(
        &self,
        path: &'static str,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
        mut lost: impl FnMut(),
    ) -> Result<(), String> {
        loop {
            let (mut granted, mut came) = (false, false);
            let followed = self.client.follow(path, crate::commands::reader_is_gone, |bytes| {
                granted = true;
                came |= !bytes.is_empty();
                take(bytes)
            });
            match followed {
                Ok(()) => return Ok(()),
                // A reader that has gone (`rvmm logs -f web | head`) is no error.
                Err(ClientError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(ClientError::Broken(_)) if granted && !self.vm.ends() => {
                    lost();
                    // A server that only ever cuts us off takes no processor.
                    if !came {
                        thread::sleep(AFTER_NOTHING);
                    }
                }
                Err(error) => return Err(self.explain(&error)),
            }
        }
    }

    fn explain(&self, error: &ClientError) -> String {
        let Self { what, vm: Known { id, .. }, .. } = self;
        let why = crate::chain(error as &dyn Error);
        match error {
            ClientError::Connect { .. } | ClientError::Broken(_) if self.vm.ends() => {
                format!("cannot {what} {id}: it has ended")
            }
            _ if !self.vm.is_alive() => format!("cannot {what} {id}: it has ended"),
            ClientError::Refused(_) | ClientError::Output(_) => format!("cannot {what} {id}: {why}"),
            _ => format!("cannot {what} {id}: {why}; if nothing else helps, rvmm kill {id} ends it"),
        }
    }
}

/// The JSON that an answer is.
fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, String> {
    // Commas in strings count as well: there are few.
    let values = answer.iter().filter(|byte| matches!(byte, b'{' | b'[' | b',')).count();
    if values > MAX_VALUES {
        return Err(format!("has more than {MAX_VALUES} values in it"));
    }
    serde_json::from_slice(answer).map_err(|error| format!("is not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> Vec<Known> {
        let known = |id: &&str| Known {
            id: (*id).to_owned(),
            folder: PathBuf::new(),
            life: Life::Dead,
            since: SystemTime::now(),
        };
        names.iter().map(known).collect()
    }

    #[test]
    fn a_name_is_found_by_itself_and_by_a_beginning_that_is_its_alone() {
        let names = ["db", "web", "web-1", "web-2"];
        for (id, found) in [("web", "web"), ("web-2", "web-2"), ("d", "db")] {
            assert_eq!(choose(id, known(&names)).unwrap().id, found);
        }
        let error = choose("we", known(&names)).unwrap_err();
        assert!(error.contains("web and web-1, web-2"), "{error}");
        for id in ["", "x", "../db", "web-1/"] {
            let error = choose(id, known(&names)).unwrap_err();
            assert!(error.contains("no VM is called"), "{error}");
        }
    }

    #[test]
    fn an_answer_of_many_tiny_values_is_not_made_larger() {
        for tiny in ["{}", "[]", "{\"\":{\"\":{}}}", "0"] {
            let answer = format!("[{}0]", format!("{tiny},").repeat(MAX_VALUES));
            let error = parse::<Value>(answer.as_bytes()).unwrap_err();
            assert!(error.contains("more than 65536 values"), "{error}");
        }
        assert_eq!(parse::<Value>(b"{\"a\": [1, 2]}").unwrap(), serde_json::json!({"a": [1, 2]}));
        assert!(parse::<Value>(b"no").unwrap_err().contains("not understood"));
    }

    #[test]
    fn what_ends_a_vm_wants_its_whole_name_unless_that_was_made_up() {
        let names = ["db", "web-1", "0123456789ab", "beef-of-twel", "c0ffee012345", "c0ffee678901"];
        for (id, found) in
            [("db", "db"), ("web-1", "web-1"), ("01", "0123456789ab"), ("c0ffee0", "c0ffee012345")]
        {
            assert_eq!(choose_whole(id, known(&names)).unwrap().id, found);
        }
        for (id, why) in
            [("web", "write web-1"), ("beef", "write beef-of-twel"), ("c0", "more of it"), ("", "no VM")]
        {
            let error = choose_whole(id, known(&names)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
