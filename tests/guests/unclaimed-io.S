// Writes to and reads from ports and addresses where no device is, at every width, and prints what it read.

#include "bare.inc"
    .set PORT, 0x2220
    .set ADDRESS, 0xd0000000            // in the gap below 4 GiB, far behind the virtio devices
main:
    mov $PORT, %dx
    xor %eax, %eax
    out %al, %dx
    out %ax, %dx
    out %eax, %dx
    PUTS "ports"
    xor %eax, %eax
    in %dx, %al
    PUTHEX %eax
    xor %eax, %eax
    in %dx, %ax
    PUTHEX %eax
    in %dx, %eax
    PUTHEX %eax

    mov $ADDRESS, %edi
    xor %eax, %eax
    mov %al, (%edi)
    mov %ax, (%edi)
    mov %eax, (%edi)
    PUTS "\nmemory"
    movzbl (%edi), %eax
    PUTHEX %eax
    movzwl (%edi), %eax
    PUTHEX %eax
    mov (%edi), %eax
    PUTHEX %eax
    PUTS "\n"
    ret
