"""Large pages for weights, keys and values: a pass reads gigabytes of them, and finds each page before that."""

import os
import platform
import sys
from contextlib import suppress

VARIABLE = "GLIBC_TUNABLES"
_ONCE = "started_anew"  # an option that python passes on: where something takes the variable away again, that ends it
HUGE = "glibc.malloc.hugetlb=1"  # malloc asks the kernel for large pages, where its transparent ones allow that


def use_huge_pages() -> None:
    """Start this process anew with large pages, once, unless the variable that glibc reads at a start is set."""
    if VARIABLE in os.environ or _ONCE in sys._xoptions or platform.libc_ver()[0] != "glibc" or not sys.executable:  # noqa: SLF001 - as documented
        return
    again = [sys.executable, "-X", _ONCE, *sys.orig_argv[1:]]
    with suppress(OSError):  # where a process may not
        os.execve(again[0], again, os.environ | {VARIABLE: HUGE})  # noqa: S606 - this very process
