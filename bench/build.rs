//! Compiles what is built in: the program that every contender runs, the yardsticks of the start-up benchmark, and the bare
//! guests of rvmm's own benchmarks. All of it is static, so that it needs nothing of where it runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

#[path = "../tests/support/assemble.rs"]
mod assemble;

/// The sources of the programs; each has the name of its first.
const PROGRAMS: [&[&str]; 3] = [
    &["guest/bench.c", "guest/work.c", "guest/tcp.c"],
    &["yardsticks/floor.c"],
    &["yardsticks/minimal_kvm.c"],
];

/// Where the bare guests are, which the tests have as well.
const GUESTS: &str = "../tests/guests";

/// Those of them that are built in.
const BARE: [&str; 4] = ["count-forever", "hlt-forever", "one-byte", "write-on-demand"];

fn main() {
    for file in PROGRAMS.iter().flat_map(|sources| *sources).chain(&[GUESTS, "../tests/support/assemble.rs"])
    {
        println!("cargo::rerun-if-changed={file}");
    }
    println!("cargo::rerun-if-changed=guest/bench.h");
    println!("cargo::rerun-if-env-changed=CC");
    let cc = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let folder = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for sources in PROGRAMS {
        let name = sources.first().copied().unwrap_or_default();
        let mut command = Command::new(&cc);
        command.args(["-static", "-O2", "-s", "-Wall", "-Wextra", "-Werror", "-o"]);
        command.arg(folder.join(Path::new(name).file_stem().unwrap_or_default())).args(sources);
        check(&cc, name, command.status());
    }
    let guests = env::current_dir().unwrap_or_default().join(GUESTS);
    for name in BARE {
        let elf = folder.join(format!("{name}.elf"));
        check(&cc, name, assemble::command(&cc, &guests, name, &elf).status());
    }
}

fn check(cc: &str, source: &str, compiled: io::Result<std::process::ExitStatus>) {
    match compiled {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("{cc} {source}: {status}")),
        Err(error) => fail(&format!("{cc}: {error}; a C compiler and the C library's headers are needed")),
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1)
}
