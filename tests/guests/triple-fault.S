// Resets the machine by a fault that no handler takes: the interrupt descriptor table is empty.

#include "bare.inc"
main:
    PUTS "up\n"
    lidt empty
    ud2

    .section .rodata
empty:
    .word 0
    .long 0
