// Starts every other CPU by INIT and start-up interrupts; each prints its local APIC's number and CPUID's for it.
// The command line is the number of CPUs, one digit.

#include "bare.inc"
#include "interrupts.inc"
#include "smp.inc"
main:
    call interrupts_init
    call smp_init
    mov 24(%ebp), %esi
    movzbl (%esi), %ebx
    sub $'0', %ebx
    call report
    cmp $1, %ebx
    je 2f
    call smp_start
1:  pause
    cmp %ebx, reported
    jb 1b
2:  PUTS "end\n"
    ret

// The other CPUs, one at a time: they share the stack.
secondary:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
1:  pause
    lock btsl $0, busy
    jc 1b
    mov $secondary_stack_top, %esp
    call report
    movl $0, busy
2:  hlt
    jmp 2b

report:
    push %ebx
    PUTS "cpu"
    mov APIC_ID, %eax
    shr $24, %eax
    PUTHEX %eax
    mov $1, %eax
    cpuid
    shr $24, %ebx
    PUTHEX %ebx
    mov $0xb, %eax
    xor %ecx, %ecx
    cpuid
    PUTHEX %edx
    PUTS "\n"
    incl reported
    pop %ebx
    ret

handler:
    ret

    .section .bss
    .balign 4
reported:
    .skip 4
busy:
    .skip 4
    .balign 16
    .skip 0x400
secondary_stack_top:
