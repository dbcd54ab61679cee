// Writes to 16 MiB of memory, a word in each page, says `!`, and then for each byte that the serial port receives to 16 of
// these pages again, and says `!` once more. It halts in between.

#include "bare.inc"
#include "serial-input.inc"
    .set FIRST, 32 << 20
    .set PAGE, 0x1000
main:
    call serial_input_init
    mov $(16 << 20) / PAGE, %ecx
    call write
    jmp wait_for_input

received:
    mov $16, %ecx
// Writes to the first %ecx pages, and says so.
write:
    mov $FIRST, %edi
1:  incl (%edi)
    add $PAGE, %edi
    loop 1b
    mov $'!', %al
    jmp putc
