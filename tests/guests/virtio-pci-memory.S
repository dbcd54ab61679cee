// As virtio-pci.S, but notifies the device in memory, as drivers do that use no ports.

#define NOTIFY_IN_PORTS 0
#include "virtio-pci.S"
