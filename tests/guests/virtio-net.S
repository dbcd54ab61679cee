// Asks by ARP who has 10.7.0.1, through the network device, and prints the answer: the sender's protocol address and the
// number of buffers. Other frames are passed over. It ends when the link goes down.

#include "bare.inc"
#include "virtio.inc"

    .set NET, 1
    .set RECEIVE_QUEUE, 0
    .set TRANSMIT_QUEUE, 1
    .set HEADER_LEN, 12
    .set BUFFER_LEN, 2048
    .set ETHERTYPE_ARP, 0x0608          // as it is in memory
    .set ARP_REPLY, 0x0200
    .set OTHERS, 30
    .set LINK_UP, 1

main:
    mov $NET, %eax
    call virtio_find
    PUTS "mac"
    PUTHEX CONFIG(%edi)
    movzwl CONFIG + 4(%edi), %eax
    PUTHEX %eax
    PUTS " status"
    movzwl CONFIG + 6(%edi), %eax
    PUTHEX %eax
    PUTS "\n"
    call virtio_begin
    DESCRIPTOR 0, $buffer, BUFFER_LEN, F_WRITE, 0
    movl $1, QUEUE_READY(%edi)
    movl $TRANSMIT_QUEUE, QUEUE_SEL(%edi)
    movl $QUEUE_SIZE, QUEUE_NUM(%edi)
    movl $transmit_descriptors, QUEUE_DESC(%edi)
    movl $0, QUEUE_DESC + 4(%edi)
    movl $transmit_available, QUEUE_DRIVER(%edi)
    movl $0, QUEUE_DRIVER + 4(%edi)
    movl $transmit_used, QUEUE_DEVICE(%edi)
    movl $0, QUEUE_DEVICE + 4(%edi)
    call virtio_ready
    mov $OTHERS, %ebx
    call virtio_kick
    incw transmit_available + 2
    movl $TRANSMIT_QUEUE, QUEUE_NOTIFY(%edi)

again:
    // Each look at the link is an exit, and so a clock.
    mov $1000000, %ecx
4:  mov available + 2, %ax
    cmp %ax, used + 2
    je 5f
    testw $LINK_UP, CONFIG + 6(%edi)
    jz 6f
    dec %ecx
    jz 2f
    // The host loses what it sends in the first moments of its interface, so ask again now and then.
    test $0x3fff, %ecx
    jnz 4b
    incw transmit_available + 2
    movl $TRANSMIT_QUEUE, QUEUE_NOTIFY(%edi)
    jmp 4b
5:  cmpw $ETHERTYPE_ARP, buffer + HEADER_LEN + 12
    jne 1f
    cmpw $ARP_REPLY, buffer + HEADER_LEN + 20
    je 3f
1:  dec %ebx
    jz 2f
    call virtio_kick
    jmp again
2:  PUTS "no answer\n"
    ret
6:  PUTS "link down\n"
    ret
3:  PUTS "reply from"
    mov buffer + HEADER_LEN + 28, %eax
    bswap %eax
    PUTHEX %eax
    PUTS " buffers"
    movzwl buffer + 10, %eax
    PUTHEX %eax
    PUTS "\n"
    ret

    .data
    .balign 16
packet:
    .skip HEADER_LEN
    .byte 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
    .byte 2, 0, 0, 0, 0, 7
    .byte 8, 6, 0, 1, 8, 0, 6, 4, 0, 1
    .byte 2, 0, 0, 0, 0, 7, 10, 7, 0, 2
    .byte 0, 0, 0, 0, 0, 0, 10, 7, 0, 1
packet_end:
    .balign 16
transmit_descriptors:
    .long packet, 0, packet_end - packet, 0
    .skip 16 * (QUEUE_SIZE - 1)
transmit_available:
    .skip 8 + 2 * QUEUE_SIZE
    .balign 4
transmit_used:
    .skip 8 + 8 * QUEUE_SIZE

    .section .bss
    .balign 16
buffer:
    .skip BUFFER_LEN
