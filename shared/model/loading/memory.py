"""How much memory is left to this process: of the machine, and of each container (cgroup) that it runs in.

psutil knows the machine's; no library that we have knows the container's.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
FILES = {  # by version: where groups are, their limit and use, and which of their pages a file still has
    2: ("", "memory.max", "memory.current", ("inactive_file", "active_file")),
    1: ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
}


def memory_left() -> int:
    """Return how many bytes may still be taken, without those of files that this process has mapped.

    The pages of such files, perhaps weights, count as free elsewhere, since they could be read again.
    """
    mapped = getattr(psutil.Process().memory_info(), "shared", 0)
    return max(
        0, min([int(psutil.virtual_memory().available), *(limit - used for limit, used in _groups())]) - int(mapped)
    )


def memory_in_all() -> int:
    """Return how many bytes the machine or the smallest container has."""
    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _groups())])


def _groups() -> Iterator[tuple[int, int]]:
    """Yield the limit and use of each group that has one, in bytes."""
    with suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "memory" in controllers.split(","):
                yield from _of(path, 1 if controllers else 2)


def _of(path: str, version: int) -> Iterator[tuple[int, int]]:
    """Yield those of a group and of the ones around it; within a container, its own is the outermost one to be seen."""
    place, limit_file, used_file, kept = FILES[version]
    root = GROUPS / place
    own = root / path.lstrip("/")
    for group in (own, *own.parents):
        if not group.is_relative_to(root):
            return
        with suppress(OSError, ValueError, KeyError):  # no such group here, or no limit: `max`
            limit, used = (int((group / name).read_text()) for name in (limit_file, used_file))
            pages = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            yield limit, used - sum(int(pages[name]) for name in kept)
