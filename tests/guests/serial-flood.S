// Writes 64 KiB of the alphabet on the serial port, a string instruction at a time, then a line.

#include "bare.inc"
    .set CHUNK, 26 * 128
main:
    mov $chunk, %edi
    mov $128, %edx
1:  mov $26, %ecx
    mov $'a', %al
2:  stosb
    inc %al
    loop 2b
    dec %edx
    jnz 1b

    mov $20, %ebx
    mov $SERIAL, %dx
3:  mov $chunk, %esi
    mov $CHUNK, %ecx
    rep outsb
    dec %ebx
    jnz 3b
    PUTS "\nend\n"
    ret

    .section .bss
chunk:
    .skip CHUNK
