// Prints what the PVH start info says: magic, command line, memory map, RSDP and the first bytes of the initrd.

#include "bare.inc"
main:
    PUTS "magic"
    PUTHEX (%ebp)
    PUTS "\nversion"
    PUTHEX 4(%ebp)
    PUTS "\ncmdline "
    mov 24(%ebp), %esi
    call puts

    PUTS "\nrsdp "
    mov 32(%ebp), %esi
    mov $8, %ecx                        // its signature
1:  lodsb
    call putc
    loop 1b

    mov 40(%ebp), %esi
    mov 48(%ebp), %ecx                  // entries of the memory map
2:  PUTS "\nmemory"
    PUTHEX 4(%esi)
    PUTHEX (%esi)
    PUTHEX 12(%esi)
    PUTHEX 8(%esi)
    PUTHEX 16(%esi)
    add $24, %esi
    loop 2b

    cmpl $0, 12(%ebp)                   // number of modules
    je 4f
    PUTS "\ninitrd"
    mov 16(%ebp), %edi
    PUTHEX 8(%edi)
    PUTS " "
    mov (%edi), %esi
    mov $8, %ecx
3:  lodsb
    call putc
    loop 3b
4:  PUTS "\nend\n"
    ret
