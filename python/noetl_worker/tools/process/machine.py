"""The memory available to the worker and its commands."""

from __future__ import annotations

import os
from pathlib import Path


def memory_bytes() -> int:
    """Return the bytes of the machine, or of the container's limit; 0 if the system does not say."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:  # not Linux, no cgroup v2, or its root
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical
