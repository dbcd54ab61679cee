// Prints a line and powers off.

#include "bare.inc"
main:
    PUTS "hello, world\n"
    ret
