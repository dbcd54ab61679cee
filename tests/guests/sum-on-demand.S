// Writes a word of its own to each page of 16 MiB, adds them up and prints the sum; and again, without writing, for each
// byte that the serial port receives: `q` ends it. It halts in between.

#include "bare.inc"
#include "interrupts.inc"
    .set SERIAL_PIN, 4
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
    call interrupts_init
    mov $SERIAL_PIN, %eax
    call ioapic_route
    mov $SERIAL + 4, %dx
    mov $0xb, %al                       // OUT2: interrupts leave the chip
    out %al, %dx
    mov $SERIAL + 1, %dx
    mov $1, %al                         // interrupt on received data
    out %al, %dx
    call sum
1:  sti
    hlt
    jmp 1b

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

handler:
    pusha
1:  mov $SERIAL + 5, %dx
    in %dx, %al
    test $1, %al                        // data ready
    jz 2f
    mov $SERIAL, %dx
    in %dx, %al
    cmp $'q', %al
    je power_off
    call sum
    jmp 1b
2:  popa
    ret
