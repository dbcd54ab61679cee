//! Writing a snapshot of the VM that is there.
//!
//! State and memory are copied into the page cache by the main thread while the guest stands still. What takes long and
//! does not concern the guest, digests and the disk, is left to a thread: the guest can go on meanwhile, and whoever asked
//! has the answer when the snapshot is safe.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use devices::GuestMemory;

use super::lineage::{Base, Lineage};
use super::live::Live;
use super::remote::Asker;
use super::request::{Refusal, Response, State};
use super::{Controller, Event};
use crate::config::{CreateSnapshot, IncludeDisks, VmConfig};
use crate::cpu::CpuDescription;
use crate::memory::DirtyPages;
use crate::signals::Signal;
use crate::snapshot::manifest::Cpu;
use crate::snapshot::{
    Chain, DiskV2, Folder, MAX_DEPTH, MAX_RANGES, Pages, Partial, PartialPair, SnapshotError, StateError,
    StateV2, memory_file, touched,
};
use crate::thread::{self, ThreadKind};
use crate::vm::{SaveError, Vm};

/// How long the end of a guest waits at a time for its last snapshot, before it looks whether a signal has come.
const LOOK: Duration = Duration::from_millis(20);
/// How long it waits for it once a signal has come.
pub(super) const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Why there is no snapshot. The VM goes on all the same.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The VM cannot be read as it is.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The files.
    #[error(transparent)]
    Files(#[from] SnapshotError),
    /// The state.
    #[error("the VM's state {0}")]
    State(#[from] StateError),
    /// A drive's file.
    #[error("drive \"{id}\": cannot look at {}", path.display())]
    Drive {
        /// Its id.
        id: String,
        /// Its file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The folder that paths are relative to.
    #[error("the folder that rvmm was started in is gone, and the VM's files are named from there")]
    Folder(#[source] io::Error),
    /// The memory that the VM was restored from is gone.
    #[error("the memory file that this VM was restored from was cut: what the guest has not touched is lost")]
    Cut,
    /// Another is on its way.
    #[error("another snapshot of this VM is being written; try again when that is done")]
    UnderWay,
    /// Nobody knows what has changed.
    #[error(
        "a diff (snapshot_type Diff) is of a VM that keeps track of the pages that it writes; start it with --track-dirty-pages, or track_dirty_pages of machine-config"
    )]
    NotTracked,
    /// Nobody could restore the next diff.
    #[error("the last snapshot has {MAX_DEPTH} diffs below it, which is the most; write a full one")]
    TooManyDiffs,
    /// Nothing that it could be on top of.
    #[error("this VM has no snapshot that a diff could be on top of; write a full one first")]
    NoBase,
    /// Not the last one.
    #[error(
        "{} is not the last snapshot of this VM, whose changes alone are known: that is {}", asked.display(), last.display()
    )]
    OtherBase {
        /// What was asked for.
        asked: PathBuf,
        /// What it has to be.
        last: PathBuf,
    },
    /// A base without a diff.
    #[error("only a diff has a base: leave `base` out, or ask for snapshot_type Diff")]
    BaseOfFull,
    /// Disks without a folder.
    #[error("disks are included in a snapshot that is a folder: leave mem_file_path out, or disks")]
    DisksWithFiles,
    /// A file that another snapshot needs.
    #[error(
        "{} is {}, which this VM's last snapshot needs; name another file", path.display(), needed.display()
    )]
    NeededFile {
        /// The file that was to be written.
        path: PathBuf,
        /// What it is called in the chain.
        needed: PathBuf,
    },
    /// A file of the guest or of rvmm.
    #[error("{} is {what}; name another file", path.display())]
    FileInUse {
        /// The file that was to be written.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// The thread.
    #[error("cannot start the thread that writes to the disk")]
    Thread(#[source] io::Error),
}

/// A snapshot whose files are not all on the disk yet.
pub(super) struct Writing {
    written: Receiver<Result<Chain, CreateError>>,
    asker: Option<Asker>,
    then: Then,
    /// What it has of the pages that were written since the one before.
    dirty: Option<DirtyPages>,
}

/// Where a snapshot goes.
enum Target {
    Folder(Partial),
    /// Two files anywhere, which Firecracker's clients ask for.
    Files(PartialPair),
}

impl Target {
    fn begin(request: &CreateSnapshot) -> Result<Self, SnapshotError> {
        let CreateSnapshot { snapshot_path, mem_file_path, .. } = request;
        Ok(match mem_file_path {
            None => Self::Folder(Partial::begin(snapshot_path)?),
            Some(memory) => Self::Files(PartialPair::begin(snapshot_path, memory)?),
        })
    }

    /// Adds `pages` of the memory file `from`, which is at `path`.
    fn add(&self, from: &File, path: &Path, pages: &Pages) -> Result<(), SnapshotError> {
        let file = match self {
            Self::Folder(partial) => partial.memory(),
            Self::Files(pair) => pair.memory(),
        };
        memory_file::copy(file, from, pages).map_err(|failed| {
            failed.naming(path, |error| match self {
                Self::Folder(partial) => partial.memory_error(error),
                Self::Files(pair) => pair.memory_error(error),
            })
        })
    }

    /// Writes `pages` of `memory`.
    fn write(&self, memory: &GuestMemory, pages: &Pages) -> Result<(), SnapshotError> {
        let file = match self {
            Self::Folder(partial) => partial.memory(),
            Self::Files(pair) => pair.memory(),
        };
        memory_file::write(file, memory, pages).map(drop).map_err(|error| match self {
            Self::Folder(partial) => partial.memory_error(error),
            Self::Files(pair) => pair.memory_error(error),
        })
    }
}

/// What becomes of the VM when the snapshot is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Nothing.
    Stay,
    /// It ends. If there is no snapshot it goes on, in case it ran before.
    End { ran: bool },
}

/// What the thread writes.
struct Captured {
    target: Target,
    state: StateV2,
    config: VmConfig,
    cpu: Cpu,
    dirty: Option<DirtyPages>,
    /// The snapshot that a diff is merged with, whose memory file it replaces.
    replaced: Option<Box<Folder>>,
}

impl Controller {
    /// Copies the VM, and has the rest done by a thread, which [`finish_snapshot`](Self::finish_snapshot) hears of.
    pub(super) fn create_snapshot(&mut self, request: &CreateSnapshot, asker: Asker, live: &mut Live) {
        let refuse = |source| Err(Refusal::Snapshot(Box::new(source)));
        let then = if request.stop { Then::End { ran: self.state == State::Running } } else { Then::Stay };
        let captured = match self.capture(request, live) {
            Ok(captured) => captured,
            Err(refusal) => return self.give(asker, Err(refusal)),
        };
        let Captured { target, mut state, config, cpu, dirty, replaced } = captured;
        let (sender, written) = mpsc::sync_channel(1);
        let wake = self.inbox.as_ref().map(|inbox| inbox.wake().clone());
        let request = request.clone();
        let write = move || {
            let result = merge(&target, &mut state, replaced.as_deref())
                .and_then(|()| commit(target, &mut state, &config, cpu, &request))
                .map_err(CreateError::from);
            // Nobody waits for it any more when the VM has ended.
            let _ = sender.send(result);
            let _ = wake.map(|wake| wake.write(1));
        };
        match thread::spawn(ThreadKind::Snapshot, write) {
            Ok(_) => self.writing = Some(Writing { written, asker: Some(asker), then, dirty }),
            Err(error) => {
                self.lineage.keep(dirty);
                if then == (Then::End { ran: true }) {
                    self.resume(live);
                }
                self.give(asker, refuse(CreateError::Thread(error)));
            }
        }
    }

    /// Answers and counts.
    fn give(&self, asker: Asker, answer: super::Answer) {
        self.counted.count(&answer);
        asker.answer(answer);
    }

    /// Copies state and memory while the guest stands still.
    fn capture(&mut self, request: &CreateSnapshot, live: &mut Live) -> Result<Captured, Refusal> {
        let refused = |source| Refusal::Snapshot(Box::new(source));
        if self.state != State::Paused && !request.live && !request.stop {
            return Err(Refusal::NotPaused);
        }
        if self.writing.is_some() {
            return Err(refused(CreateError::UnderWay));
        }
        self.check_files(request, live).map_err(refused)?;
        let is_tracking = self.config.machine_config.track_dirty_pages;
        let base = self.lineage.base_for(request, is_tracking).map_err(refused)?;
        let target = Target::begin(request).map_err(|error| refused(error.into()))?;
        let was_running = self.state == State::Running;
        let began = Instant::now();
        if was_running {
            self.pause(live);
        }
        let mut captured = self.copy(target, base, request.disks, &live.vm);
        if was_running && (captured.is_err() || !request.stop) {
            self.resume(live);
            let pause = began.elapsed();
            log::info!("the guest stood still for {} us", pause.as_micros());
            if let Ok(Captured { target: Target::Folder(partial), .. }) = &mut captured {
                partial.guest_stood_still(pause);
            }
        }
        captured.map_err(refused)
    }

    /// Refuses to replace a file of the guest, or one that rvmm writes to.
    fn check_files(&self, request: &CreateSnapshot, live: &Live) -> Result<(), CreateError> {
        for path in request.mem_file_path.iter().chain([&request.snapshot_path]) {
            let Ok(file) = path.metadata() else { continue };
            let guest = self.config.file_of_the_guest(&file).map(|_| "a file of the guest".to_owned());
            let output = || {
                self.output_of(&file, &live.output).map(|output| format!("where rvmm writes its {output}"))
            };
            if let Some(what) = guest.or_else(output) {
                return Err(CreateError::FileInUse { path: path.clone(), what });
            }
        }
        Ok(())
    }

    fn copy(
        &mut self,
        mut target: Target,
        base: Option<Base>,
        include: IncludeDisks,
        vm: &Vm,
    ) -> Result<Captured, CreateError> {
        let saved = vm.save()?;
        let config = self.config.from_the_root().map_err(CreateError::Folder)?;
        let mut state = StateV2::new(&config)?;
        state.sections = saved.sections()?;
        for drive in &self.config.drives {
            let Some(path) = &drive.path_on_host else { continue };
            let disk = DiskV2::look(&drive.drive_id, path, drive.is_read_only);
            let failed =
                |source| CreateError::Drive { id: drive.drive_id.clone(), path: path.clone(), source };
            let mut disk = disk.map_err(failed)?;
            if include != IncludeDisks::None && !drive.is_read_only {
                let Target::Folder(partial) = &mut target else { return Err(CreateError::DisksWithFiles) };
                disk.included = Some(partial.add_disk(&disk, path, include)?);
            }
            state.disks.push(disk);
        }
        let dirty = if self.config.machine_config.track_dirty_pages {
            let mut dirty = self.lineage.take_unsaved();
            // What is lost with an error is in no log any more: the next diff would be wrong.
            let taken = vm.take_dirty_pages().inspect_err(|_| self.lineage = Lineage::default());
            dirty.add(&taken.map_err(SaveError::from)?);
            Some(dirty)
        } else {
            None
        };
        let pages = match (&base, &dirty) {
            (Some(_), Some(dirty)) => {
                let pages = Pages::of(dirty.ranges()).coalesced(MAX_RANGES);
                state.memory.pages = Some(pages.numbers());
                pages
            }
            // What another process has not been asked for yet was not touched either.
            _ if vm.pager().is_some() => Pages::all(state.memory.len()),
            // A host that does not tell which pages were touched has all of them looked at.
            _ => touched(vm.memory()).unwrap_or_else(|_| Pages::all(state.memory.len())),
        };
        let replaced = match base {
            Some(Base::Below(base)) => {
                state.base = Some(base);
                None
            }
            Some(Base::Replaced(folder)) => Some(folder),
            None => None,
        };
        // A page that the file lacks is SIGBUS for whoever reads it. It can still be cut while it is read.
        let whole = || if vm.memory_is_whole() { Ok(()) } else { Err(CreateError::Cut) };
        let written = whole().and_then(|()| Ok(target.write(vm.memory(), &pages)?)).and_then(|()| whole());
        if let Err(error) = written {
            self.lineage.keep(dirty);
            return Err(error);
        }
        let CpuDescription { vendor, model, features } = saved.cpu();
        let cpu = Cpu { vendor, model, features };
        Ok(Captured { target, state, config, cpu, dirty, replaced })
    }

    /// Answers who asked for the snapshot that is being written, if it is done.
    pub(super) fn finish_snapshot(&mut self, live: &mut Live) {
        if let Some(writing) = &mut self.writing
            && let Ok(result) = writing.written.try_recv()
        {
            let (then, is_written) = (writing.then, result.is_ok());
            self.end_snapshot(result);
            match then {
                Then::End { .. } if is_written => self.is_to_end = true,
                Then::End { ran: true } => drop(self.resume(live)),
                Then::End { ran: false } | Then::Stay => {}
            }
        }
    }

    fn end_snapshot(&mut self, result: Result<Chain, CreateError>) {
        let Some(Writing { asker, dirty, .. }) = self.writing.take() else { return };
        let followed = result.and_then(|chain| {
            self.lineage.follow(&chain)?;
            Ok(chain)
        });
        let answer = match followed {
            Ok(chain) => {
                let path =
                    std::path::absolute(&chain.top().path).unwrap_or_else(|_| chain.top().path.clone());
                log::info!("a snapshot is in {}", path.display());
                self.counted.snapshots.increment();
                self.told.tell(&Event::Snapshot { path: path.display().to_string() });
                Ok(Response::Done)
            }
            Err(error) => {
                self.lineage.keep(dirty);
                Err(Refusal::Snapshot(Box::new(error)))
            }
        };
        if let Some(asker) = asker {
            self.give(asker, answer);
        }
    }

    /// Whether the VM ends when the snapshot that is being written is safe.
    pub(super) fn is_ending(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.then != Then::Stay)
    }

    /// Waits for the snapshot that is being written: until it is when the guest has ended, and for a moment when a signal is
    /// to end it all, so that nothing half is left where the disk is not slow. The signal is returned.
    pub(super) fn wait_for_snapshot(&mut self, mut until: Option<Instant>) -> Option<i32> {
        let mut signal = None;
        while let Some(writing) = &self.writing {
            match writing.written.recv_timeout(LOOK) {
                Ok(result) => self.end_snapshot(result),
                Err(RecvTimeoutError::Disconnected) => self.writing = None,
                Err(RecvTimeoutError::Timeout) if until.is_some_and(|until| Instant::now() > until) => {
                    self.writing = None;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(Signal::Terminate(number)) = self.signals.read() {
                        signal = Some(number);
                        until.get_or_insert_with(|| Instant::now() + LAST_MOMENT);
                    }
                }
            }
        }
        signal
    }
}

/// Adds to a diff all pages of the snapshot that it replaces, and makes it what that snapshot was.
fn merge(target: &Target, state: &mut StateV2, replaced: Option<&Folder>) -> Result<(), SnapshotError> {
    let Some(replaced) = replaced else { return Ok(()) };
    let (ours, theirs) = (state.memory.pages(), replaced.state.memory.pages());
    target.add(&replaced.memory, &replaced.memory_path, &theirs.without(&ours))?;
    state.base.clone_from(&replaced.state.base);
    let all = ours.union(&theirs);
    if state.base.is_some() && all.ranges().len() > MAX_RANGES {
        return Err(SnapshotError::TooManyRanges { path: replaced.path.clone(), limit: MAX_RANGES });
    }
    state.memory.pages = state.base.is_some().then(|| all.numbers());
    Ok(())
}

/// Has the snapshot written to the disk and given its name; it is opened again.
fn commit(
    target: Target,
    state: &mut StateV2,
    config: &VmConfig,
    cpu: Cpu,
    request: &CreateSnapshot,
) -> Result<Chain, SnapshotError> {
    let CreateSnapshot { snapshot_path, mem_file_path, .. } = request;
    match target {
        Target::Folder(partial) => drop(partial.commit(state, config, cpu)?),
        Target::Files(pair) => pair.commit(state)?,
    }
    Chain::of(match mem_file_path {
        None => Folder::open(snapshot_path)?,
        Some(memory) => Folder::open_files(snapshot_path, memory)?,
    })
}
