// Gives a block device one broken request after another, each after a reset, and prints what the device made of it: the
// status byte (aa: not written) and the device's status register. The last request is a good one.

#include "bare.inc"
#include "virtio-blk.inc"
#include "cases.inc"
main:
    mov $BLOCK, %eax
    call virtio_find
    mov $cases, %ebx
1:  mov 4(%ebx), %esi
    call puts
    call virtio_init
    mov $TYPE_IN, %eax
    mov $0, %edx
    call blk_request
    call *(%ebx)
    call blk_do
    PUTS " device"
    PUTHEX STATUS(%edi)
    PUTS "\n"
    add $8, %ebx
    cmp $cases_end, %ebx
    jb 1b
    PUTS "end\n"
    ret

    CASE self-loop
    movw $0, descriptors + 14
    ret
    CASE loop
    DESCRIPTOR 2, $status, 1, F_WRITE | F_NEXT, 1
    ret
    CASE next-out-of-range
    movw $QUEUE_SIZE, descriptors + 16 + 14
    ret
    CASE header-outside-memory
    movl $0xd0000000, descriptors
    ret
    CASE header-at-end-of-address-space
    movl $-8, descriptors
    movl $-1, descriptors + 4
    ret
    CASE data-outside-memory
    movl $-1, descriptors + 16 + 4
    ret
    CASE data-longer-than-memory
    movl $0xfffffe00, descriptors + 16 + 8
    ret
    CASE status-outside-memory
    movl $0xd0000000, descriptors + 32
    ret
    CASE header-too-short
    movl $8, descriptors + 8
    ret
    CASE header-only
    movw $0, descriptors + 12
    ret
    CASE no-status
    movw $F_WRITE, descriptors + 16 + 12
    movl $0, descriptors + 16 + 8
    ret
    CASE status-read-only
    movw $0, descriptors + 32 + 12
    ret
    CASE nothing-writable
    movl $0, descriptors + 16 + 8       // else the status is the last byte of the data
    movl $0, descriptors + 32 + 8
    ret
    CASE header-write-only
    movw $F_NEXT | F_WRITE, descriptors + 12
    ret
    CASE read-into-read-only
    movw $F_NEXT, descriptors + 16 + 12
    ret
    CASE write-from-write-only
    movl $TYPE_OUT, header
    ret
    CASE half-a-sector
    movl $256, descriptors + 16 + 8
    ret
    CASE sector-past-end
    movl $0x100000, header + 8
    ret
    CASE sector-overflows
    movl $-1, header + 8
    movl $-1, header + 12
    ret
    CASE unknown-type
    movl $0x77, header
    ret
    CASE indirect-not-negotiated
    movw $F_INDIRECT, descriptors + 12
    ret
    CASE good
    ret

    CASES_END
