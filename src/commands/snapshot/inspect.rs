//! `rvmm snapshot inspect DIR`

use std::path::Path;

use vmm::snapshot::Manifest;
use vmm::snapshot::manifest::Device;
use vmm::text_file;

use super::super::{Outcome, fit, print, table};
use crate::args::InspectArgs;

/// Prints what is in a snapshot.
pub(super) fn run(args: &InspectArgs) -> Outcome {
    let dir = &args.snapshot.dir;
    let manifest = manifest(dir)?;
    if args.json {
        return fit::print_json(&manifest);
    }
    print(fit::text(table::table(&rows(&manifest)).as_bytes()).as_bytes())
}

/// What the snapshot in `dir` says of itself.
pub(super) fn manifest(dir: &Path) -> Result<Manifest, String> {
    let path = dir.join("manifest.json");
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = text_file::read(&path).map_err(|error| named(&error))?;
    serde_json::from_str(&text).map_err(|error| named(&error))
}

fn rows(manifest: &Manifest) -> Vec<[String; 2]> {
    let Manifest { id, created, rvmm_version, kernel, initrd, vcpus, memory, devices, cpu, base, .. } =
        manifest;
    let mut rows = Vec::new();
    let mut add = |name: &str, value: String| rows.push([name.to_owned(), value]);
    add("id", id.clone());
    add(
        "kind",
        base.as_ref().map_or_else(|| "full".to_owned(), |base| format!("diff on top of {}", base.path)),
    );
    add("created", format!("{created} by rvmm {rvmm_version}"));
    for (name, file) in [("kernel", kernel), ("initrd", initrd)] {
        if let Some(file) = file {
            add(name, file.clone());
        }
    }
    add("cpus", vcpus.to_string());
    add(
        "memory",
        format!("{}, {} of it in the snapshot", table::size(memory.size), table::size(memory.in_use)),
    );
    for Device { kind, id, host } in devices {
        let words = [id, host].into_iter().flatten().cloned().collect::<Vec<_>>();
        add(kind, words.join(" "));
    }
    add("host", format!("{} {}", cpu.vendor, cpu.model).trim().to_owned());
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_snapshot_is_shown_in_lines_of_a_name_and_a_value() {
        let manifest = serde_json::from_value(json!({
            "format": 1, "id": "ab", "created": "2026-01-31T12:00:00.123Z", "rvmm_version": "0.1.0", "vcpus": 2,
            "kernel": "/k", "memory": {"size": 128 << 20, "in_use": 3 << 20, "pages_sha256": ""},
            "state": {"size": 4096, "sha256": ""}, "base": {"id": "", "path": "/b", "state_sha256": ""},
            "devices": [{"kind": "drives", "id": "rootfs", "host": "/d"}, {"kind": "entropy"}],
        }));
        let text = table::table(&rows(&manifest.unwrap()));
        for line in [
            "kind     diff on top of /b\n",
            "memory   128.0 MiB, 3.0 MiB of it in the snapshot\n",
            "drives   rootfs /d\n",
            "cpus     2\n",
        ] {
            assert!(text.contains(line), "{line:?} is missing:\n{text}");
        }
    }
}
