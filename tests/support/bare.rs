//! Bare guests: assembled from `tests/guests/NAME.S` when a test first wants them, and kept by the hash of the sources.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The ELF file of the bare guest `name`.
///
/// # Panics
/// When it can't be assembled: there is no such guest, or no `cc`.
pub(crate) fn path(name: &str) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
    let elf = cache.join(format!("{name}-{:016x}.elf", hash(&sources, name)));
    if !elf.exists() {
        fs::create_dir_all(&cache).unwrap();
        // Other tests may be at it as well: each builds its own and moves it into place.
        let own = tempfile::Builder::new().prefix(name).tempdir_in(&cache).unwrap();
        let built = own.path().join("guest.elf");
        assemble(&sources, name, &built);
        fs::rename(built, &elf).unwrap();
    }
    elf
}

/// A hash of all that a guest is made of: its source, what any guest includes, and the linker script.
fn hash(sources: &Path, name: &str) -> u64 {
    let mut files: Vec<PathBuf> = fs::read_dir(sources)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "S"))
        .collect();
    files.push(sources.join(format!("{name}.S")));
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).hash(&mut hasher);
    }
    hasher.finish()
}

fn assemble(sources: &Path, name: &str, elf: &Path) {
    let cc = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = super::assemble::command(&cc, sources, name, elf).output().unwrap_or_else(|error| {
        panic!("{cc}: {error}: the tests assemble their guests with a C compiler; install gcc and binutils")
    });
    assert!(output.status.success(), "{cc} {name}.S: {}", String::from_utf8_lossy(&output.stderr));
}
