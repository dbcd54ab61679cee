# Writes "hello" on the serial port and powers off: the shortest guest there is.
    .section .note.pvh, "a", @note
    .long 4, 4, 18
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
    mov $0x34, %al
    out %al, %dx
1:  hlt
    jmp 1b
