"""Looking at process groups: in /proc, elsewhere with ps."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from patience import until

T = TypeVar("T")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def members_of(group: int) -> list[int]:
    """Living processes (zombies do not count) whose process group is `group`."""
    every = _every_process() if sys.platform == "linux" else _every_process_by_ps()
    return [pid for pid, pgrp, state in every if pgrp == group and state[0] not in "ZX"]


def _every_process() -> Iterator[tuple[int, int, str]]:
    """(process, its group, its state)"""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        yield int(entry.name), int(group), state


def _every_process_by_ps() -> Iterator[tuple[int, int, str]]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    for pid, group, state in map(str.split, listed.splitlines()):
        yield int(pid), int(group), state


async def until_gone(group: int) -> list[int]:
    """What is left of the group; waits for the kernel to finish a kill that was sent."""
    with suppress(TimeoutError):
        await until(lambda: not members_of(group), "the end of the group", every_s=0.01)
    return members_of(group)


async def with_time(run: Callable[[float], Awaitable[T]], was_enough: Callable[[T], object]) -> T:
    """What comes of a run whose timeout struck after it had got so far: a busy machine starts no program at once."""
    for timeout_s in (0.4, 3.0, 20.0, 96.0):
        found = await run(timeout_s)
        if was_enough(found):
            break
    return found


async def started(pid_file: Path) -> int:
    """The number a script writes into `pid_file` once it runs."""
    await until(lambda: _text(pid_file).endswith("\n"), "the script's process", every_s=0.01)
    return int(_text(pid_file))


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def open_descriptors() -> set[tuple[str, str]]:
    """Return each open file descriptor of this process with what it leads to, such as `("7", "socket:[4711]")`.

    A test compares sets, not counts: garbage of an earlier test may close its own meanwhile.
    """
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile, as the descriptor of this listing is
            found.add((entry.name, str(entry.readlink())))
    return found


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


class PeakMemory:
    """`with PeakMemory() as peak: ...; peak.grown_mib`: the most that Python had allocated at one time, over the start.

    This is an exact count. The resident memory depends also on what the heap kept of earlier tests.
    """

    def __enter__(self) -> PeakMemory:
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *error: object) -> None:
        self.grown_mib = (tracemalloc.get_traced_memory()[1] - self._before) / (1 << 20)
        tracemalloc.stop()
