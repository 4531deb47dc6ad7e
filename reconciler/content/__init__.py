"""What a disk holds, byte for byte, read from its files: the base under its exceptions.

Works on open files only: no disk, no record, no kernel but that which reads and writes files.
"""
