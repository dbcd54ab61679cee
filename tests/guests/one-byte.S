// Writes one byte on the serial port and powers off: the guest of the start-up benchmark, so without `bare.inc`.
// Other VMMs than rvmm run it, too; what does not end at the first try ends at a later one.

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
    mov $0xfe, %al                      // reset by the keyboard controller
    out %al, $0x64
    lidt empty                          // triple fault
    ud2
empty:
    .word 0
    .long 0
