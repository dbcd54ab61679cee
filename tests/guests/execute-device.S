// Jumps to an address where there is no memory. No host can run that, with or without hardware virtualization.

#include "bare.inc"
main:
    PUTS "jumping\n"
    mov $0xd0000000, %eax
    jmp *%eax
