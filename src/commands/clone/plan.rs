//! What each clone has to itself of the host: what two VMs cannot share is refused before the first is started.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use vmm::config::{BlockConfig, DriveOverride, NetConfig, NetworkOverride, VmConfig, VsockOverride};
use vmm::snapshot::DiskV2;

use super::copy::{Copies, Image, occupied};
use crate::args::{self, CloneArgs, RestoreArgs, Stop};

/// What stands for the number of a clone.
const NUMBER: &str = "{i}";
/// What they are called when the folder has no name that will do.
const PREFIX: &str = "clone";

/// How the clones differ.
pub(super) struct Plan<'a> {
    args: &'a CloneArgs,
    prefix: String,
    config: VmConfig,
    /// Disks of which each clone gets a copy.
    copied: Vec<(String, PathBuf)>,
    /// Also of those that changed since the snapshot.
    accepts_changed_disks: bool,
}

impl<'a> Plan<'a> {
    /// # Errors
    /// What the clones cannot share, and the mend.
    pub(super) fn new(args: &'a CloneArgs, config: VmConfig) -> Result<Self, Box<dyn Error>> {
        let prefix = args.id.clone().or_else(|| name_of(&args.dir)).unwrap_or_else(|| PREFIX.to_owned());
        let mut plan = Self { args, prefix, config, copied: Vec::new(), accepts_changed_disks: false };
        let first = plan.given(1)?;
        plan.accepts_changed_disks = first.accept_changed_disks;
        plan.copied = plan.disks_to_copy(&first)?;
        plan.check_nets(&first)?;
        Ok(plan)
    }

    /// What clone `number` is called.
    pub(super) fn id(&self, number: u32) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// Makes the copies of disks that the clones have. `disks` are those of the snapshot, as they were then.
    ///
    /// # Errors
    /// A disk is not as it was, or a VM writes to it; a copy is there already; or the host's word, with the file.
    pub(super) fn copy_disks(&self, disks: &[DiskV2], copies: &mut Copies) -> Result<(), String> {
        let Some(folder) = self.args.copy_disks.as_ref().filter(|_| !self.copied.is_empty()) else {
            return Ok(());
        };
        let mut images = Vec::new();
        for (id, path) in &self.copied {
            let was = disks.iter().find(|disk| disk.drive_id == *id);
            let included = was.and_then(|was| was.included.as_ref()).map(|name| self.args.dir.join(name));
            let image = Image::open(id, included.as_deref().unwrap_or(path))?;
            if let Some(was) = was.filter(|_| included.is_none() && !self.accepts_changed_disks) {
                image.check(was)?;
            }
            for number in 1..=self.args.count {
                let copy = self.copy_of(id, number)?;
                if copy.symlink_metadata().is_ok() {
                    return Err(occupied(&copy));
                }
            }
            images.push((id, image));
        }
        copies.make_folder(folder)?;
        for number in 1..=self.args.count {
            for (id, image) in &images {
                copies.make(image, &self.copy_of(id, number)?)?;
            }
        }
        Ok(())
    }

    /// What is restored as clone `number`.
    ///
    /// # Errors
    /// What is wrong with the options that it was given.
    pub(super) fn vm(&self, number: u32) -> Result<RestoreArgs, Box<dyn Error>> {
        let mut vm = self.given(number)?;
        for (id, _) in &self.copied {
            let path_on_host = Some(self.copy_of(id, number)?);
            vm.disks.push(DriveOverride { drive_id: id.clone(), path_on_host, io_engine: None });
        }
        if let Some(vsock) = &self.config.vsock {
            let given = vm.vsock.get_or_insert_with(VsockOverride::default);
            given.uds_path.get_or_insert_with(|| numbered(&vsock.uds_path, number));
        }
        if self.args.new_mac {
            for NetConfig { iface_id, .. } in &self.config.network_interfaces {
                let given = vm.nets.iter_mut().find(|net| net.iface_id == *iface_id);
                let mac = Some(args::new_mac());
                match given {
                    Some(net) => net.guest_mac = net.guest_mac.or(mac),
                    None => vm.nets.push(NetworkOverride {
                        iface_id: iface_id.clone(),
                        guest_mac: mac,
                        ..NetworkOverride::default()
                    }),
                }
            }
        }
        Ok(vm)
    }

    /// The options that clone `number` is given.
    fn given(&self, number: u32) -> Result<RestoreArgs, Stop> {
        let mut words: Vec<OsString> = ["restore", "--detach", "--id"].map(OsString::from).into();
        words.push(self.id(number).into());
        for net in &self.args.nets {
            words.extend(["--net".into(), with_number(net, number)]);
        }
        words.extend(self.args.restore.iter().map(|word| with_number(word, number)));
        words.extend(["--".into(), self.args.dir.clone().into()]);
        args::restore(&words).map_err(|stop| match stop {
            Stop::Usage(text) | Stop::Text(text) => Stop::Usage(format!("the options of a clone: {text}")),
        })
    }

    fn copy_of(&self, drive: &str, number: u32) -> Result<PathBuf, String> {
        let folder = self.args.copy_disks.as_ref().ok_or("there is no folder for copies of disks")?;
        Ok(folder.join(format!("{}-{drive}", self.id(number))))
    }

    /// The disks that clones would write to together.
    fn disks_to_copy(&self, given: &RestoreArgs) -> Result<Vec<(String, PathBuf)>, String> {
        let own = |drive: &&BlockConfig| {
            !drive.is_read_only && !given.disks.iter().any(|disk| disk.drive_id == drive.drive_id)
        };
        let drives = self.config.drives.iter().filter(own);
        let copied: Vec<_> =
            drives.filter_map(|drive| Some((drive.drive_id.clone(), drive.path_on_host.clone()?))).collect();
        if copied.is_empty() || self.args.copy_disks.is_some() {
            return Ok(copied);
        }
        let named: Vec<String> =
            copied.iter().map(|(id, path)| format!("\"{id}\" ({})", path.display())).collect();
        Err(format!(
            "clones cannot write to one disk, and the snapshot has {}: add --copy-disks FOLDER, so that each has copies of \
             its own, or name others: -- --disk id=ID,path=FILE{NUMBER}",
            named.join(", ")
        ))
    }

    /// Refuses ends of network interfaces that only one VM can have.
    fn check_nets(&self, given: &RestoreArgs) -> Result<(), String> {
        for net in &self.config.network_interfaces {
            let id = &net.iface_id;
            let given = given.nets.iter().find(|given| given.iface_id == *id);
            if let Some(tap) = &net.host_dev_name
                && given.is_none_or(|given| given.host_dev_name.is_none())
            {
                return Err(format!(
                    "clones cannot share the tap {tap} of the network interface \"{id}\": add --net id={id},tap=NAME{NUMBER}"
                ));
            }
            let publishes = net.user.as_ref().is_some_and(|user| !user.publish.is_empty());
            if publishes && given.is_none_or(|given| given.publish.is_none()) {
                return Err(format!(
                    "clones cannot share the published ports of the network interface \"{id}\": add --net id={id},publish=none, \
                     or ports of each one's own: publish=80{NUMBER}:80"
                ));
            }
        }
        Ok(())
    }
}

/// What the VMs from the snapshot in `folder` are called.
fn name_of(folder: &Path) -> Option<String> {
    let name = folder.file_name()?.to_string_lossy();
    let fit = |letter: char| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '-' };
    // With room for a number behind it.
    let name: String = name.chars().map(fit).take(50).collect();
    Some(name).filter(|name| !name.is_empty())
}

/// `word` with the number of a clone where it belongs.
fn with_number(word: &OsStr, number: u32) -> OsString {
    let (bytes, mark) = (word.as_bytes(), NUMBER.as_bytes());
    let mut with = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(mark) {
            with.extend(number.to_string().into_bytes());
            rest = behind;
        } else {
            with.push(*first);
            rest = behind;
        }
    }
    OsString::from_vec(with)
}

/// `path` with the number of a clone behind it.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(format!("-{number}"));
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn args(words: &[&str]) -> CloneArgs {
        let words = [&["rvmm", "clone", "/s/web.snap", "-n", "3"], words].concat();
        match args::parse(&words.into_iter().map(OsString::from).collect::<Vec<_>>()) {
            Ok(args::Invocation::Verb(args::Verb::Clone(clone))) => clone,
            other => panic!("not a clone: {other:?}"),
        }
    }

    /// A snapshot with a disk of each kind, a tap, a published port and a socket; without those in `but`.
    fn config(but: &[&str]) -> VmConfig {
        let mut config = json!({
            "drives": [
                {"drive_id": "root", "is_root_device": true, "path_on_host": "/d/root", "is_read_only": true},
                {"drive_id": "data", "is_root_device": false, "path_on_host": "/d/data"},
            ],
            "network-interfaces": [
                {"iface_id": "eth0", "host_dev_name": "tap0"},
                {"iface_id": "net0", "user": {"publish": ["8080:80"]}},
            ],
            "vsock": {"guest_cid": 3, "uds_path": "/run/v.sock"},
        });
        let all: [(&str, &str, usize); 3] =
            [("data", "drives", 1), ("net0", "network-interfaces", 1), ("eth0", "network-interfaces", 0)];
        for (name, list, at) in all {
            if but.contains(&name) {
                config[list].as_array_mut().map(|list: &mut Vec<Value>| list.remove(at));
            }
        }
        VmConfig::from_json(&config.to_string()).unwrap()
    }

    fn refused(words: &[&str], but: &[&str]) -> String {
        let refused = Plan::new(&args(words), config(but)).err();
        refused.unwrap_or_else(|| panic!("{words:?} is not refused")).to_string()
    }

    #[test]
    fn what_clones_cannot_share_is_refused_with_the_mend() {
        let message = refused(&[], &[]);
        assert!(message.contains(r#""data" (/d/data): add --copy-disks FOLDER"#), "{message}");
        assert!(!message.contains("root"), "{message}");
        let message = refused(&["--copy-disks", "c"], &[]);
        assert!(message.contains("tap tap0") && message.contains("--net id=eth0,tap=NAME{i}"), "{message}");
        let message = refused(&["--net", "id=eth0,mac=new"], &["data"]);
        assert!(message.contains("tap tap0"), "{message}");
        let message = refused(&["--net", "id=eth0,tap=t{i}"], &["data"]);
        assert!(message.contains("published ports") && message.contains("id=net0,publish=none"), "{message}");
    }

    #[test]
    fn each_clone_has_a_name_disks_and_ends_of_its_own() {
        let args = args(&[
            "--copy-disks=/c",
            "--new-mac",
            "--net=id=eth0,tap=t{i}",
            "--net=id=net0,publish=80{i}:80",
            "--",
            "--metadata={i}{i}.json",
        ]);
        let plan = Plan::new(&args, config(&[])).unwrap();
        let vm = plan.vm(2).unwrap();
        assert_eq!((plan.id(2).as_str(), vm.id.as_deref()), ("web-snap-2", Some("web-snap-2")));
        assert!(vm.control.detach && vm.dir == Path::new("/s/web.snap"));
        assert_eq!(vm.metadata.metadata, Some("22.json".into()));
        let [disk] = vm.disks.as_slice() else { panic!("{:?}", vm.disks) };
        assert_eq!(
            (disk.drive_id.as_str(), disk.path_on_host.as_deref().unwrap()),
            ("data", Path::new("/c/web-snap-2-data"))
        );
        assert_eq!(vm.vsock.unwrap().uds_path, Some("/run/v.sock-2".into()));
        let [eth0, net0] = vm.nets.as_slice() else { panic!("{:?}", vm.nets) };
        assert_eq!(eth0.host_dev_name.as_deref(), Some("t2"));
        assert_eq!(net0.publish.as_ref().unwrap()[0].host_port, 802);
        assert!(eth0.guest_mac.is_some() && eth0.guest_mac != net0.guest_mac);
        assert_ne!(plan.vm(3).unwrap().nets[0].guest_mac, eth0.guest_mac);
    }

    #[test]
    fn what_the_user_gives_each_clone_is_left() {
        let args = args(&[
            "--id=w",
            "--",
            "--disk=id=data,path=d{i}",
            "--vsock=uds=u{i}",
            "--net=id=eth0,tap=t{i}",
            "--net=id=net0,publish=none",
        ]);
        let plan = Plan::new(&args, config(&[])).unwrap();
        let vm = plan.vm(1).unwrap();
        assert_eq!(vm.id.as_deref(), Some("w-1"));
        assert_eq!((vm.disks.len(), vm.disks[0].path_on_host.as_deref().unwrap()), (1, Path::new("d1")));
        assert_eq!(vm.vsock.unwrap().uds_path, Some("u1".into()));
        assert!(vm.nets.iter().all(|net| net.guest_mac.is_none()));
    }

    #[test]
    fn options_that_are_none_are_refused_before_anything_starts() {
        for (words, part) in [
            (&["--", "--bogus"][..], "unexpected argument '--bogus'"),
            (&["--", "--id", "other"], "--id"),
            (&["--net", "id=x"], "nothing is said of x"),
        ] {
            let message = refused(words, &["data", "eth0", "net0"]);
            assert!(message.contains(part) && message.contains("of a clone"), "{message}");
        }
    }

    #[test]
    fn the_folder_names_the_clones_where_it_can() {
        assert_eq!(name_of(Path::new("/s/my web.snap/")).as_deref(), Some("my-web-snap"));
        assert_eq!(name_of(Path::new("..")), None);
        assert!(name_of(Path::new(&"x".repeat(200))).unwrap().len() < 60);
    }
}
