"""Counts inside of a process what it does: put this directory on its PYTHONPATH. Nothing of the worker knows it.

BENCH_COUNT_FILE   where the counts go, as JSON: SIGUSR2 begins, a second one writes
BENCH_COUNT        calls: Python and builtin calls of the main thread, on any loop
                   loop: tasks, futures and callbacks; on a loop of asyncio only, uvloop makes its own in C
BENCH_LOOP         asyncio: a worker finds no uvloop
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import signal
import sys
import threading
from collections import Counter, deque
from pathlib import Path
from typing import Any

COUNTED: dict[str, Any] = {}
BATCHES = "noetl_worker.plane.python.recent_batches"
MAIN = threading.main_thread().ident
FUTURE: Any = asyncio.Future


class _IsFuture(type):
    def __instancecheck__(cls, one: object) -> bool:
        return isinstance(one, FUTURE)  # tasks are futures, and no CountedFuture


class CountedFuture(asyncio.Future, metaclass=_IsFuture):  # type: ignore[type-arg]
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if threading.get_ident() == MAIN:
            COUNTED["futures"] += 1


class CountedQueue(deque):  # type: ignore[type-arg]
    """The loop's queue: whatever it runs, from call_soon, a timer or a socket, was appended here."""

    def append(self, handle: Any) -> None:
        COUNTED["callbacks"] += 1
        super().append(handle)


def _count_tasks(loop: Any) -> None:
    COUNTED["tasks"] = 0

    def made(its_loop: Any, work: Any, **named: Any) -> Any:
        COUNTED["tasks"] += 1
        return asyncio.Task(work, loop=its_loop, **named)

    loop.set_task_factory(made)


def _by_package(found: Any, total: int) -> dict[str, int]:
    """Calls by the part of the program that makes them. A builtin counts for the function that calls it."""
    packages: Counter[str] = Counter()
    for entry in found:
        if isinstance(entry.code, str):
            continue
        package = _package(entry.code.co_filename)
        packages[package] += entry.callcount
        packages[package] += sum(inner.callcount for inner in entry.calls or () if isinstance(inner.code, str))
    packages["loop"] += total - sum(packages.values())  # builtins that the loop calls itself
    return dict(packages)


def _package(file: str) -> str:
    """A folder of the package, a module at its top, or the distribution: the library's own code is `python`."""
    parts = Path(file).parts
    for root in ("noetl_worker", "site-packages"):
        if root in parts:
            return parts[parts.index(root) + 1].removesuffix(".py")
    return "python"


def _main(kind: str, file: Path) -> None:
    profile = cProfile.Profile(builtins=True)
    if kind == "loop":
        COUNTED.update(futures=0, callbacks=0)
        asyncio.Future = asyncio.futures.Future = CountedFuture  # type: ignore[misc]

    def begin(*_: object) -> None:
        signal.signal(signal.SIGUSR2, end)
        if (batches := sys.modules.get(BATCHES)) is not None:
            batches.KEEP_S = 10.0  # type: ignore[attr-defined]  # written four times a second, however slow this is
        if kind == "loop":
            loop: Any = asyncio.get_running_loop()
            _count_tasks(loop)
            loop._ready = CountedQueue(loop._ready)
            COUNTED.update(futures=0, callbacks=0)
        else:
            profile.enable()

    def end(*_: object) -> None:
        profile.disable()
        if kind == "calls":
            # Not by pstats: its table keeps one of the functions that have the same name, as all generated __init__.
            found = profile.getstats()
            COUNTED["calls"] = sum(entry.callcount for entry in found)  # recursive ones too
            COUNTED["calls_by_package"] = _by_package(found, COUNTED["calls"])
        whole = file.with_suffix(".part")
        whole.write_text(json.dumps(COUNTED), encoding="utf-8")
        whole.rename(file)

    signal.signal(signal.SIGUSR2, begin)


if os.environ.get("BENCH_LOOP") == "asyncio":
    sys.modules["uvloop"] = None  # type: ignore[assignment]
if "BENCH_COUNT_FILE" in os.environ:
    _main(os.environ["BENCH_COUNT"], Path(os.environ["BENCH_COUNT_FILE"]))
