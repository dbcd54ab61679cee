// Writes anything to the configuration space of the whole bus, to the BARs of the block device and to the windows, moves
// the BARs over memory and over one another, and then reads sector 0.

#define VIRTIO_PCI
#include "bare.inc"
#include "virtio-blk.inc"
    .set IO_BAR, PCI_BAR + 4
    .set IO_WINDOW, 0x1000
    .set MEMORY_WINDOW, 0xd0000000
main:
    mov $BLOCK, %eax
    call virtio_find
    mov PCI_BAR(%esi), %eax
    mov %eax, memory_bar
    mov IO_BAR(%esi), %eax
    mov %eax, io_bar

    PUTS "function"
    mov function, %edi
    mov $0x104, %ecx
    call poke_range
    call restore

    PUTS "\nbus"
    mov $ECAM, %edi
1:  mov $1, %ecx
    call poke_range
    add $0xffb, %edi                    // the last four bytes of the page, and across its end
    mov $4, %ecx
    call poke_range
    cmp $ECAM + 0x100000, %edi
    jb 1b
    call restore

    PUTS "\nmemory"
    mov memory_bar, %edi
    mov $0x110, %ecx
    call poke_range
    mov memory_bar, %edi
    add $0xffe, %edi
    mov $0x20, %ecx
    call poke_range
    mov memory_bar, %edi
    add $0x1ffe, %edi
    mov $0x40, %ecx
    call poke_range
    mov memory_bar, %edi
    add $0x27fe, %edi
    mov $0x10, %ecx
    call poke_range
    mov memory_bar, %edi
    add $0x3ff8, %edi
    mov $0x10, %ecx
    call poke_range
    mov $MEMORY_WINDOW + 0xffffff8, %edi
    mov $8, %ecx
    call poke_range

    PUTS "\nports"
    mov $IO_WINDOW, %edx
2:  xor %eax, %eax
    call poke_port
    not %eax
    call poke_port
    inc %edx
    cmp $IO_WINDOW + 0x110, %edx
    jb 2b

    PUTS "\nmoves"
    mov $places, %ebx
3:  mov (%ebx), %eax
    mov function, %esi
    mov %eax, PCI_BAR(%esi)
    mov %eax, IO_BAR(%esi)
    mov %eax, %edi
    mov (%edi), %eax
    add $4, %ebx
    cmp $places_end, %ebx
    jb 3b
    call restore

    PUTS "\nread"
    mov $BLOCK, %eax
    call virtio_find
    call virtio_init
    mov $TYPE_IN, %eax
    mov $0, %edx
    call blk_request
    call blk_do
    PUTS "\nend\n"
    ret

// Puts the BARs and the command back.
restore:
    mov function, %esi
    mov memory_bar, %eax
    mov %eax, PCI_BAR(%esi)
    mov io_bar, %eax
    mov %eax, IO_BAR(%esi)
    movw $7, PCI_COMMAND(%esi)
    ret

// Reads and writes at %ecx addresses from %edi on, at every width, and leaves %edi behind them.
poke_range:
    mov (%edi), %al
    mov (%edi), %ax
    mov (%edi), %eax
    xor %eax, %eax
    call poke
    not %eax
    call poke
    inc %edi
    dec %ecx
    jnz poke_range
    ret

poke:
    mov %al, (%edi)
    mov %ax, (%edi)
    mov %eax, (%edi)
    ret

poke_port:
    push %eax
    in %dx, %al
    in %dx, %ax
    in %dx, %eax
    pop %eax
    out %al, %dx
    out %ax, %dx
    out %eax, %dx
    ret

    .section .rodata
    .balign 4
places:                                 // RAM, the local APIC, configuration space, another port, the ends
    .long 0x100000, 0xfee00000, ECAM, 0xd0010000, 0x1f01, 0x601, 0, 0xfffffffc
places_end:

    .section .bss
    .balign 4
memory_bar:
    .skip 4
io_bar:
    .skip 4
    .text
