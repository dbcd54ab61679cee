// Writes one byte on the serial port and powers off: the guest of the start-up benchmark, so without `bare.inc`.

    .section .note.pvh, "a", @note
    .long 4, 4, 18                      // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long start

    .text
    .code32
    .globl start
start:
    mov $0x3f8, %dx
    mov $'!', %al
    out %al, %dx
    mov $0x600, %dx
    mov $(5 << 2) | (1 << 5), %al       // ACPI S5
    out %al, %dx
1:  hlt
    jmp 1b
