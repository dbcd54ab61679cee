// The other CPU fills the serial port's pipe and goes on writing, until nobody takes a byte for a while. Then this one
// resets the machine or, with the command line "fault", executes what is no memory.

#include "bare.inc"
#include "interrupts.inc"
#include "smp.inc"
    .set PATIENCE, 200000
main:
    call interrupts_init
    call smp_init
    call smp_start
1:  mov written, %eax
    mov $PATIENCE, %ecx
2:  cmp written, %eax
    jne 1b
    loop 2b
    test %eax, %eax
    jz 1b
    mov 24(%ebp), %esi
    cmpb $'f', (%esi)
    je 3f
    mov $ACPI_RESET, %dx
    mov $1, %al
    out %al, %dx
3:  mov $0xd0000000, %eax
    jmp *%eax

secondary:
    mov $16, %eax
    mov %eax, %ds
    mov $SERIAL, %dx
4:  mov $'x', %al
    out %al, %dx
    incl written
    jmp 4b

handler:
    ret

    .section .bss
    .balign 4
written:
    .skip 4
