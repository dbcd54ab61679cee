// Reads and writes every offset of the first virtio-mmio device's registers at every width, then resets the device and
// checks that it still answers.

#include "bare.inc"
    .set DEVICE, 0xc0000000
    .set STATUS, DEVICE + 0x70
    .set SIZE, 0x1000
    .set CONFIG_END, 0x180              // from here on a step is 64 bytes: nothing is there
main:
    mov $DEVICE, %edi
1:  mov (%edi), %al
    mov (%edi), %ax
    mov (%edi), %eax
    xor %eax, %eax
    call write
    not %eax
    call write
    mov $8, %eax
    call write
    inc %edi
    cmp $DEVICE + CONFIG_END, %edi
    jb 2f
    add $63, %edi
2:  cmp $DEVICE + SIZE - 4, %edi
    jb 1b

    movl $0, STATUS
    PUTS "magic"
    PUTHEX DEVICE
    PUTS "\nstatus"
    PUTHEX STATUS
    PUTS "\n"
    ret

write:
    mov %al, (%edi)
    mov %ax, (%edi)
    mov %eax, (%edi)
    ret
