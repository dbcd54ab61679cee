//! `--huge-pages`

use clap::ValueEnum;
use vmm::memory::HugePages;

/// Which pages of the host back guest memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum HugePagesArg {
    /// 4 KiB pages.
    None,
    /// Transparent huge pages.
    Transparent,
    /// 2 MiB pages of hugetlbfs.
    #[value(name = "2M")]
    Hugetlb2M,
}

impl From<HugePagesArg> for HugePages {
    fn from(pages: HugePagesArg) -> Self {
        match pages {
            HugePagesArg::None => Self::None,
            HugePagesArg::Transparent => Self::Transparent,
            HugePagesArg::Hugetlb2M => Self::Hugetlb2M,
        }
    }
}
