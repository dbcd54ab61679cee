// Prints IA32_BIOS_SIGN_ID (0x8b), the microcode's revision: a register that every KVM has and no guest can write. Then
// resets the machine.

#include "bare.inc"
main:
    mov $0x8b, %ecx
    rdmsr
    PUTS "msr"
    PUTHEX %ecx
    PUTS ":"
    PUTHEX %edx
    PUTHEX %eax
    PUTS "\n"
    mov $ACPI_RESET, %dx
    mov $1, %al
    out %al, %dx
1:  hlt
    jmp 1b
