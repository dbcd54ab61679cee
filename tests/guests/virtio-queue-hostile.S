// Sets up queue 0 of a block device in one broken way after another, each after a reset, and prints the device's status
// register after a request. The last set-up is a good one.

#include "bare.inc"
#include "virtio-blk.inc"
#include "cases.inc"
main:
    mov $BLOCK, %eax
    call virtio_find
    mov $cases, %ebx
1:  mov 4(%ebx), %esi
    call puts
    call virtio_begin
    mov $TYPE_IN, %eax
    mov $0, %edx
    call blk_request
    call *(%ebx)
    call virtio_ready
    call virtio_kick
    mov $1000, %ecx                     // a device that ignores such a queue has nothing to say: no need to wait for it
2:  testl $NEEDS_RESET, STATUS(%edi)
    loopz 2b
    PUTS " device"
    PUTHEX STATUS(%edi)
    PUTS "\n"
    add $8, %ebx
    cmp $cases_end, %ebx
    jb 1b

    PUTS "good"
    call virtio_init
    mov $TYPE_IN, %eax
    mov $0, %edx
    call blk_request
    call blk_do
    PUTS "\nend\n"
    ret

    CASE size-0
    movl $0, QUEUE_NUM(%edi)
    ret
    CASE size-3
    movl $3, QUEUE_NUM(%edi)
    ret
    CASE size-32768
    movl $32768, QUEUE_NUM(%edi)
    ret
    CASE size-65544
    movl $0x10008, QUEUE_NUM(%edi)
    ret
    CASE descriptors-outside-memory
    movl $0xd0000000, QUEUE_DESC(%edi)
    ret
    CASE descriptors-at-end-of-address-space
    movl $-16, QUEUE_DESC(%edi)
    movl $-1, QUEUE_DESC + 4(%edi)
    ret
    CASE available-outside-memory
    movl $-1, QUEUE_DRIVER + 4(%edi)
    ret
    CASE available-unaligned
    movl $available + 1, QUEUE_DRIVER(%edi)
    ret
    CASE used-outside-memory
    movl $0xd0000000, QUEUE_DEVICE(%edi)
    ret
    CASE used-unaligned
    movl $used + 2, QUEUE_DEVICE(%edi)
    ret
    CASE rings-in-device-registers
    mov %edi, QUEUE_DRIVER(%edi)
    mov %edi, QUEUE_DEVICE(%edi)
    ret
    CASE more-available-than-the-queue-holds
    movw $1000, available + 2
    ret
    CASE head-out-of-range
    movw $0xffff, available + 4
    ret
    CASE missing-queue
    movl $0xffff, QUEUE_SEL(%edi)
    movl $8, QUEUE_NUM(%edi)
    movl $1, QUEUE_READY(%edi)
    movl $0, QUEUE_SEL(%edi)
    movl $0xffff, QUEUE_NOTIFY(%edi)
    ret

    CASES_END
