//! Whether two paths or descriptors lead to one file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// Whether both are of the same file, whatever it is called (inode(7): device and number tell files apart).
pub fn same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_the_file_and_a_copy_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, copy] = ["file", "link", "copy"].map(|name| folder.path().join(name));
        std::fs::write(&file, "x").unwrap();
        std::fs::hard_link(&file, &link).unwrap();
        std::fs::copy(&file, &copy).unwrap();
        let of = |path| std::fs::metadata(path).unwrap();
        assert!(same_file(&of(&file), &of(&link)));
        assert!(!same_file(&of(&file), &of(&copy)));
    }
}
