"""The memory and the law: what a disk is, what it may become, what it has been.

Pure, but for `eventlog` and `history`, which own the SQLite file. Knows nothing of the kernel and
imports nothing of `reconciler`.
"""
