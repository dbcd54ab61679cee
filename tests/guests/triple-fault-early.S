// Takes a triple fault before it has written anything.

#include "bare.inc"
main:
    lidt empty
    ud2

    .section .rodata
empty:
    .word 0
    .long 0
