// Writes 00000001, 00000002, … for ever, a line each, with a little time between two lines.

#include "bare.inc"
main:
    xor %ebx, %ebx
1:  inc %ebx
    mov %ebx, %eax
    call puthex
    mov $'\n', %al
    call putc
    mov $0x40, %ecx
2:  pause
    loop 2b
    jmp 1b
