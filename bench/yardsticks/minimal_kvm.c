// The yardstick of the start-up benchmark: the least that a program has to ask of KVM for a VM of one vCPU and some
// memory, in plain C. It loads an ELF guest, enters it the PVH way, and ends at the first byte on the serial port.
//
//     minimal_kvm GUEST.elf [MEMORY_MIB]

#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CODE = 0x8, DATA = 0x10, SERIAL_PORT = 0x3f8, CPUID_ENTRIES = 256 };

// Copies the loadable segments into guest memory and returns the PVH entry point (Xen's note 18).
static unsigned load(const char *path, char *memory, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        err(1, "%s", path);
    const char *file = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file == MAP_FAILED)
        err(1, "%s", path);
    const Elf64_Ehdr *header = (const void *)file;
    const Elf64_Phdr *segment = (const void *)(file + header->e_phoff);
    unsigned entry = 0;
    for (int i = 0; i < header->e_phnum; i++) {
        if (segment[i].p_type == PT_LOAD) {
            if (segment[i].p_paddr + segment[i].p_memsz > size)
                errx(1, "%s: does not fit", path);
            memcpy(memory + segment[i].p_paddr, file + segment[i].p_offset, segment[i].p_filesz);
        } else if (segment[i].p_type == PT_NOTE) {
            const Elf64_Nhdr *note = (const void *)(file + segment[i].p_offset);
            if (note->n_type == 18)
                memcpy(&entry, (const char *)(note + 1) + ((note->n_namesz + 3) & ~3u), sizeof entry);
        }
    }
    if (!entry)
        errx(1, "%s: no PVH note", path);
    return entry;
}

static struct kvm_segment flat(unsigned selector, unsigned type)
{
    return (struct kvm_segment){ .limit = 0xffffffff, .selector = selector, .type = type, .present = 1,
                                 .db = 1, .s = 1, .g = 1 };
}

int main(int argc, char **argv)
{
    if (argc < 2)
        errx(2, "usage: minimal_kvm GUEST.elf [MEMORY_MIB]");
    size_t size = (argc > 2 ? strtoul(argv[2], NULL, 10) : 128) << 20;

    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        err(1, "/dev/kvm");
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        err(1, "KVM_CREATE_VM");

    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        err(1, "guest memory");
    struct kvm_userspace_memory_region region = { .memory_size = size, .userspace_addr = (unsigned long)memory };
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
        err(1, "KVM_SET_USER_MEMORY_REGION");
    if (ioctl(vm, KVM_CREATE_IRQCHIP))
        err(1, "KVM_CREATE_IRQCHIP");

    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    if (vcpu < 0)
        err(1, "KVM_CREATE_VCPU");
    int run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct kvm_run *run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        err(1, "struct kvm_run");

    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + CPUID_ENTRIES * sizeof *cpuid->entries);
    cpuid->nent = CPUID_ENTRIES;
    if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid))
        err(1, "KVM_GET_SUPPORTED_CPUID");
    if (ioctl(vcpu, KVM_SET_CPUID2, cpuid))
        err(1, "KVM_SET_CPUID2");

    struct kvm_regs regs = { .rip = load(argv[1], memory, size), .rflags = 2 };
    struct kvm_sregs sregs;
    if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
        err(1, "KVM_GET_SREGS");
    sregs.cs = flat(CODE, 0xb);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat(DATA, 0x3);
    sregs.cr0 = 1; // PE: protected mode, no paging
    if (ioctl(vcpu, KVM_SET_SREGS, &sregs))
        err(1, "KVM_SET_SREGS");
    if (ioctl(vcpu, KVM_SET_REGS, &regs))
        err(1, "KVM_SET_REGS");

    for (;;) {
        if (ioctl(vcpu, KVM_RUN, 0))
            err(1, "KVM_RUN");
        if (run->exit_reason != KVM_EXIT_IO)
            errx(1, "exit reason %u", run->exit_reason);
        if (run->io.direction == KVM_EXIT_IO_OUT && run->io.port == SERIAL_PORT) {
            if (write(1, (char *)run + run->io.data_offset, 1) != 1)
                err(1, "stdout");
            return 0;
        }
    }
}
