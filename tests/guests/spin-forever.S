// Keeps its virtual CPU busy for ever, without a single exit.

#include "bare.inc"
main:
    PUTS "spinning\n"
1:  jmp 1b
