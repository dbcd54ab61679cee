// Two CPUs write on the serial port without end. With a command line, the first resets the machine once the second has
// begun to write.

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
    movl $ALL_BUT_SELF | INIT, APIC_ICR
    movl $ALL_BUT_SELF | STARTUP | TRAMPOLINE >> 12, APIC_ICR
    mov 24(%ebp), %esi
    cmpb $0, (%esi)
    je flood
1:  pause
    // More than a pipe holds: the second CPU is blocked, or soon will be.
    cmpl $RESET_AFTER, written
    jb 1b
    mov $ACPI_RESET, %dx
    mov $1, %al
    out %al, %dx
    hlt

    .set RESET_AFTER, 65530
flood:
    mov $SERIAL, %dx
    mov $'x', %al
1:  out %al, %dx
    incl written
    jmp 1b

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
    ljmpl $8, $second
    .balign 4
1:  .word gdt_pointer - gdt - 1
    .long gdt
trampoline_end:
    .code32

second:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    jmp flood

    .section .bss
    .balign 4
written:
    .skip 4
