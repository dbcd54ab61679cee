// Writes to 16 MiB of memory, a word in each page, says `!`, and then for each byte that the serial port receives to 16 of
// these pages again, and says `!` once more. It halts in between.

#include "bare.inc"
#include "interrupts.inc"
    .set SERIAL_PIN, 4
    .set FIRST, 32 << 20
    .set PAGE, 0x1000
main:
    call interrupts_init
    mov $SERIAL_PIN, %eax
    call ioapic_route
    mov $SERIAL + 4, %dx
    mov $0xb, %al                       // OUT2: interrupts leave the chip
    out %al, %dx
    mov $SERIAL + 1, %dx
    mov $1, %al                         // interrupt on received data
    out %al, %dx
    mov $(16 << 20) / PAGE, %ecx
    call write
    mov $'!', %al
    call putc
1:  sti
    hlt
    jmp 1b

// Writes to the first %ecx pages.
write:
    mov $FIRST, %edi
1:  incl (%edi)
    add $PAGE, %edi
    loop 1b
    ret

handler:
    pusha
1:  mov $SERIAL + 5, %dx
    in %dx, %al
    test $1, %al                        // data ready
    jz 2f
    mov $SERIAL, %dx
    in %dx, %al
    mov $16, %ecx
    call write
    mov $'!', %al
    call putc
    jmp 1b
2:  popa
    ret
