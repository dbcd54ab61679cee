// Tells of a panic by the pvpanic port and halts, as a Linux kernel with `panic=0` does.

#include "bare.inc"
    .set PVPANIC, 0x505
main:
    PUTS "up\n"
    mov $PVPANIC, %dx
    mov $1, %al
    out %al, %dx
    PUTS "goes on\n"
1:  hlt
    jmp 1b
