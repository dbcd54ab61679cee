// Asks the entropy device for 8 bytes, twice, and prints them.

#include "bare.inc"
#include "virtio.inc"
    .set ENTROPY, 4
main:
    mov $ENTROPY, %eax
    call virtio_find
    call virtio_init
    DESCRIPTOR 0, $entropy, 8, F_WRITE, 0
    call get
    call get
    ret

get:
    call virtio_kick
    call virtio_wait
    PUTS "entropy"
    PUTHEX entropy
    PUTHEX entropy + 4
    PUTS "\n"
    ret

    .section .bss
    .balign 8
entropy:
    .skip 8
