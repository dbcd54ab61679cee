// Writes 10 MiB to the virtio console in buffers of 4 KiB, then a line, and stays there.

#include "bare.inc"
    .set QUEUE, 1                       // transmitq
#include "virtio.inc"
    .set CONSOLE, 3
    .set BUFFERS, 2560
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
    pop %edi
    DESCRIPTOR 0, $text, LENGTH, 0, 0
    mov $BUFFERS, %ebx
1:  call send
    dec %ebx
    jnz 1b
    DESCRIPTOR 0, $ending, 5, 0, 0
    call send
2:  hlt
    jmp 2b

send:
    call virtio_kick
3:  pause                               // as long as it takes
    mov available + 2, %ax
    cmp %ax, used + 2
    jne 3b
    ret

    .section .rodata
ending:
    .ascii "\nend\n"

    .section .bss
    .balign 4096
text:
    .skip LENGTH
