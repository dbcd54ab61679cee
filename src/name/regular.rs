//! Opening the files of a name. What is there may be anything: a FIFO, which would be waited for, or a link to a file that
//! is none of the name's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens `path` for reading.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_with(path, File::options().read(true))
}

/// Opens `path` as `options` say, if it is a regular file and no link.
///
/// # Errors
/// What the host said, or that it is something else.
pub(super) fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let refused = || io::Error::other(format!("{} is not a regular file; remove it", path.display()));
    let file = match options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path) {
        // A socket, or a FIFO that nobody reads; a link.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ELOOP)) => {
            return Err(refused());
        }
        opened => opened?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        symlink(at("file"), at("link")).unwrap();
        assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
        assert!(open(&at("file")).is_ok());
        assert_eq!(open(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        for path in [at("link"), at("fifo"), folder.path().to_owned()] {
            let writing = open_with(&path, File::options().write(true));
            for error in [open(&path).unwrap_err(), writing.unwrap_err()] {
                assert!(error.to_string().contains("regular file") || path == folder.path(), "{error}");
            }
        }
    }
}
