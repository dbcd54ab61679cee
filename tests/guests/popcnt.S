// Counts the bits of device memory with an instruction that KVM's instruction emulator does not know. The access makes KVM
// emulate the instruction even where the CPU runs the guest.

#include "bare.inc"
main:
    PUTS "before\n"
    popcnt 0xd0000000, %ebx
    PUTS "after\n"
    ret
