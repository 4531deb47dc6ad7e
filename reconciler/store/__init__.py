"""The persistent exception store in a CoW file, read without the kernel and without root."""
