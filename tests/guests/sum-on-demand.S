// Writes a word of its own to each page of 16 MiB, adds them up and prints the sum; and again, without writing, for each
// byte that the serial port receives: `q` ends it. It halts in between.

#include "bare.inc"
#include "serial-input.inc"
    .set FIRST, 32 << 20
    .set PAGE, 0x1000
    .set PAGES, (16 << 20) / PAGE
main:
    mov $FIRST, %edi
    mov $PAGES, %ecx
1:  imul $0x9e3779b1, %ecx, %eax
    mov %eax, (%edi)
    add $PAGE, %edi
    loop 1b
    call serial_input_init
    call sum
    jmp wait_for_input

received:
    cmp $'q', %al
    je power_off
sum:
    mov $FIRST, %edi
    mov $PAGES, %ecx
    xor %eax, %eax
1:  rol $1, %eax
    add (%edi), %eax
    add $PAGE, %edi
    loop 1b
    PUTHEX %eax
    PUTS "\n"
    ret
