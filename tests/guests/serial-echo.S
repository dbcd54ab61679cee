// Sends back what the serial port receives, halted until an interrupt says that there is something. `q` powers off.

#include "bare.inc"
#include "interrupts.inc"
    .set SERIAL_PIN, 4
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
    PUTS "ready\n"
1:  sti
    hlt
    jmp 1b

handler:
    push %eax
    push %edx
1:  mov $SERIAL + 5, %dx
    in %dx, %al
    test $1, %al                        // data ready
    jz 2f
    mov $SERIAL, %dx
    in %dx, %al
    cmp $'q', %al
    je power_off
    out %al, %dx
    jmp 1b
2:  pop %edx
    pop %eax
    ret
