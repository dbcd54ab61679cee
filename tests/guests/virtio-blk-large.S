// Asks for 2 GiB of the block device in one request, into the same memory again and again, and then for a sector.

#include "bare.inc"
#include "virtio-blk.inc"
    .set SEGMENTS, 64
    .set SEGMENT_SIZE, 32 << 20
    .set TABLE_SIZE, (SEGMENTS + 2) * 16
main:
    mov $BLOCK, %eax
    call virtio_find
    call virtio_begin
    call virtio_ready
    PUTS "large"
    call indirect_table
    mov $TYPE_IN, %eax
    mov $0, %edx
    call blk_request
    DESCRIPTOR 0, $table, TABLE_SIZE, F_INDIRECT, 0
    call blk_do
    PUTS "\nsmall"
    mov $TYPE_IN, %eax
    mov $0, %edx
    call blk_request
    call blk_do
    PUTS "\n"
    ret

// Header, data, status; each descriptor but the last goes on with the next.
indirect_table:
    mov $table, %ebx
    movl $header, (%ebx)
    movl $16, 8(%ebx)
    movl $(F_NEXT | 1 << 16), 12(%ebx)
    mov $(F_NEXT | F_WRITE | 2 << 16), %eax
    mov $SEGMENTS, %ecx
1:  add $16, %ebx
    movl $0x1000000, (%ebx)
    movl $SEGMENT_SIZE, 8(%ebx)
    mov %eax, 12(%ebx)
    add $(1 << 16), %eax
    loop 1b
    add $16, %ebx
    movl $status, (%ebx)
    movl $1, 8(%ebx)
    movl $F_WRITE, 12(%ebx)
    ret

    .section .bss
    .balign 16
table:
    .skip TABLE_SIZE
