"""Large pages for weights, keys and values: a pass reads gigabytes of them, and finds each page before that."""

import os
import platform
import sys

VARIABLE = "GLIBC_TUNABLES"
HUGE = "glibc.malloc.hugetlb=1"  # malloc asks the kernel for large pages, where its transparent ones allow that


def use_huge_pages() -> None:
    """Start this process anew with large pages, unless the variable that glibc reads at a start is set."""
    if VARIABLE not in os.environ and platform.libc_ver()[0] == "glibc":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: HUGE})  # noqa: S606 - this very process
