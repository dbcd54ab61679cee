// Sends back what the serial port receives, halted until an interrupt says that there is something. `q` powers off.

#include "bare.inc"
#include "serial-input.inc"
main:
    call serial_input_init
    PUTS "ready\n"
    jmp wait_for_input

received:
    cmp $'q', %al
    je power_off
    jmp putc
