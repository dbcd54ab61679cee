// Prints the CPUID leaves that a guest's view of its CPU stands on.

#include "bare.inc"
main:
    mov $leaves, %esi
1:  mov (%esi), %eax
    mov 4(%esi), %ecx
    PUTS "leaf"
    PUTHEX %eax
    PUTHEX %ecx
    cpuid
    PUTS ":"
    PUTHEX %eax
    PUTHEX %ebx
    PUTHEX %ecx
    PUTHEX %edx
    PUTS "\n"
    add $8, %esi
    cmp $leaves_end, %esi
    jb 1b
    ret

    .section .rodata
    .balign 4
leaves:                                 // leaf, subleaf
    .long 0, 0
    .long 1, 0
    .long 4, 3
    .long 0xb, 0
    .long 0xb, 1
    .long 0x40000000, 0
    .long 0x40000001, 0
    .long 0x80000001, 0
    .long 0x80000008, 0
leaves_end:
