//! The VMMs: which there are, and how each is told to run the same guest.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::ValueEnum as _;
use serde_json::{Value, json};

use super::place::Resources;
use crate::args::Group;
use crate::own::programs::{self, firecracker, on_path};

/// Memory of a guest.
const MEMORY_MIB: u64 = 512;

/// The guest's context identifier on vsock.
const CID: u32 = 3;

/// What a guest has beside its root disk.
#[derive(Clone, Default)]
pub(crate) struct Devices {
    /// The image of a second disk.
    pub(crate) disk: Option<PathBuf>,
    /// A tap that is there.
    pub(crate) tap: Option<&'static str>,
    /// The unix socket of vsock.
    pub(crate) vsock: Option<PathBuf>,
}

/// What a VMM is to run, beside the kernel command line.
pub(crate) struct Machine<'a> {
    pub(crate) resources: &'a Resources,
    pub(crate) folder: &'a Path,
    pub(crate) devices: Devices,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Transport {
    Mmio,
    Pci,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Engine {
    Sync,
    IoUring,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Kind {
    Rvmm,
    Firecracker,
    Qemu,
}

/// A VMM with the choices that are its user's.
pub(crate) struct Vmm {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    program: PathBuf,
    /// None where it can't be chosen.
    transport: Option<Transport>,
    engine: Engine,
}

impl Vmm {
    fn new(kind: Kind, program: &Path, transport: Option<Transport>, engine: Option<Engine>) -> Self {
        let name = match kind {
            Kind::Rvmm => "rvmm",
            Kind::Firecracker => "Firecracker",
            Kind::Qemu => "QEMU microvm",
        };
        let transport_name = match transport {
            None | Some(Transport::Mmio) => "mmio",
            Some(Transport::Pci) => "pci",
        };
        let engine_name = match engine {
            None => "",
            Some(Engine::Sync) => " sync",
            Some(Engine::IoUring) => " io_uring",
        };
        Self {
            name: format!("{name} {transport_name}{engine_name}"),
            kind,
            program: program.to_owned(),
            transport,
            engine: engine.unwrap_or(Engine::Sync),
        }
    }

    /// The command that runs the guest until it is killed. Guests differ in nothing but what their VMM adds to the
    /// command line by itself.
    ///
    /// # Errors
    /// Firecracker's configuration cannot be written.
    pub(crate) fn command(&self, machine: &Machine, script: &str) -> anyhow::Result<Command> {
        let line = format!("console=ttyS0 quiet reboot=k panic=-1 root=/dev/vda ro rvmm.run=\"{script}\"");
        let mut command = Command::new(&self.program);
        command.args(match self.kind {
            Kind::Rvmm => self.rvmm(machine, line),
            Kind::Firecracker => self.firecracker(machine, &line)?,
            Kind::Qemu => qemu(machine, line),
        });
        Ok(command)
    }

    fn rvmm(&self, machine: &Machine, line: String) -> Vec<OsString> {
        let Resources { kernel, initrd, rootfs } = machine.resources;
        let mut args: Vec<OsString> =
            vec!["--kernel".into(), kernel.into(), "--initrd".into(), initrd.into()];
        args.extend(["--memory".into(), format!("{MEMORY_MIB}M").into(), "--cmdline".into(), line.into()]);
        args.extend(["--rootfs".into(), format!("{},readonly", rootfs.display()).into()]);
        if let Some(transport) = self.transport {
            let name = if transport == Transport::Pci { "pci" } else { "mmio" };
            args.extend(["--transport".into(), name.into()]);
        }
        if let Some(disk) = &machine.devices.disk {
            let engine = if self.engine == Engine::Sync { "sync" } else { "io_uring" };
            args.extend(["--disk".into(), format!("path={},engine={engine}", disk.display()).into()]);
        }
        if let Some(tap) = machine.devices.tap {
            args.extend(["--net".into(), format!("tap={tap}").into()]);
        }
        if let Some(socket) = &machine.devices.vsock {
            args.extend(["--vsock".into(), format!("cid={CID},uds={}", socket.display()).into()]);
        }
        args
    }

    fn firecracker(&self, machine: &Machine, line: &str) -> anyhow::Result<Vec<OsString>> {
        let Resources { kernel, initrd, rootfs } = machine.resources;
        let drive = |id: &str, path: &Path, read_only: bool| {
            json!({
                "drive_id": id, "path_on_host": path, "is_root_device": false, "is_read_only": read_only,
                "io_engine": if self.engine == Engine::Sync { "Sync" } else { "Async" },
            })
        };
        let mut drives = vec![drive("root", rootfs, true)];
        drives.extend(machine.devices.disk.iter().map(|disk| drive("data", disk, false)));
        let mut config = json!({
            "boot-source": {"kernel_image_path": kernel, "initrd_path": initrd, "boot_args": line},
            "machine-config": {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB},
            "drives": drives,
        });
        if let (Some(tap), Some(config)) = (machine.devices.tap, config.as_object_mut()) {
            let interface = json!({"iface_id": "eth0", "host_dev_name": tap});
            config.insert("network-interfaces".to_owned(), Value::from(vec![interface]));
        }
        if let (Some(socket), Some(config)) = (&machine.devices.vsock, config.as_object_mut()) {
            config.insert("vsock".to_owned(), json!({"guest_cid": CID, "uds_path": socket}));
        }
        let file = machine.folder.join("firecracker.json");
        fs::write(&file, config.to_string()).with_context(|| file.display().to_string())?;
        let mut args: Vec<OsString> = vec!["--no-api".into(), "--config-file".into(), file.into()];
        args.extend(["--level".into(), "Off".into()]);
        if self.transport == Some(Transport::Pci) {
            args.push("--enable-pci".into());
        }
        Ok(args)
    }
}

fn qemu(machine: &Machine, line: String) -> Vec<OsString> {
    let Resources { kernel, initrd, rootfs } = machine.resources;
    let text = "-M microvm,rtc=on -accel kvm -cpu host -smp 1 -name guest,debug-threads=on -nodefaults -no-user-config -display none \
                -serial stdio -no-reboot -object iothread,id=io";
    let mut args: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
    args.extend(["-m".into(), MEMORY_MIB.to_string().into(), "-kernel".into(), kernel.into()]);
    args.extend(["-initrd".into(), initrd.into(), "-append".into(), line.into()]);
    let mut disk = |id: &str, path: &Path, options: &str| {
        let drive = format!(
            "id={id},file={},format=raw,if=none,{options}",
            path.display().to_string().replace(',', ",,")
        );
        args.extend(["-drive".into(), drive.into()]);
        args.extend(["-device".into(), format!("virtio-blk-device,drive={id},iothread=io").into()]);
    };
    disk("root", rootfs, "readonly=on");
    if let Some(path) = &machine.devices.disk {
        disk("data", path, "aio=threads");
    }
    if let Some(tap) = machine.devices.tap {
        args.extend(["-netdev".into(), format!("tap,id=net,ifname={tap},script=no,downscript=no").into()]);
        args.extend(["-device".into(), "virtio-net-device,netdev=net".into()]);
    }
    args
}

/// The VMMs that this host has, for measurements of `group`.
///
/// # Errors
/// There is no rvmm.
pub(crate) fn all(group: Group) -> anyhow::Result<Vec<Vmm>> {
    const BOTH: &[Option<Transport>] = &[Some(Transport::Mmio), Some(Transport::Pci)];
    let rvmm = programs::rvmm()?;
    let can_choose = programs::has(&programs::rvmm_help()?, "--transport");
    let mut all = Vec::new();
    for transport in if can_choose { BOTH } else { &[None] } {
        all.extend(engines(group).map(|engine| Vmm::new(Kind::Rvmm, &rvmm, *transport, engine)));
    }
    if let Some(program) = firecracker() {
        for transport in BOTH {
            all.extend(
                engines(group).map(|engine| Vmm::new(Kind::Firecracker, &program, *transport, engine)),
            );
        }
    } else if let Some(program) = on_path("qemu-system-x86_64").filter(|_| group != Group::Vsock) {
        all.push(Vmm::new(Kind::Qemu, &program, None, None));
    }
    Ok(all)
}

/// The programs of the VMMs.
///
/// # Errors
/// There is no rvmm.
pub(crate) fn programs() -> anyhow::Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for group in Group::value_variants() {
        programs.extend(all(*group)?.into_iter().map(|vmm| vmm.program));
    }
    programs.sort();
    programs.dedup();
    Ok(programs)
}

/// The engines to tell apart: those of disks, where disks are what is measured.
fn engines(group: Group) -> impl Iterator<Item = Option<Engine>> {
    let engines: &[Option<Engine>] =
        if group == Group::Block { &[Some(Engine::Sync), Some(Engine::IoUring)] } else { &[None] };
    engines.iter().copied()
}
