//! Compiles the program that every contender runs, static, so that it needs nothing of where it runs.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let sources = ["guest/bench.c", "guest/work.c", "guest/tcp.c"];
    for source in sources {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rerun-if-changed=guest/bench.h");
    println!("cargo::rerun-if-env-changed=CC");
    let cc = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let folder = env::var_os("OUT_DIR").unwrap_or_default();
    let program = Path::new(&folder).join("bench");
    let compiled = Command::new(&cc)
        .args(["-static", "-O2", "-s", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .args(sources)
        .status();
    match compiled {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("{cc}: {status}")),
        Err(error) => fail(&format!("{cc}: {error}; a C compiler and the C library's headers are needed")),
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1)
}
