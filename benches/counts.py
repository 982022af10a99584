"""What one no-op command makes a process do, counted inside of it: the same on every machine that runs this Python."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final

from rig import Rig, Side
from stub_plane import Answers

SLOTS: Final = 128
_HELD_MS: Final = "10000"
"""A counted worker is slow; its events shall travel in one batch all the same, as those of a fast command do."""
_NOOP: Final = Answers()
_LEAVING: Final = 50
_WRITTEN_S: Final = 120.0
_TIMES: Final = 2
"""How often calls are counted: how many messages a pull brings depends on the machine, and only ever adds some."""


async def count_worker(
    rig: Rig, commands: int, *, plug_ins: tuple[str, ...] = (), **variables: str
) -> dict[str, float]:
    """tasks, futures, callbacks, calls and requests for each command."""
    settings = {"NOETL_WORKER_STARTED_HOLD_MS": _HELD_MS, **variables}
    found: dict[str, float] = {}
    for what, loop in (("loop", "asyncio"), ("calls", "uvloop")):
        started = partial(rig.worker, SLOTS, plug_ins=plug_ins, inside=True, BENCH_LOOP=loop, **settings)
        counted = [await _count(rig, what, started, commands) for _ in range(_TIMES if what == "calls" else 1)]
        found = {**min(counted, key=lambda one: one.get("calls", 0.0)), **found}
    return found


async def count_calls(
    rig: Rig, commands: int, *, kind: str = "noop", plug_ins: tuple[str, ...] = (), **variables: str
) -> float:
    """Only the calls of `count_worker`, on uvloop."""
    settings = {"NOETL_WORKER_STARTED_HOLD_MS": _HELD_MS, **variables}
    started = partial(rig.worker, SLOTS, plug_ins=plug_ins, inside=True, **settings)
    return min([(await _count(rig, "calls", started, commands, Answers(kind=kind)))["calls"] for _ in range(_TIMES)])


async def count_http(rig: Rig, commands: int, *, plug_ins: tuple[str, ...] = (), **variables: str) -> dict[str, float]:
    """Of a GET of the plane, one command at a time: calls for each, and the descriptors that all of them leave."""
    settings = {"NOETL_WORKER_STARTED_HOLD_MS": _HELD_MS, **variables}
    answers = Answers(kind="http", config={"url": f"{rig.stub_url}/api/health"})
    async with rig.worker(1, plug_ins=plug_ins, **settings) as side:
        await side.load.send(_NOOP, 1)
        before = side.descriptors()
        await side.load.send(answers, _LEAVING)
        left = side.descriptors() - before
    started = partial(rig.worker, 1, plug_ins=plug_ins, inside=True, **settings)
    return {"calls": (await _count(rig, "calls", started, commands, answers))["calls"], "descriptors": left}


async def count_parts(rig: Rig, what: str, slots: int, commands: int, answers: Answers) -> dict[str, float]:
    """By part of the program, for each command: its `calls`, or its share of the `cpu`, in microseconds."""
    started = partial(rig.worker, slots, inside=True, NOETL_WORKER_STARTED_HOLD_MS=_HELD_MS)
    counted = await _count(rig, what, started, commands, answers)
    if what == "calls":
        return counted["calls_by_part"]
    looks = sum(counted["looks"].values())
    return {part: number / looks * counted["cpu_us"] for part, number in counted["looks"].items()}


async def count_yardstick(rig: Rig, commands: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for what, loop in (("loop", "asyncio"), ("calls", "uvloop")):
        found = {**await _count(rig, what, partial(rig.yardstick, SLOTS, inside=True, loop=loop), commands), **found}
    return found


async def _count(rig: Rig, what: str, started: Any, commands: int, answers: Answers = _NOOP) -> dict[str, Any]:
    """Warm up, then count from one signal to the other; all is acknowledged by then."""
    file = rig.directory / "counts.json"
    file.unlink(missing_ok=True)
    starting: AbstractAsyncContextManager[Side] = started(BENCH_COUNT=what, BENCH_COUNT_FILE=str(file))
    async with starting as side:
        await side.load.send(answers, max(1, commands // 5))
        os.kill(side.pid, signal.SIGUSR2)
        sent = await side.load.send(answers, commands)
        os.kill(side.pid, signal.SIGUSR2)
        deadline = time.monotonic() + _WRITTEN_S
        while not file.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{side.name} wrote no counts: {side.log()}")
            await asyncio.sleep(0.01)
    counted = json.loads(file.read_text(encoding="utf-8"))
    return {
        "requests": sent.requests_per_command,
        **{name: _for_one(number, commands) for name, number in counted.items()},
    }


def _for_one(counted: Any, commands: int) -> Any:
    if isinstance(counted, dict):
        return {name: number / commands for name, number in counted.items()}
    return counted / commands
