// Reads sector 0 of the block device, writes sector 1, flushes, reads sector 1 back.

#include "bare.inc"
#include "virtio-blk.inc"
main:
    mov $BLOCK, %eax
    call virtio_find
    call virtio_init
    PUTS "sectors"
    PUTHEX CONFIG(%edi)

    PUTS "\nread"
    mov $TYPE_IN, %eax
    mov $0, %edx
    call blk_request
    call blk_do
    call put_data

    PUTS "\nwrite"
    push %edi
    mov $data, %edi
    mov $128, %ecx
    mov $0x6b6f6f6c, %eax               // "look"
    rep stosl
    pop %edi
    mov $TYPE_OUT, %eax
    mov $1, %edx
    call blk_request
    call blk_do

    PUTS "\nflush"
    mov $TYPE_FLUSH, %eax
    mov $0, %edx
    call blk_request
    DESCRIPTOR 0, $header, 16, F_NEXT, 2
    call blk_do

    PUTS "\nread"
    movl $0, data
    mov $TYPE_IN, %eax
    mov $1, %edx
    call blk_request
    call blk_do
    call put_data
    PUTS "\n"
    ret

// Prints the first 16 bytes of the data.
put_data:
    PUTS " data "
    mov $data, %esi
    mov $16, %ecx
1:  lodsb
    call putc
    loop 1b
    ret
