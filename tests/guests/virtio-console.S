// Writes 64 buffers of 4 KiB to the virtio console, each 4095 times `x` and a line's end, and one line to the serial port.

#include "bare.inc"
    .set QUEUE, 1                       // transmitq
#include "virtio.inc"
    .set CONSOLE, 3
    .set BUFFERS, 64
    .set LENGTH, 4096
main:
    mov $CONSOLE, %eax
    call virtio_find
    call virtio_init
    push %edi
    mov $text, %edi
    mov $LENGTH / 4, %ecx
    mov $0x78787878, %eax               // "xxxx"
    rep stosl
    movb $'\n', text + LENGTH - 1
    pop %edi
    DESCRIPTOR 0, $text, LENGTH, 0, 0
    mov $BUFFERS, %ebx
1:  call virtio_kick
2:  pause                               // as long as it takes
    mov available + 2, %ax
    cmp %ax, used + 2
    jne 2b
    dec %ebx
    jnz 1b
    PUTS "end\n"
    ret

    .section .bss
    .balign 4096
text:
    .skip LENGTH
