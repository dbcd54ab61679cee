//! All kinds of devices that need nothing of the host but `/dev/kvm`.

use std::path::Path;
use std::sync::Arc;

use devices::mmds::MmdsStore;
use devices::virtio::block::SECTOR_SIZE;
use devices::virtio::state::DeviceState;
use skip::Capability;

use super::*;
use crate::config::VmConfig;
use crate::console::{ConsoleConfig, Output};
use crate::kvm::Host;
use crate::layout;
use crate::memory::{self, HugePages};
use crate::vcpu::Buses;

/// Two drives, an entropy device, a balloon, a console and a socket device, with their files in `folder`.
fn config(folder: &Path, transport: &str) -> VmConfig {
    for name in ["a", "b"] {
        std::fs::write(folder.join(name), vec![0; 64 * SECTOR_SIZE as usize]).unwrap();
    }
    let drive = |name: &str, root: bool| {
        let path = folder.join(name);
        serde_json::json!({"drive_id": name, "path_on_host": path, "is_root_device": root, "is_read_only": false})
    };
    let config = serde_json::json!({
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 16, "transport": transport},
        "drives": [drive("a", true), drive("b", false)],
        "entropy": {},
        "balloon": {"amount_mib": 1, "deflate_on_oom": true, "stats_polling_interval_s": 0},
        "console": {},
        "vsock": {"guest_cid": 3, "uds_path": folder.join("vsock")},
    });
    VmConfig::from_json(&config.to_string()).unwrap()
}

/// The devices of a VM, and how its guest would reach them.
struct Made {
    set: DeviceSet,
    buses: Buses,
}

/// Makes the devices; if the host has no KVM, the running test is skipped.
fn make(config: &VmConfig) -> Option<Made> {
    let host = skip::available(Capability::Kvm, Host::open())?;
    let vm = Arc::new(host.create_vm().unwrap());
    vm.create_irq_chip().unwrap();
    let memory = memory::create(16, HugePages::None, false).unwrap();
    let output = Output::open(&ConsoleConfig::None, config).unwrap();
    let mut buses = Buses::default();
    let metadata = Arc::new(MmdsStore::default());
    let set = DeviceSet::create(config, &vm, &memory, &output, &metadata, &mut buses).unwrap();
    Some(Made { set, buses })
}

const NAMES: [&str; 6] = ["drive \"a\"", "drive \"b\"", "entropy", "balloon", "console", "vsock"];

#[test]
fn what_was_saved_of_every_device_is_what_a_restored_vm_has() {
    for transport in ["mmio", "pci"] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), transport);
        let Some(made) = make(&config) else { return };
        let _ = made.buses.pio.write(u64::from(layout::SERIAL_PORT) + 7, &[0x5a]);
        let _ = made.buses.pio.write(u64::from(layout::ACPI_POWER_PORT), &[0x14]);
        let state = made.set.save().unwrap();
        let names: Vec<&str> = state.virtio.iter().map(|slot| slot.name.as_str()).collect();
        assert_eq!(names, NAMES);
        let bytes = postcard::to_stdvec(&state).unwrap();
        // Its drives are locked, and its socket taken, until it is gone.
        drop(made);
        let restored = make(&config).unwrap();
        restored.set.restore(&postcard::from_bytes(&bytes).unwrap()).unwrap();
        restored.set.kick();
        let mut scratch = [0];
        restored.buses.pio.read(u64::from(layout::SERIAL_PORT) + 7, &mut scratch);
        assert_eq!(scratch, [0x5a]);
        assert_eq!(restored.set.save().unwrap(), state);
    }
}

#[test]
fn a_state_that_does_not_go_with_the_configuration_is_refused_with_the_device_s_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "pci");
    let Some(made) = make(&config) else { return };
    let state = made.set.save().unwrap();
    drop(made);
    let refused = |change: &dyn Fn(&mut DevicesStateV1), reason: &str| {
        let mut state = state.clone();
        change(&mut state);
        let error = make(&config).unwrap().set.restore(&state).unwrap_err().to_string();
        assert!(error.contains(reason), "{error:?} for {reason:?}");
    };
    let all = NAMES.join(", ");
    let lacks = format!("the snapshot is of a VM with no virtio device, and this one has {all}");
    refused(&|state| state.virtio.clear(), &lacks);
    refused(&|state| state.virtio.truncate(5), "console, and this one has");
    refused(&|state| state.virtio[1].name = "drive \"c\"".to_owned(), "drive \"a\", drive \"c\", entropy");
    refused(&|state| state.virtio.swap(0, 1), "drive \"b\", drive \"a\", entropy");
    refused(&|state| state.virtio.resize(MAX_VIRTIO, state.virtio[0].clone()), "a VM with 64 virtio devices");
    refused(
        &|state| {
            let [first, .., last] = &mut state.virtio[..] else { panic!("{:?}", state.virtio) };
            std::mem::swap(&mut first.virtio, &mut last.virtio);
        },
        "drive \"a\": ",
    );
    refused(
        &|state| {
            let DeviceState::BlockV1(block) = &mut state.virtio[1].virtio.device else { panic!("no drive") };
            block.sectors += 1;
        },
        "drive \"b\": the disk had 33280 bytes when it was saved, and the file has 32768",
    );
}

#[test]
fn more_virtio_devices_than_any_vm_has_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let Some(made) = make(&config(folder.path(), "pci")) else { return };
    let mut state = made.set.save().unwrap();
    for (count, is_read) in [(MAX_VIRTIO, true), (MAX_VIRTIO + 1, false)] {
        state.virtio.resize(count, state.virtio[0].clone());
        let bytes = postcard::to_stdvec(&state).unwrap();
        assert_eq!(postcard::from_bytes::<DevicesStateV1>(&bytes).is_ok(), is_read, "{count}");
    }
}
