"""Faults of the file system: a command's n-th call about files fails, for every n, and the command is run again.

``python -m tests.support.faults`` does it for every command that writes files; see :mod:`tests.support.faults.sweep`.
"""
