"""Threads for deep recursion."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

BYTES = 512 * 2**20  # of addresses: memory is used only as deep as the recursion goes


@contextmanager
def large_stack(num_bytes: int = BYTES) -> Iterator[None]:
    """Give the threads that start in the block this much room for recursion."""
    before = threading.stack_size(num_bytes)
    try:
        yield
    finally:
        threading.stack_size(before)
