// Counts bits with an instruction that KVM's instruction emulator does not know. Where the CPU runs the guest it works.

#include "bare.inc"
main:
    PUTS "before\n"
    mov $0xff, %eax
    popcnt %eax, %ebx
    PUTS "after\n"
    ret
