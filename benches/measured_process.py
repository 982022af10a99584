"""CPU and memory of a process and of all that it started. Linux."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text(encoding="ascii").split():
                yield from _tree(int(child))


def cpu_s(pid: int) -> float:
    """User and system time so far: of the living by their own clocks (nanoseconds), of the dead by ticks of 10 ms."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    for process in _tree(pid):
        with suppress(OSError):  # it has ended meanwhile, and is among its parent's dead
            # clock_getcpuclockid(3) of another process; Python has the call for threads only
            total += time.clock_gettime((~process << 3) | 2)
            fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            total += (int(fields[13]) + int(fields[14])) / ticks  # cutime, cstime
    return total


def rss_mb(pid: int) -> float:
    """Resident memory; pages that processes share count once for each."""
    pages = 0
    for process in _tree(pid):
        with suppress(OSError):
            pages += int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def pss_mb(pid: int) -> float:
    """Proportional set size: a page that n processes share counts as an n-th for each."""
    kilobytes = 0
    for process in _tree(pid):
        with suppress(OSError):
            text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
            kilobytes += int(text.partition("\nPss:")[2].split()[0])
    return kilobytes * 1024 / 1e6
