// Reads sector 0 of the block device, again and again without end.

#include "bare.inc"
#include "virtio-blk.inc"
main:
    mov $BLOCK, %eax
    call virtio_find
    call virtio_init
    mov $TYPE_IN, %eax
    mov $0, %edx
    call blk_request
    PUTS "flooding\n"
1:  call virtio_kick
    call virtio_wait
    jmp 1b
