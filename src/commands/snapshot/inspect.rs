//! `rvmm snapshot inspect DIR`

use vmm::snapshot::manifest::Device;
use vmm::snapshot::{self, Below, Inspection, Manifest};

use super::super::{Outcome, fit, print, table};
use crate::args::InspectArgs;

/// What the manifest calls disks.
const DRIVES: &str = "drives";

/// Prints what is in a snapshot.
pub(super) fn run(args: &InspectArgs) -> Outcome {
    let inspection = snapshot::inspect(&args.snapshot.dir)?;
    if args.json {
        return fit::print_json(&inspection);
    }
    print(fit::text(table::table(&rows(&inspection)).as_bytes()).as_bytes())
}

fn rows(inspection: &Inspection) -> Vec<[String; 2]> {
    let Inspection { manifest, memory_on_disk, disks, sections: _, on_top_of, problem } = inspection;
    let Manifest { id, created, rvmm_version, kernel, initrd, vcpus, memory, devices, cpu, .. } = manifest;
    let mut rows = Vec::new();
    // Nothing of a snapshot begins a line of its own.
    let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
    let mut add = |name: &str, value: String| rows.push([plain(name), plain(&value)]);
    add("id", id.clone());
    add("kind", if manifest.base.is_some() { "diff" } else { "full" }.to_owned());
    for Below { path, memory } in on_top_of {
        let memory = memory.as_ref().map(|memory| format!(", memory {memory}")).unwrap_or_default();
        add("on top of", format!("{path}{memory}"));
    }
    add("created", format!("{created} by rvmm {rvmm_version}"));
    for (name, file) in [("kernel", kernel), ("initrd", initrd)] {
        if let Some(file) = file {
            add(name, file.clone());
        }
    }
    add("cpus", vcpus.to_string());
    add("memory", format!("{}, {} on the disk", table::size(memory.size), table::size(*memory_on_disk)));
    for Device { kind, id, host, options } in devices {
        let mut words: Vec<String> = [id, host].into_iter().flatten().chain(options).cloned().collect();
        if let Some(disk) = disks.iter().find(|disk| kind == DRIVES && Some(&disk.drive_id) == id.as_ref()) {
            words.push(table::size(disk.size));
        }
        add(kind, words.join(" "));
    }
    if !cpu.model.is_empty() {
        add("host", cpu.model.clone());
    }
    if let Some(problem) = problem {
        add("problem", problem.clone());
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vmm::snapshot::Disk;

    #[test]
    fn a_snapshot_is_shown_in_lines_of_a_name_and_a_value() {
        let manifest = serde_json::from_value(json!({
            "format": 1, "id": "ab", "created": "2026-01-31T12:00:00.123Z", "rvmm_version": "0.1.0", "vcpus": 2,
            "kernel": "/k", "memory": {"size": 128 << 20, "in_use": 3 << 20, "pages_sha256": ""},
            "state": {"size": 4096, "sha256": ""}, "base": {"id": "", "path": "/b", "state_sha256": ""},
            "devices": [{"kind": "drives", "id": "rootfs", "host": "/d"}, {"kind": "entropy"}],
        }));
        let disk = Disk {
            drive_id: "rootfs".to_owned(),
            size: 1 << 20,
            modified: None,
            is_read_only: false,
            included: None,
        };
        let inspection = Inspection {
            manifest: manifest.unwrap(),
            memory_on_disk: 3 << 20,
            disks: vec![disk],
            sections: Vec::new(),
            on_top_of: vec![
                Below { path: "/b".to_owned(), memory: None },
                Below { path: "/a.state".to_owned(), memory: Some("/a.mem".to_owned()) },
            ],
            problem: None,
        };
        let text = table::table(&rows(&inspection));
        for line in [
            "kind       diff\non top of  /b\non top of  /a.state, memory /a.mem\n",
            "memory     128.0 MiB, 3.0 MiB on the disk\n",
            "drives     rootfs /d 1.0 MiB\n",
            "cpus       2\n",
        ] {
            assert!(text.contains(line), "{line:?} is missing:\n{text}");
        }
    }
}
