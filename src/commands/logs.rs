//! `rvmm logs ID`: what the guest wrote to its consoles, or what rvmm logged.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use super::{Outcome, fit, print};
use crate::args::LogsArgs;
use crate::name::known::{self, Known, PATIENCE};
use crate::name::regular;

/// Bytes of rvmm's own log that are read: more than it grows to.
const MAX_LOG: u64 = 4 << 20;

/// Prints the last of the guest's output as it came, or the log.
pub(crate) fn run(args: &LogsArgs) -> Outcome {
    let vm = known::find(&args.vm.id)?;
    if args.vmm {
        return print(fit::text(&own_log(&vm)?).as_bytes());
    }
    let asked = vm.reach("read the console of", PATIENCE)?;
    if !args.follow {
        return print(&asked.get("/rvmm/console")?);
    }
    asked.follow("/rvmm/console?follow=true", write, super::note_loss)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to stdout what must not wait there.
pub(crate) fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush())
}

fn own_log(vm: &Known) -> Result<Vec<u8>, String> {
    let path = vm.log();
    let mut log = Vec::new();
    match regular::open(&path).and_then(|file| file.take(MAX_LOG).read_to_end(&mut log)) {
        Ok(_) => Ok(log),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "{} has no log of its own: it was not started with --detach, or with --log-file",
            vm.id
        )),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}
