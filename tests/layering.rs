//! Dependencies point one way, between the crates and between the modules of `vmm`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

/// The workspace's packages, lowest first: each may depend on those before it.
const CRATES: [&str; 6] = ["rvmm-skip", "rvmm-devices", "rvmm-vmm", "rvmm-api", "rvmm-bench", "rvmm"];

/// The modules of `vmm`, lowest layer first: each may use those of its own layer and of the layers before it.
const VMM_LAYERS: [&[&str]; 7] = [
    &[
        "append",
        "json",
        "layout",
        "metrics",
        "signals",
        "runtime_dir",
        "seccomp",
        "text_file",
        "thread",
        "timestamp",
    ],
    &["kvm", "memory", "cpu", "boot", "acpi", "vmgenid"],
    &["config"],
    &["console", "memory_server", "snapshot"],
    &["vcpu", "pci_bus", "device_set"],
    &["vm", "event_loop"],
    &["controller"],
];

#[test]
fn crates_depend_on_lower_crates_only() {
    let edges = edges(&metadata());
    // Were nothing read, nothing would be wrong.
    assert!(edges.contains(&("rvmm-vmm".to_owned(), "rvmm-devices".to_owned())), "{edges:?}");
    assert_eq!(misplaced_dependencies(&edges), [""; 0]);
}

#[test]
fn threads_and_programs_are_started_in_one_place_each() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (call, place) in [("thread::Builder", "vmm/src/thread.rs"), ("posix_spawn(", "devices/src/child.rs")]
    {
        let mut found = Vec::new();
        for folder in ["devices/src", "vmm/src", "api/src"] {
            files_with(&root.join(folder), call, &mut found);
        }
        assert_eq!(found, [root.join(place)], "{call}");
    }
}

/// Sources below `folder` in which `text` is.
fn files_with(folder: &Path, text: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_with(&path, text, found);
        } else if path.extension().is_some_and(|kind| kind == "rs")
            && fs::read_to_string(&path).unwrap().contains(text)
        {
            found.push(path);
        }
    }
}

#[test]
fn the_threat_model_names_every_device() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let list = text.split_once("| device | there |").unwrap().1.split_once("\n\n").unwrap().0;
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let virtio = names("devices/src/virtio");
    let virtio =
        virtio.iter().filter(|name| root.join("devices/src/virtio").join(name).join("device.rs").exists());
    let mut devices: Vec<String> = virtio.map(|name| format!("virtio-{name}")).collect();
    assert!(devices.len() >= 6, "{devices:?}");
    for file in names("devices/src/legacy") {
        devices.push(match file.trim_end_matches(".rs") {
            "mod" => continue,
            "i8042" => "keyboard controller".to_owned(),
            "acpi_power" => "ACPI sleep and reset registers".to_owned(),
            "acpi_events" => "ACPI event register".to_owned(),
            other => other.replace('_', " "),
        });
    }
    for device in devices {
        assert!(list.contains(&device), "{device} is missing");
    }
}

#[test]
fn vmm_modules_use_lower_modules_only() {
    let uses = uses(&Path::new(env!("CARGO_MANIFEST_DIR")).join("vmm/src"));
    assert!(uses.contains(&("vm".to_owned(), "device_set".to_owned())), "{uses:?}");
    assert_eq!(misplaced_uses(&uses), [""; 0]);
}

#[test]
fn a_wrong_dependency_is_found() {
    for (from, to) in [
        ("rvmm-devices", "rvmm-vmm"),
        ("rvmm-vmm", "rvmm-api"),
        ("rvmm-devices", "kvm-bindings"),
        ("rvmm-api", "kvm-ioctls"),
        ("rvmm-new", "log"),
    ] {
        let wrong = misplaced_dependencies(&[(from.to_owned(), to.to_owned())]);
        assert!(matches!(&wrong[..], [one] if one.contains(from)), "{from} on {to}: {wrong:?}");
    }
}

#[test]
fn a_wrong_use_is_found_however_it_is_written() {
    for source in [
        "use crate::vm::{Vm, VmError};",
        "use crate::{\n    layout,\n    kvm::{self, host::Host},\n    vm::Vm,\n};",
        "fn f(vm: &crate::vm::Vm) {} // crate::layout",
        "pub(super) use crate::Vm;",
    ] {
        let uses: Vec<_> = used_modules(source).into_iter().map(|name| ("kvm".to_owned(), name)).collect();
        assert_eq!(misplaced_uses(&uses).len(), 1, "{source}: {uses:?}");
    }
    assert_eq!(used_modules("/// See [`vm`](crate::vm).\nuse $crate::vm;"), [""; 0]);
}

/// What Cargo knows of the workspace.
fn metadata() -> Value {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let run = |offline: &[&str]| {
        Command::new(&cargo)
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .args(offline)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap_or_else(|error| panic!("{cargo}: {error}"))
    };
    let mut output = run(&["--offline"]);
    if !output.status.success() {
        output = run(&[]);
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Who depends on what, for building or for testing.
fn edges(metadata: &Value) -> Vec<(String, String)> {
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .flat_map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            dependencies.iter().map(move |dependency| (name(package), name(dependency)))
        })
        .collect()
}

fn misplaced_dependencies(edges: &[(String, String)]) -> Vec<String> {
    let layer = |name: &str| CRATES.iter().position(|known| *known == name);
    let wrong = |(from, to): &(String, String)| {
        let Some(own) = layer(from) else {
            return Some(format!("{from} has no place in CRATES"));
        };
        let above = layer(to).is_some_and(|other| other >= own);
        let kvm = to == "kvm-ioctls" && from != "rvmm-vmm";
        let foreign = from == "rvmm-devices" && ["kvm-bindings", "hyper", "axum"].contains(&to.as_str());
        (above || kvm || foreign).then(|| format!("{from} must not depend on {to}"))
    };
    edges.iter().filter_map(wrong).collect()
}

/// Which module of the crate in `source` uses which, by its files.
fn uses(source: &Path) -> Vec<(String, String)> {
    let mut uses = Vec::new();
    for file in rust_files(source) {
        let first = file.strip_prefix(source).unwrap().components().next().unwrap();
        let module = Path::new(&first).file_stem().unwrap().to_string_lossy().into_owned();
        // The root declares and re-exports; it uses nothing.
        if module != "lib" {
            let names = used_modules(&fs::read_to_string(&file).unwrap());
            uses.extend(names.into_iter().map(|name| (module.clone(), name)));
        }
    }
    uses
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The names behind `crate::` in `source`, outside of comments, also those of a group in braces.
fn used_modules(source: &str) -> Vec<String> {
    let code: String = source.lines().map(|line| line.split("//").next().unwrap()).collect();
    let mut names = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let is_macro = code[..at].ends_with('$');
        let rest = &code[at + path.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            names.extend(names_of_group(group));
        } else if !is_macro {
            names.push(identifier(rest));
        }
    }
    names
}

/// The first names of the paths of `group`, which begins behind a brace.
fn names_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut first, mut names) = (0_usize, true, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => first = true,
            _ if first && !character.is_whitespace() => {
                names.push(identifier(&group[at..]));
                first = false;
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

fn misplaced_uses(uses: &[(String, String)]) -> Vec<String> {
    let layer = |name: &str| VMM_LAYERS.iter().position(|modules| modules.contains(&name));
    let wrong = |(from, to): &(String, String)| match (layer(from), layer(to)) {
        (Some(own), Some(other)) => (other > own).then(|| format!("vmm::{from} must not use vmm::{to}")),
        (None, _) => Some(format!("vmm::{from} has no place in VMM_LAYERS")),
        (_, None) => Some(format!("vmm::{from} uses crate::{to}, which has no place in VMM_LAYERS")),
    };
    uses.iter().filter_map(wrong).collect()
}
