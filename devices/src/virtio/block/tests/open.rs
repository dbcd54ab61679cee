//! Which configurations and which files make a disk.

use std::path::{Path, PathBuf};

use super::*;

fn refusal(path: &Path, change: impl FnOnce(&mut BlockConfig)) -> String {
    let mut config = config(path, IoEngine::Sync);
    change(&mut config);
    let error = BlockDevice::open(&config).err().expect("it must be refused");
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

fn image(len: u64) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(len).unwrap();
    (directory, path)
}

#[test]
fn the_wire_form_has_the_names_and_defaults_of_the_rest_api() {
    let json = r#"{"drive_id": "data", "is_root_device": true, "path_on_host": "/x"}"#;
    let config: BlockConfig = serde_json::from_str(json).unwrap();
    assert_eq!((config.cache_type, config.io_engine, config.is_read_only), (CacheType::Unsafe, None, false));
    let json = r#"{"drive_id":"data","is_root_device":false,"path_on_host":"/x","is_read_only":true,"cache_type":"Writeback","io_engine":"Async"}"#;
    let config: BlockConfig = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&config).unwrap(), json);
    for wrong in [
        r#"{"drive_id": "data"}"#,
        r#"{"is_root_device": true}"#,
        r#"{"drive_id": "data", "is_root_device": true, "path": "/x"}"#,
        r#"{"drive_id": "data", "is_root_device": true, "io_engine": "Threads"}"#,
    ] {
        assert!(serde_json::from_str::<BlockConfig>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_not_supported_yet_is_refused_by_name() {
    let path = Path::new("/nowhere");
    let socket = refusal(path, |config| config.socket = Some("/x".into()));
    assert_eq!(socket, "drive rootfs: socket is not supported yet");
}

#[test]
fn ids_and_paths_are_checked() {
    for id in ["", "a b", "../x", "ä", &"x".repeat(65)] {
        let message = refusal(Path::new("/nowhere"), |config| config.drive_id = id.into());
        assert!(message.starts_with(&format!("drive id {id:?} must have")), "{message}");
    }
    let message = refusal(Path::new("/nowhere"), |config| config.path_on_host = None);
    assert_eq!(message, "drive rootfs: path_on_host is missing");
}

#[test]
fn a_file_that_is_no_disk_is_refused_with_the_mend() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.img");
    let message = refusal(&missing, |_| {});
    assert!(message.contains("missing.img") && message.contains("No such file"), "{message}");

    for read_only in [true, false] {
        let message = refusal(directory.path(), |config| config.is_read_only = read_only);
        assert!(message.contains("is a directory"), "{message}");
        let message = refusal(Path::new("/dev/null"), |config| config.is_read_only = read_only);
        assert!(message.contains("is a character device"), "{message}");
    }
    let fifo = directory.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for read_only in [true, false] {
        let message = refusal(&fifo, |config| config.is_read_only = read_only);
        assert!(message.contains("is a FIFO"), "{message}");
    }
    let socket = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(refusal(&socket, |_| {}).contains("is a socket"));
}

#[test]
fn sizes_that_no_disk_has_are_refused_with_the_mend() {
    let (_directory, path) = image(0);
    assert!(refusal(&path, |_| {}).contains("is empty"));
    for len in [1, 511, 513, (1 << 20) + 1] {
        let (_directory, path) = image(len);
        let message = refusal(&path, |_| {});
        assert!(
            message.contains(&format!("has {len} bytes")) && message.contains("truncate -s %512"),
            "{message}"
        );
    }
}

#[test]
fn a_disk_has_one_writer_or_many_readers() {
    let (_directory, path) = image(1 << 20);
    let open = |read_only| {
        let mut config = config(&path, IoEngine::Sync);
        config.is_read_only = read_only;
        BlockDevice::open(&config)
    };
    let writer = open(false).unwrap();
    assert_eq!(writer.size(), 1 << 20);
    for read_only in [true, false] {
        let message = open(read_only).err().unwrap().to_string();
        assert!(message.contains("in use by another rvmm or another process"), "{message}");
    }
    drop(writer);
    let (first, second) = (open(true).unwrap(), open(true).unwrap());
    assert!(matches!(open(false), Err(BlockError::InUse { .. })));
    drop((first, second));
    assert!(open(false).is_ok());
}

#[test]
fn a_disk_of_a_running_device_is_locked_until_the_device_is_gone() {
    let disk = Disk::new(IoEngine::Async);
    assert!(matches!(BlockDevice::open(&disk.config), Err(BlockError::InUse { .. })));
    let config = disk.config.clone();
    let Disk { harness, device, directory: _directory, .. } = disk;
    drop((harness, device));
    assert!(BlockDevice::open(&config).is_ok());
}

#[test]
fn an_image_that_cannot_be_written_says_so() {
    let (_directory, path) = image(1 << 20);
    let proc_file = Path::new("/proc/version");
    assert!(refusal(proc_file, |_| {}).contains("/proc/version"));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    // Root may write it all the same.
    if let Err(error) = BlockDevice::open(&config(&path, IoEngine::Sync)) {
        assert!(error.to_string().contains("for writing (get the right to write it"), "{error}");
    }
}

#[test]
fn without_a_choice_of_engine_the_disk_works() {
    let mut disk = Disk::with(IoEngine::Sync, FLUSH, |config| config.io_engine = None);
    assert_eq!(disk.read(3, 512), (OK, sector(3)));
}
