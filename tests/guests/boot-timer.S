// Tells the boot timer that it has booted, where Firecracker has it: first wrongly, then rightly, then once more.

#include "bare.inc"
    .set BOOT_TIMER, 0xc0000000
main:
    PUTS "up\n"
    movb $122, BOOT_TIMER
    movb $123, BOOT_TIMER + 1
    movb $123, BOOT_TIMER
    movb $123, BOOT_TIMER
    ret
