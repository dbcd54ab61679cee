// Resets the machine through the keyboard controller.

#include "bare.inc"
main:
    PUTS "up\n"
    mov $0xfe, %al                      // pulse the reset line
    out %al, $0x64
1:  hlt
    jmp 1b
