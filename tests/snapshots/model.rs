//! Random sequences of what users do with snapshots, checked against a model.
//!
//! Names collide on purpose: three state files, three memory files, hard links, renamed and copied files. After each step
//! holds: a refused snapshot has changed nothing, and what loads at all has the memory of the state's own snapshot. What
//! nobody replaced still loads.
//!
//! `RVMM_SEQUENCES` is the number of sequences (100); `RVMM_SEED` begins with another seed, which a failure prints.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use super::Asked;
use crate::support::Rvmm;
use crate::support::api::ApiSocket;
use crate::support::kvm::require_kvm;

/// Where write-on-demand writes: a word in each of these pages at first, and then in the first 16 each time it is told to.
const FIRST: u64 = 32 << 20;
const PAGES: u64 = 4096;
const PAGES_EACH_TIME: u64 = 16;
const STATES: [&str; 3] = ["a.state", "b.state", "c.state"];
const MEMORIES: [&str; 3] = ["a.mem", "b.mem", "c.mem"];
const STEPS: u32 = 14;

/// Xorshift64: the same sequence for the same seed everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }

    fn pick<'a>(&mut self, names: &[&'a str]) -> &'a str {
        names[self.next(names.len())]
    }
}

/// A snapshot that was written.
#[derive(Clone, Debug)]
struct Record {
    /// How often the guest had been told to write.
    writes: u32,
    state: &'static str,
    memory: &'static str,
    /// The snapshot that it is on top of.
    base: Option<usize>,
}

struct World {
    folder: TempDir,
    random: Random,
    vm: Option<Asked>,
    /// How often the guest of the VM was told to write.
    writes: u32,
    /// The VM's last snapshot.
    last: Option<usize>,
    records: Vec<Record>,
    /// Which snapshot each file belongs to.
    owners: BTreeMap<&'static str, usize>,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            folder,
            random: Random(seed),
            vm: None,
            writes: 0,
            last: None,
            records: Vec::new(),
            owners: BTreeMap::new(),
            log: vec![format!("RVMM_SEED={seed}")],
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn vm(&mut self) -> &mut Asked {
        if self.vm.is_none() {
            let guest = Rvmm::guest("write-on-demand").args(["--track-dirty-pages", "--memory", "64M"]);
            self.vm = Some(Asked::launch(guest.stdin(Stdio::piped()), "!"));
            (self.writes, self.last) = (0, None);
        }
        self.vm.as_mut().unwrap()
    }

    fn step(&mut self) {
        match self.random.next(12) {
            0..4 => self.save(),
            4 | 5 => self.write(),
            6 => self.link(),
            7 => self.rename(),
            8 => self.copy(),
            9 => {
                self.log.push("kill".to_owned());
                self.vm = None;
            }
            _ => self.restore(),
        }
    }

    fn write(&mut self) {
        let vm = self.vm();
        let before = vm.running.printed().len();
        vm.running.send("x").wait_for_times(before + 1, "!");
        self.writes += 1;
        self.log.push(format!("write, the {}th", self.writes));
    }

    /// What is in the folder: names, inodes, and what was last changed.
    fn files(&self) -> BTreeMap<String, (u64, u64, i64, i64)> {
        let entries = fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap);
        let file = |metadata: fs::Metadata| {
            (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
        };
        entries
            .map(|entry| (entry.file_name().into_string().unwrap(), file(entry.metadata().unwrap())))
            .collect()
    }

    fn save(&mut self) {
        let (state, memory) = (self.random.pick(&STATES), self.random.pick(&MEMORIES));
        let kind = self.random.pick(&["Full", "Diff", "Diff"]);
        let last_memory = self.last.map(|last| self.records[last].memory);
        let inode = |name: &str| self.at(name).metadata().ok().map(|metadata| metadata.ino());
        let merges = kind == "Diff"
            && last_memory.is_some_and(|name| inode(name).is_some() && inode(name) == inode(memory));
        let request =
            json!({"snapshot_path": self.at(state), "mem_file_path": self.at(memory), "snapshot_type": kind});
        let before = self.files();
        let vm = self.vm();
        vm.pause();
        let answer = vm.socket.put("/snapshot/create", &request);
        vm.socket.patch("/vm", &json!({"state": "Resumed"})).assert_done();
        self.log.push(format!("{kind} to {state} and {memory}: {} {}", answer.status, answer.body));
        if answer.status != 204 {
            assert_eq!(self.files(), before, "a refused snapshot changed files: {:#?}", self.log);
            return;
        }
        let base = match self.last {
            Some(last) if merges => self.records[last].base,
            last => last.filter(|_| kind == "Diff"),
        };
        let record = self.records.len();
        self.records.push(Record { writes: self.writes, state, memory, base });
        self.owners.extend([(state, record), (memory, record)]);
        self.last = Some(record);
        assert!(self.load(state, memory).is_some(), "what was written does not load: {:#?}", self.log);
    }

    /// Two names of files of one kind.
    fn names(&mut self) -> (&'static str, &'static str) {
        let names = if self.random.next(2) == 0 { STATES } else { MEMORIES };
        (self.random.pick(&names), self.random.pick(&names))
    }

    fn link(&mut self) {
        let (from, to) = self.names();
        if fs::hard_link(self.at(from), self.at(to)).is_ok() {
            self.owners.insert(to, self.owners[from]);
            self.log.push(format!("link {from} as {to}"));
        }
    }

    fn rename(&mut self) {
        let (from, to) = self.names();
        if from != to && fs::rename(self.at(from), self.at(to)).is_ok() {
            // Two names of one file stay as they are (rename(2)).
            if !self.at(from).exists() {
                let owner = self.owners.remove(from).unwrap();
                self.owners.insert(to, owner);
            }
            self.log.push(format!("rename {from} to {to}"));
        }
    }

    fn copy(&mut self) {
        let (from, to) = self.names();
        if !self.at(from).exists() || from == to {
            return;
        }
        let _ = fs::remove_file(self.at(to));
        let copied =
            Command::new("cp").args(["-a", "--sparse=always"]).args([self.at(from), self.at(to)]).status();
        assert!(copied.unwrap().success());
        self.owners.insert(to, self.owners[from]);
        self.log.push(format!("copy {from} to {to}"));
    }

    /// Loads these files into a new process, and says how often the guest in them had been told to write.
    fn load(&self, state: &str, memory: &str) -> Option<(Asked, u32)> {
        let socket = ApiSocket::new();
        let running = Rvmm::new().arg("--api-sock").arg(socket.path()).stdin(Stdio::piped()).launch();
        let request = json!({"snapshot_path": self.at(state), "mem_file_path": self.at(memory), "track_dirty_pages": true});
        let answer = socket.put("/snapshot/load", &request);
        if answer.status != 204 {
            return None;
        }
        let loaded = Asked { running, socket };
        let seen = loaded.snapshot(&json!({}));
        let writes = self.writes_in(&seen.path().join("memory"));
        Some((loaded, writes))
    }

    /// How often a guest with this memory was told to write. All of its memory has to say the same.
    fn writes_in(&self, memory: &Path) -> u32 {
        let file = fs::File::open(memory).unwrap();
        let word = |page: u64| {
            let mut word = [0; 4];
            file.read_exact_at(&mut word, FIRST + page * 4096).unwrap();
            u32::from_le_bytes(word)
        };
        let first = word(0);
        for page in 0..PAGES {
            let expected = if page < PAGES_EACH_TIME { first } else { 1 };
            assert_eq!(word(page), expected, "page {page}: {:#?}", self.log);
        }
        first.checked_sub(1).unwrap_or_else(|| panic!("empty memory: {:#?}", self.log))
    }

    fn restore(&mut self) {
        let (state, memory) = (self.random.pick(&STATES), self.random.pick(&MEMORIES));
        if let Some((loaded, writes)) = self.load_checked(state, memory) {
            loaded.socket.patch("/vm", &json!({"state": "Resumed"})).assert_done();
            self.vm = Some(loaded);
            self.writes = writes;
            // The check has written a snapshot of the VM, which its next diff would be on top of.
            self.last = None;
            self.save_first();
        }
    }

    /// A full snapshot, so that the VM's last one is among the files of the model.
    fn save_first(&mut self) {
        let (state, memory) = (self.random.pick(&STATES), self.random.pick(&MEMORIES));
        let request = json!({"snapshot_path": self.at(state), "mem_file_path": self.at(memory), "snapshot_type": "Full"});
        let vm = self.vm();
        vm.pause();
        let answer = vm.socket.put("/snapshot/create", &request);
        vm.socket.patch("/vm", &json!({"state": "Resumed"})).assert_done();
        answer.assert_done();
        let record = self.records.len();
        self.records.push(Record { writes: self.writes, state, memory, base: None });
        self.owners.extend([(state, record), (memory, record)]);
        self.last = Some(record);
        self.log.push(format!("Full to {state} and {memory}"));
    }

    /// What loads is the memory of the state's own snapshot, and what nobody replaced loads.
    fn load_checked(&mut self, state: &'static str, memory: &'static str) -> Option<(Asked, u32)> {
        let owners = self.owners.get(state).copied().zip(self.owners.get(memory).copied());
        let loaded = self.load(state, memory);
        let result = loaded.as_ref().map(|(_, writes)| *writes);
        self.log.push(format!("load {state} and {memory}: {result:?}"));
        match (owners, result) {
            (Some((record, _)), Some(writes)) => {
                assert_eq!(writes, self.records[record].writes, "wrong memory: {:#?}", self.log);
            }
            (Some((record, of_memory)), None) => {
                let is_whole = record == of_memory && self.base_is_intact(record);
                assert!(!is_whole, "what nobody replaced does not load: {:#?}", self.log);
            }
            (None, result) => assert_eq!(result, None, "{:#?}", self.log),
        }
        loaded
    }

    /// Whether all that the snapshot is on top of is where it was written.
    fn base_is_intact(&self, record: usize) -> bool {
        let Some(base) = self.records[record].base else { return true };
        let Record { state, memory, .. } = &self.records[base];
        let is_there = |name: &str| self.owners.get(name) == Some(&base);
        is_there(state) && is_there(memory) && self.base_is_intact(base)
    }

    fn check_all(&mut self) {
        for state in STATES {
            for memory in MEMORIES {
                if self.at(state).exists() && self.at(memory).exists() {
                    self.load_checked(state, memory);
                }
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_sequence_of_what_users_do_gives_a_guest_another_memory() {
    require_kvm!();
    let mut seed = number("RVMM_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_nanos() as u64 | 1
    });
    for _ in 0..number("RVMM_SEQUENCES").unwrap_or(100) {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.check_all();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) | 1;
    }
}
