//! Loads a kernel, its initrd and its command line into guest memory and says where the boot vCPU starts.
