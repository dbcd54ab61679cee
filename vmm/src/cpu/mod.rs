//! What a virtual CPU is: its CPUID leaves and its model-specific registers.
