// Takes three interrupts of the local APIC's timer, halted in between.

#include "bare.inc"
#include "interrupts.inc"
main:
    call interrupts_init
    movl $0xb, APIC_TIMER_DIVIDE        // by 1
    movl $VECTOR | 1 << 17, APIC_LVT_TIMER  // periodic
    movl $1000000, APIC_TIMER_COUNT
    PUTS "ticks"
    mov $1, %ecx
1:  cli
    cmp %ecx, ticks
    jae 2f
    sti
    hlt
    jmp 1b
2:  PUTHEX %ecx
    inc %ecx
    cmp $3, %ecx
    jbe 1b
    PUTS "\n"
    ret

handler:
    incl ticks
    ret

    .section .bss
    .balign 4
ticks:
    .skip 4
