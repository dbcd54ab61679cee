//! `rvmm restore DIR`: runs the VM that was saved, from where it was, to its end.

use std::path::Path;
use std::rc::Rc;

use vmm::config::{DriveOverride, VmConfig};
use vmm::snapshot::StateFile;

use super::Outcome;
use super::clone::copy::{Copies, Image};
use super::launch::{self, Launch};
use crate::args::RestoreArgs;
use crate::presence::Presence;

/// Runs the VM until it ends, as others see it by `presence`; the exit code says how.
pub(crate) fn run(args: &RestoreArgs, presence: &Rc<Presence>) -> Outcome {
    let mut config = VmConfig::default();
    launch::set_outputs(&mut config, &args.log, &args.control);
    let launch = Launch {
        console: &args.console,
        on_reset: args.on_reset,
        exit_on: args.exit_on.unwrap_or_default(),
        control: &args.control,
        metadata: &args.metadata,
        start_times: args.timing.start_times(),
    };
    let mut load = args.load();
    if let Some(folder) = &args.copy_disks {
        copy_disks(args, folder, &mut load.drive_overrides)?;
    }
    launch.run(config, Some(load), presence)
}

/// Copies the disks that the snapshot includes to `folder`, but for those that have another file already, and adds the
/// copies to `overrides`. They stay when the VM ends.
fn copy_disks(args: &RestoreArgs, folder: &Path, overrides: &mut Vec<DriveOverride>) -> Result<(), String> {
    let snapshot = StateFile::in_folder(&args.dir).map_err(|error| crate::chain(&error))?;
    let included =
        snapshot.state.disks.iter().filter_map(|disk| Some((&disk.drive_id, disk.included.as_ref()?)));
    let wanted: Vec<_> =
        included.filter(|(id, _)| overrides.iter().all(|given| given.drive_id != **id)).collect();
    if wanted.is_empty() {
        let dir = args.dir.display();
        return Err(format!(
            "--disks copy: {dir} includes no disk; leave it out, or save the VM with --disks reflink or copy"
        ));
    }
    let mut copies = Copies::default();
    copies.make_folder(folder)?;
    for (id, name) in wanted {
        let (image, copy) = (args.dir.join(name), folder.join(format!("{id}.img")));
        copies.make(&Image::open(id, &image)?, &copy)?;
        overrides.push(DriveOverride { drive_id: id.clone(), path_on_host: Some(copy), io_engine: None });
    }
    copies.keep();
    Ok(())
}
