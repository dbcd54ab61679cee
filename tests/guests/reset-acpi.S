// Resets the machine through the ACPI reset register.

#include "bare.inc"
main:
    PUTS "up\n"
    mov $ACPI_RESET, %dx
    mov $1, %al
    out %al, %dx
1:  hlt
    jmp 1b
