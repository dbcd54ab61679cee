// Halts with interrupts off, for ever.

#include "bare.inc"
main:
    PUTS "halted\n"
    cli
1:  hlt
    jmp 1b
