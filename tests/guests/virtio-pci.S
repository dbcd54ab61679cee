// Finds the block device on the PCI bus, reads sector 0 and takes the interrupt of that by MSI-X; then reads with the
// vector masked, looks at the pending bit, and takes the interrupt once it unmasks it.

#define VIRTIO_PCI
#include "bare.inc"
#include "interrupts.inc"
#include "virtio-blk.inc"
    .set QUEUE_ENTRY, 16                // vector 1 in the table of MSI-X
    .set ENTRY_CONTROL, QUEUE_ENTRY + 12
    .set MSIX_ENABLE, 0x8000
main:
    call interrupts_init
    mov $BLOCK, %eax
    call virtio_find
    mov msix, %ebx
    mov 4(%ebx), %eax                   // offset of the table in BAR 0
    add PCI_BAR(%esi), %eax
    mov %eax, table
    mov 8(%ebx), %eax
    add PCI_BAR(%esi), %eax
    mov %eax, pending
    mov table, %ebx
    movl $0xfee00000, QUEUE_ENTRY(%ebx)
    movl $0, QUEUE_ENTRY + 4(%ebx)
    movl $VECTOR, QUEUE_ENTRY + 8(%ebx)
    movl $0, ENTRY_CONTROL(%ebx)
    mov msix, %ebx
    movw $MSIX_ENABLE, 2(%ebx)
    call virtio_begin
    movw $1, QUEUE_VECTOR(%edi)
    PUTS "vector"
    movzwl QUEUE_VECTOR(%edi), %eax
    PUTHEX %eax
    call virtio_ready
    PUTS "\nsectors"
    PUTHEX CONFIG(%edi)

    PUTS "\nread"
    call read
    mov $1, %ecx
    call wait_for_interrupt
    call put_result

    PUTS "\nmasked"
    mov table, %ebx
    movl $1, ENTRY_CONTROL(%ebx)
    call read
    call virtio_wait
    call put_result
    mov $1000, %ecx                     // the message comes after the used buffer
1:  mov pending, %ebx
    mov (%ebx), %eax
    test %eax, %eax
    jnz 2f
    dec %ecx
    jnz 1b
2:  PUTS " pending"
    PUTHEX %eax
    PUTS "\nunmasked"
    mov table, %ebx
    movl $0, ENTRY_CONTROL(%ebx)
    mov $2, %ecx
    call wait_for_interrupt
    call put_result
    PUTS "\n"
    ret

read:
    movl $0, data
    mov $TYPE_IN, %eax
    mov $0, %edx
    call blk_request
    jmp virtio_kick

// Halts until there have been %ecx interrupts.
wait_for_interrupt:
    cli
    cmp %ecx, interrupts
    jae 1f
    sti
    hlt
    jmp wait_for_interrupt
1:  ret

put_result:
    PUTS " status"
    movzbl status, %eax
    PUTHEX %eax
    PUTS " interrupts"
    PUTHEX interrupts
    PUTS " data "
    mov $data, %esi
    mov $16, %ecx
1:  lodsb
    call putc
    loop 1b
    ret

handler:
    incl interrupts
    ret

    .section .bss
    .balign 4
table:
    .skip 4
pending:
    .skip 4
interrupts:
    .skip 4
    .text
