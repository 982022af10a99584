"""Counts inside of a process what it does: put this directory on its PYTHONPATH. Nothing of the worker knows it.

BENCH_COUNT_FILE   where the counts go, as JSON: SIGUSR2 begins, a second one writes
BENCH_COUNT        calls: Python and builtin calls of the main thread, on any loop
                   loop: tasks, futures and callbacks; on a loop of asyncio only, uvloop makes its own in C
                   cpu: its microseconds, and where they go, looked at after each four milliseconds
BENCH_LOOP         asyncio: a worker finds no uvloop
"""

from __future__ import annotations

import asyncio
import cProfile
import functools
import json
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

COUNTED: dict[str, Any] = {}
MAIN = threading.main_thread().ident
FUTURE: Any = asyncio.Future
_EVERY_S = 0.004


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


def _by_part(found: Any, total: int) -> dict[str, int]:
    """Calls by the part of the program that makes them. A builtin counts for the function that calls it."""
    parts: Counter[str] = Counter()
    for entry in found:
        if isinstance(entry.code, str):
            continue
        part = _part(entry.code.co_filename)
        parts[part] += entry.callcount
        parts[part] += sum(inner.callcount for inner in entry.calls or () if isinstance(inner.code, str))
    parts["loop"] += total - sum(parts.values())  # builtins that the loop calls itself
    return dict(parts)


_ROOMS = ("models", "text", "remote", "pipeline", "worker")


@functools.cache
def _part(file: str) -> str:
    """Return the folder or module of a room (a module of HTTP in `tools`), or the distribution; the standard library is
    `python`."""
    names = Path(file).parts
    for root in ("noetl_worker", "site-packages"):
        if root in names:
            below = names[names.index(root) + 1 :]
            if root == "noetl_worker" and below[0] == "tools":
                return f"tools/http/{below[-1]}".removesuffix(".py") if "http" in below[1:3] else "tools"
            return below[below[0] in _ROOMS].removesuffix(".py")
    return "python"


def _look(_: int, frame: Any) -> None:
    """Where the CPU is now; the standard library's is its caller's."""
    outer = frame
    while outer is not None and (part := _part(outer.f_code.co_filename)) == "python":
        outer = outer.f_back
    COUNTED["looks"][part if outer is not None else "loop"] += 1


def _main(kind: str, file: Path) -> None:
    profile = cProfile.Profile(builtins=True)
    if kind == "loop":
        COUNTED.update(futures=0, callbacks=0)
        asyncio.Future = asyncio.futures.Future = CountedFuture  # type: ignore[misc]

    def begin(*_: object) -> None:
        signal.signal(signal.SIGUSR2, end)
        if kind == "cpu":
            COUNTED.update(looks=Counter(), cpu_us=-time.process_time() * 1e6)
            signal.signal(signal.SIGPROF, _look)
            signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)
            return
        if kind == "loop":
            loop: Any = asyncio.get_running_loop()
            _count_tasks(loop)
            loop._ready = CountedQueue(loop._ready)
            COUNTED.update(futures=0, callbacks=0)
        else:
            profile.enable()

    def end(*_: object) -> None:
        if kind == "cpu":
            signal.setitimer(signal.ITIMER_PROF, 0)
            COUNTED["cpu_us"] += time.process_time() * 1e6
        profile.disable()
        if kind == "calls":
            # Not by pstats: its table keeps one of the functions that have the same name, as all generated __init__.
            found = profile.getstats()
            COUNTED["calls"] = sum(entry.callcount for entry in found)  # recursive ones too
            COUNTED["calls_by_part"] = _by_part(found, COUNTED["calls"])
        whole = file.with_suffix(".part")
        whole.write_text(json.dumps(COUNTED), encoding="utf-8")
        whole.rename(file)

    signal.signal(signal.SIGUSR2, begin)


if os.environ.get("BENCH_LOOP") == "asyncio":
    sys.modules["uvloop"] = None  # type: ignore[assignment]
if "BENCH_COUNT_FILE" in os.environ:
    _main(os.environ["BENCH_COUNT"], Path(os.environ["BENCH_COUNT_FILE"]))
