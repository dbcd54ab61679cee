//! A configuration file: any text.
//!
//! Holds: no panic; what was read survives a round trip through JSON, and so does the verdict on it; and the command line
//! of a valid configuration names its root device. Errors quote the file as it is: the binary escapes what it prints.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::config::VmConfig;

fuzz_target!(|text: &str| {
    let Ok(config) = VmConfig::from_json(text) else { return };
    let written = serde_json::to_string(&config).unwrap();
    let again = VmConfig::from_json(&written).unwrap();
    assert_eq!(again, config);
    let verdict = config.validate();
    assert_eq!(again.validate(), verdict);

    let cmdline = config.cmdline();
    if verdict.is_ok() {
        let has_root = cmdline.split_whitespace().any(|word| word.starts_with("root="));
        let wants_root = config.drives.iter().any(|drive| drive.is_root_device);
        assert!(has_root || !wants_root, "{cmdline:?}");
        assert_eq!(config.drives_in_order().count(), config.drives.len());
    }
});
