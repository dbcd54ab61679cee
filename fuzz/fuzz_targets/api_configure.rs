//! Requests that configure a VM, one after the other: any methods, paths and bodies.
//!
//! Holds: no panic; a part that is taken leaves a configuration that is valid but for a kernel, and that reads back as
//! what it was written from; a part that is refused leaves what was there. Lines of three: method, path, body. Kernels that
//! are named are looked at and not run; nothing is written.
#![no_main]

use api::routes::Call;
use libfuzzer_sys::fuzz_target;
use vmm::config::{BootSourceConfig, VmConfig};
use vmm::controller::Request;

/// Requests in a row.
const MAX_REQUESTS: usize = 16;

fuzz_target!(|input: &str| {
    let mut config = VmConfig::default();
    let lines: Vec<&str> = input.split('\n').take(3 * MAX_REQUESTS).collect();
    for request in lines.chunks_exact(3) {
        let &[method, path, body] = request else { continue };
        let Ok(Call::Ask(Request::Configure(part), _)) = Call::parse(method, path, body.as_bytes()) else {
            continue;
        };
        let Ok(with_part) = config.with(*part) else { continue };
        let written = serde_json::to_string(&with_part).unwrap();
        assert_eq!(VmConfig::from_json(&written).unwrap(), with_part);
        let mut bootable = with_part.clone();
        bootable.boot_source.get_or_insert_with(|| BootSourceConfig {
            kernel_image_path: "kernel".into(),
            boot_args: None,
            initrd_path: None,
        });
        assert_eq!(bootable.validate(), Ok(()), "{written}");
        config = with_part;
    }
});
