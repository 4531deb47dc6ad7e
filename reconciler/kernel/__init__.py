"""The Kernel port and its two implementations: `linux` (real) and `sim` (in memory)."""
