"""The memory available to the worker and its commands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

OWN_CGROUP: Final = Path("/proc/self/cgroup")
CGROUPS: Final = Path("/sys/fs/cgroup")


def memory_bytes() -> int:
    """Return the machine's memory in bytes, or the lowest memory limit of this process's cgroups; 0 if unknown."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0
    return min([physical, *_limits()])


def _limits() -> Iterator[int]:
    """Yield the memory limits of this process's cgroup and of the cgroups above it (version 2), as far as they are
    visible."""
    with suppress(OSError, ValueError):  # not Linux, or version 1
        own = next(line for line in OWN_CGROUP.read_text().splitlines() if line.startswith("0::"))[3:]
        place = Path(own.strip("/"))
        for one in (place, *place.parents):
            with suppress(OSError, ValueError):  # the root has no limit, and "max" is no number
                yield int((CGROUPS / one / "memory.max").read_text())
