//! What kind of file a kernel is, told by its first bytes.

use std::fmt;

/// A file format as seen in the first [`HEAD_SIZE`] bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An ELF file of any class.
    Elf,
    /// A Linux x86 boot image (zImage, bzImage).
    BzImage,
    /// Compressed with the named program.
    Compressed(&'static str),
    /// An uncompressed Linux kernel for the named architecture.
    ForeignImage(&'static str),
    /// A PE file, such as an EFI program or a unified kernel image.
    Pe,
    /// A U-Boot image.
    UImage,
    /// A cpio archive, as initrds are.
    Cpio,
    /// A disk image or file system of the named kind.
    Disk(&'static str),
    /// A package or archive of the named kind.
    Archive(&'static str),
    /// A script.
    Script,
    /// None of these; its first four bytes.
    Unknown([u8; 4]),
}

/// As many bytes of a file as [`Format::of`] looks at, and enough for the headers of every kernel seen in practice.
pub(super) const HEAD_SIZE: usize = 4096;

/// Magic numbers: offset, bytes, format. The first that matches wins, so more specific ones come first.
const MAGICS: &[(usize, &[u8], Format)] = &[
    (0, b"\x7fELF", Format::Elf),
    // Documentation/arch/x86/boot.rst: a Linux boot sector may begin with "MZ" for EFI, so "HdrS" goes before it.
    (0x202, b"HdrS", Format::BzImage),
    // Documentation/arch/arm64/booting.rst and Documentation/arch/riscv/boot-image-header.rst.
    (0x38, b"ARM\x64", Format::ForeignImage("AArch64")),
    (0x38, b"RSC\x05", Format::ForeignImage("RISC-V")),
    (0x24, b"\x18\x28\x6f\x01", Format::ForeignImage("32-bit ARM")),
    (0, b"MZ", Format::Pe),
    (0, b"\x1f\x8b", Format::Compressed("gzip")),
    (0, b"\x28\xb5\x2f\xfd", Format::Compressed("zstd")),
    (0, b"\xfd7zXZ\0", Format::Compressed("xz")),
    (0, b"BZh", Format::Compressed("bzip2")),
    (0, b"\x04\x22\x4d\x18", Format::Compressed("lz4")),
    (0, b"\x02\x21\x4c\x18", Format::Compressed("lz4")),
    (0, b"\x89LZO\0", Format::Compressed("lzop")),
    (0, b"\x5d\0\0", Format::Compressed("lzma")),
    (0, b"\x27\x05\x19\x56", Format::UImage),
    (0, b"07070", Format::Cpio),
    (0, b"QFI\xfb", Format::Disk("qcow2")),
    (0x438, b"\x53\xef", Format::Disk("ext4")),
    (0, b"hsqs", Format::Disk("squashfs")),
    (0, b"!<arch>\n", Format::Archive("ar or Debian")),
    (0, b"\xed\xab\xee\xdb", Format::Archive("RPM")),
    (0, b"PK\x03\x04", Format::Archive("zip")),
    (0x101, b"ustar", Format::Archive("tar")),
    (0, b"#!", Format::Script),
];

impl Format {
    /// Tells the format of a file by `head`, its first bytes (fewer than [`HEAD_SIZE`] when the file is shorter).
    pub fn of(head: &[u8]) -> Self {
        for (offset, magic, format) in MAGICS {
            if head.get(*offset..).is_some_and(|rest| rest.starts_with(magic)) {
                return *format;
            }
        }
        let mut first = [0; 4];
        for (to, from) in first.iter_mut().zip(head) {
            *to = *from;
        }
        Self::Unknown(first)
    }

    /// Why a file of this format is no kernel that can be booted, and what to do.
    pub fn refusal(self) -> String {
        const WANTED: &str = "name an uncompressed x86-64 vmlinux (ELF) or a bzImage";
        match self {
            Self::Compressed(program) => format!(
                "is compressed with {program}: unpack it, or extract vmlinux with scripts/extract-vmlinux of the Linux source"
            ),
            Self::Cpio => format!("is a cpio archive, as initrds are: give it as initrd, and {WANTED}"),
            Self::Elf | Self::BzImage => format!("is not accepted: {WANTED}"),
            other => format!("is {other}: {WANTED}"),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf => f.write_str("an ELF file"),
            Self::BzImage => f.write_str("a bzImage"),
            Self::Compressed(program) => write!(f, "a file compressed with {program}"),
            Self::ForeignImage(machine) => write!(f, "a Linux kernel for {machine}"),
            Self::Pe => {
                f.write_str("a PE file (an EFI program or unified kernel image) without a Linux boot header")
            }
            Self::UImage => f.write_str("a U-Boot uImage"),
            Self::Cpio => f.write_str("a cpio archive"),
            Self::Disk(kind) => write!(f, "a disk image ({kind})"),
            Self::Archive(kind) => write!(f, "an archive ({kind})"),
            Self::Script => f.write_str("a script"),
            Self::Unknown(first) => write!(f, "of no known format (it begins with {first:02x?})"),
        }
    }
}
