// Writes and reads back the first and the last word of every range of RAM in the memory map, through a 2 MiB window at
// 1 GiB. The page tables are those of long mode, whose compatibility mode keeps this code 32-bit.

#include "bare.inc"
    .set WINDOW, 0x40000000
    .set LARGE, 0x83                    // present, writable, 2 MiB
main:
    movl $pdpt + 3, pml4
    movl $pd_low + 3, pdpt
    movl $pd_window + 3, pdpt + 8
    mov $LARGE, %eax                    // identity for the first 4 MiB: this program and the start info
    mov %eax, pd_low
    add $0x200000, %eax
    mov %eax, pd_low + 8
    mov %cr4, %eax
    or $1 << 5, %eax                    // PAE
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx               // EFER
    rdmsr
    or $1 << 8, %eax                    // LME
    wrmsr
    mov %cr0, %eax
    or $1 << 31, %eax
    mov %eax, %cr0

    mov 40(%ebp), %esi
    mov 48(%ebp), %ecx
1:  cmpl $1, 16(%esi)                   // RAM
    jne 2f
    PUTS "ram"
    PUTHEX 4(%esi)
    PUTHEX (%esi)
    PUTHEX 12(%esi)
    PUTHEX 8(%esi)
    mov (%esi), %eax
    mov 4(%esi), %edx
    cmp $0x100000, %eax                 // this program is at 1 MiB, the vectors are at 0
    jbe 3f
    call touch
3:  mov (%esi), %eax
    mov 4(%esi), %edx
    add 8(%esi), %eax
    adc 12(%esi), %edx
    sub $4, %eax
    sbb $0, %edx
    call touch
    PUTS "\n"
2:  add $24, %esi
    dec %ecx
    jnz 1b
    PUTS "end\n"
    ret

// Writes and reads the word at %edx:%eax.
touch:
    mov %eax, %edi
    and $0x1fffff, %edi
    add $WINDOW, %edi
    and $0xffe00000, %eax
    or $LARGE, %eax
    mov %eax, pd_window
    mov %edx, pd_window + 4
    mov %cr3, %eax
    mov %eax, %cr3
    mov (%edi), %eax
    mov %eax, %edx
    xor $0x5a5a5a5a, %eax
    mov %eax, (%edi)
    cmp (%edi), %eax
    jne 1f
    mov %edx, (%edi)
    PUTS " ok"
    ret
1:  PUTS " BAD"
    ret

    .section .bss
    .balign 4096
pd_low:
    .skip 4096
pd_window:
    .skip 4096
pdpt:
    .skip 4096
pml4:
    .skip 4096
