//! What the kernel targets share: guest memory that outlives the rounds, and what has to hold of a kernel that is taken.

use std::io::Cursor;

use devices::GuestMemory;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestRegionMmap};
use vmm::boot::{EntryPoint, Kernel, MemoryMap};

/// Enough for kernels that prefer 16 MiB.
const MEMORY_SIZE: usize = 32 << 20;

thread_local! {
    static MEMORY: GuestMemory = {
        let mapping = MmapRegionBuilder::new_with_bitmap(MEMORY_SIZE, None)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
            .build()
            .unwrap();
        let region = GuestRegionMmap::new(mapping, GuestAddress(0)).unwrap();
        GuestMemory::from_regions(vec![region]).unwrap()
    };
}

/// Takes `image` for a kernel and loads it when its headers are accepted.
pub fn load(image: &[u8]) {
    MEMORY.with(|memory| {
        let mut file = Cursor::new(image);
        match Kernel::parse(&mut file, &MemoryMap::new(memory)) {
            Ok(kernel) => {
                let (EntryPoint::Pvh(entry) | EntryPoint::Linux64(entry)) = kernel.entry;
                assert!(kernel.occupied.iter().any(|(start, end)| (*start..*end).contains(&entry)));
                assert!(kernel.occupied.iter().all(|(start, end)| start < end && *end <= MEMORY_SIZE as u64));
                assert!(kernel.occupied.is_sorted_by(|first, second| first.1 <= second.0));
                // What was checked has to load. Notes may still be read differently by linux-loader, which then fails.
                let _ = kernel.load(memory, &mut file);
            }
            Err(error) => assert!(!error.to_string().contains('\n')),
        }
    });
}
