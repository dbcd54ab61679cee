// Starts every other CPU by INIT and start-up interrupts; each prints its local APIC's number and CPUID's for it.
// The command line is the number of CPUs, one digit.

#include "bare.inc"
#include "interrupts.inc"
    .set TRAMPOLINE, 0x8000
    .set ALL_BUT_SELF, 3 << 18
    .set INIT, 0x4500
    .set STARTUP, 0x4600
main:
    call interrupts_init
    mov $trampoline, %esi
    mov $TRAMPOLINE, %edi
    mov $trampoline_end - trampoline, %ecx
    rep movsb
    mov 24(%ebp), %esi
    movzbl (%esi), %ebx
    sub $'0', %ebx
    call report
    cmp $1, %ebx
    je 2f
    movl $ALL_BUT_SELF | INIT, APIC_ICR
    movl $ALL_BUT_SELF | STARTUP | TRAMPOLINE >> 12, APIC_ICR
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

    .code16
trampoline:
    xor %ax, %ax
    mov %ax, %ds
    lgdtl TRAMPOLINE + 1f - trampoline
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $8, $secondary
    .balign 4
1:  .word gdt_pointer - gdt - 1
    .long gdt
trampoline_end:
    .code32

    .section .bss
    .balign 4
reported:
    .skip 4
busy:
    .skip 4
    .balign 16
    .skip 0x400
secondary_stack_top:
