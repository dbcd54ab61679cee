//! `rvmm console ID`: sits down at the console of a VM that runs already, and leaves it as it was.

use std::io::{self, Read as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use vmm::console::{Command, Escape, Keys, Terminal};

use super::{Outcome, logs, note_loss};
use crate::args::VmArgs;
use crate::name::known::{Known, PATIENCE, find};

/// What `Ctrl-A h` prints.
const HELP: &str = "\n\
rvmm: Ctrl-A d      leave the console; the VM runs on (Ctrl-A x does the same)\n\
rvmm: Ctrl-A h      this help\n\
rvmm: Ctrl-A Ctrl-A send Ctrl-A to the guest";

/// Bytes that are read at once, and how many such pieces wait for the guest.
const READ_SIZE: usize = 1024;
const PIECES: usize = 64;
/// How long the last keys may take to reach the guest.
const LAST_KEYS: Duration = Duration::from_millis(500);

/// Why the console is left.
enum Leave {
    /// The user wants to.
    Asked,
    /// All that the user typed has reached the guest.
    Typed,
    /// The VM has ended.
    Ended,
    /// Something went wrong.
    Failed(String),
}

/// Shows what the guest writes and types what is typed, until the user or the VM has had enough.
pub(crate) fn run(args: &VmArgs) -> Outcome {
    let vm = Arc::new(find(&args.id)?);
    // Asked before the terminal is touched.
    vm.reach("attach to", PATIENCE)?.get("/")?;
    let terminal = Terminal::on_stdin();
    if let Some(terminal) = &terminal {
        terminal.restore_when_ended();
        eprintln!("rvmm: this is the console of {}; Ctrl-A d leaves it", vm.id);
        terminal.make_raw();
    }
    let on_terminal = terminal.is_some();
    let (leave, left) = mpsc::channel();
    let (typed, to_type) = mpsc::sync_channel(PIECES);
    let (granted, is_granted) = mpsc::sync_channel(1);
    // They end with the process: each waits for somebody who may never come.
    thread::spawn({
        let leave = leave.clone();
        move || read(on_terminal, &typed, &leave)
    });
    thread::spawn({
        let (vm, leave) = (vm.clone(), leave.clone());
        move || {
            // What is typed may end the guest, and its last words are to be shown.
            if is_granted.recv().is_ok() {
                type_at(&vm, on_terminal, &to_type, &leave);
            }
        }
    });
    thread::spawn({
        let vm = vm.clone();
        move || leave.send(show(&vm, &granted))
    });
    let reason = left.recv();
    if let Ok(Leave::Asked) = reason {
        // A guest that does not read does not keep the user here.
        let _ = left.recv_timeout(LAST_KEYS);
    }
    drop(terminal);
    match reason {
        Ok(Leave::Failed(error)) => return Err(error.into()),
        Ok(Leave::Ended) if on_terminal => eprintln!("rvmm: {} has ended", vm.id),
        Ok(Leave::Asked) => eprintln!("\nrvmm: {} runs on", vm.id),
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows what the guest writes, until there is no more; says on `granted` that nothing of it will be missed from now on.
fn show(vm: &Known, granted: &SyncSender<()>) -> Leave {
    let write = |bytes: &[u8]| {
        // Once is enough.
        let _ = granted.try_send(());
        logs::write(bytes)
    };
    let shown = vm
        .reach("read the console of", PATIENCE)
        .and_then(|asked| asked.follow("/rvmm/console?follow=true", write, note_loss));
    shown.map_or_else(Leave::Failed, |()| Leave::Ended)
}

/// Reads what is typed. A terminal is always read, because Ctrl-A d must work; what is too much for the guest is lost, as
/// on a serial line. A pipe waits.
fn read(on_terminal: bool, typed: &SyncSender<Option<Vec<u8>>>, leave: &Sender<Leave>) {
    let mut escape = Escape::new(Keys::Visitor);
    let mut buffer = [0; READ_SIZE];
    loop {
        let bytes = match io::stdin().read(&mut buffer) {
            // The guest goes on without input.
            Ok(0) => return,
            Ok(len) => buffer.get(..len).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let _ = leave.send(Leave::Failed(format!("cannot read standard input: {error}")));
                return;
            }
        };
        if !on_terminal {
            if typed.send(Some(bytes.to_vec())).is_err() {
                return;
            }
            continue;
        }
        let mut guest = Vec::new();
        let commands = escape.filter(bytes, &mut guest);
        if !guest.is_empty() {
            let _ = typed.try_send(Some(guest));
        }
        if commands.contains(&Command::Help) {
            eprintln!("{HELP}");
        }
        if commands.contains(&Command::Quit) {
            let _ = leave.send(Leave::Asked);
            let _ = typed.try_send(None);
            return;
        }
    }
}

/// Types what was read. A guest that does not read loses what is typed at a terminal; from a pipe nothing may be lost.
fn type_at(vm: &Known, on_terminal: bool, to_type: &Receiver<Option<Vec<u8>>>, leave: &Sender<Leave>) {
    let mut complained = false;
    while let Ok(bytes) = to_type.recv() {
        let Some(bytes) = bytes else {
            let _ = leave.send(Leave::Typed);
            return;
        };
        let typed =
            vm.reach("type at the console of", PATIENCE).and_then(|asked| asked.put("/rvmm/console", bytes));
        match typed {
            Ok(()) => complained = false,
            Err(_) if on_terminal && complained => {}
            Err(error) if on_terminal => {
                complained = true;
                eprintln!();
                crate::complain(&format!("rvmm: {error}"));
            }
            // When the VM has ended, who shows what it wrote says so.
            Err(_) if !vm.is_alive() => return,
            Err(error) => {
                let _ = leave.send(Leave::Failed(error));
                return;
            }
        }
    }
}
