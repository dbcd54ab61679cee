// Has a driver for its keyboard, as far as that goes: the first key makes it reset the machine, by way of the controller.

#include "bare.inc"
    .set DATA, 0x60
    .set COMMAND, 0x64
main:
    mov $0x60, %al                      // write the command byte
    out %al, $COMMAND
    mov $1, %al                         // the keyboard is enabled and interrupts
    out %al, $DATA
    mov $0xf4, %al                      // the keyboard scans
    out %al, $DATA
1:  in $COMMAND, %al
    test $1, %al
    jz 1b
    in $DATA, %al                       // its acknowledgement
    PUTS "ready\n"
2:  in $COMMAND, %al
    test $1, %al
    jz 2b
    PUTS "a key\n"
    mov $0xfe, %al                      // pulse the reset line
    out %al, $COMMAND
3:  hlt
    jmp 3b
