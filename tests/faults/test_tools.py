"""F17, F19, F20, F21: poison, and tools that do not end, leave processes, flood, run out of memory."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from faults.conftest import Measured
from faults.scene import ONE_PLANE, Scene, children_of, scene
from holds import HOLDS_TIMES
from integration.house import TERMINAL
from integration.processes import until
from integration.test_pipeline import BAD_NOTIFICATIONS
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.envelope import decode_notification
from noetl_worker.errors import NotificationError
from noetl_worker.models import Dialect

ONE_SLOT = {"WORKER_MAX_CONCURRENT": "1"}
DEADLOCK = "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"
DEADLOCKED_THREAD = (
    "import threading\nlock = threading.Lock()\nlock.acquire()\n"
    "thread = threading.Thread(target=lock.acquire)\nthread.start()\nthread.join()"
)


async def run_one(home: Scene, command: RawCommand) -> tuple[IssuedCommand, float]:
    """(the command, seconds from its claim to its terminal event)"""
    [one] = await home.plane.create_commands([command])
    await home.plane.wait_until(lambda: home.plane.command(one.event_id).worker_id is not None)
    claimed = time.monotonic()
    await home.wait_terminal(one.event_id)
    return one, time.monotonic() - claimed


def told(home: Scene, one: IssuedCommand) -> str:
    """Everything that the plane was told of a command's end, as text."""
    events = home.plane.events_of_command(one.event_id, "call.done", "call.error", "step.exit", *TERMINAL)
    return json.dumps([[event.result, event.error, event.context] for event in events], default=str)


# ── F17 ──

POISON: list[Any] = [
    *BAD_NOTIFICATIONS,
    b"[" * 2000 + b"]" * 2000,
    b'{"a":' * 2000 + b"1" + b"}" * 2000,
    json.dumps({"execution_id": "x" * 19, "event_id": 1, "command_id": 1, "step": "s"}).encode(),
    b'{"execution_id": 99999999999999999999, "event_id": 1, "command_id": 1, "step": "s"}',
    b"x" * 10_000_000,
    b'{"padding": "' + b"x" * 10_000_000 + b'"}',
]


def test_f17_refusing_a_poisonous_message_costs_no_more_than_a_checksum_of_10_mb(measured: Measured) -> None:
    def cpu_s(work: Callable[[], object]) -> float:
        started = time.thread_time()
        work()
        return time.thread_time() - started

    def refuse(data: bytes) -> None:
        with pytest.raises(NotificationError):
            decode_notification(data)

    largest = max(POISON, key=len)
    slowest = max(min(cpu_s(partial(refuse, data)) for _ in range(5)) for data in POISON)
    checksum = min(cpu_s(partial(hashlib.sha256, largest)) for _ in range(5))
    measured(
        "F17",
        "CPU time of the slowest poisonous message, in terms of a SHA-256 of the largest (10 MB)",
        slowest / checksum,
        "x",
        at_most=1,
    )


@pytest.mark.parametrize("dialect", ONE_PLANE)
async def test_f17_poison_becomes_dead_letters_and_failed_commands_and_the_worker_goes_on(
    dialect: Dialect, tmp_path: Path, measured: Measured
) -> None:
    async with scene(tmp_path, dialect, nats_config="max_payload: 16MB\nmax_pending: 64MB") as home:
        worker = await home.start_process()
        deep: Any = 1
        for _ in range(400):
            deep = [deep]
        for data in POISON:
            await home.publish(data)
        issued = await home.plane.create_commands(
            [RawCommand("teleport", {}), RawCommand("noop", {"result": deep}), RawCommand("noop")]
        )
        await home.wait_ended(issued)
        await home.assert_books(issued)
        assert home.terminal_events(issued[0].event_id) == ["command.failed"]
        assert "teleport" in told(home, issued[0])
        assert home.terminal_events(issued[2].event_id) == ["command.completed"]
        dead_letters = await home.dead_letters()
        assert all(dead_letter["reason"].startswith("not a notification") for dead_letter in dead_letters)
        assert worker.is_running
        await home.stop_all()
    measured("F17", f"{dialect.value}: poison without a dead letter", len(POISON) - len(dead_letters), "", exactly=0)


# ── F19 ──

ENDLESS = {
    "shell sleep 1000": RawCommand("shell", {"command": "sleep 1000", "timeout": 1}),
    "python loop in C": RawCommand("python", {"code": "result = sum(range(10 ** 13))", "timeout": 1}),
    "python deadlock": RawCommand("python", {"code": DEADLOCK, "timeout": 1}),
    "python deadlocked thread": RawCommand("python", {"code": DEADLOCKED_THREAD, "timeout": 1}),
}


@pytest.mark.parametrize("dialect", ONE_PLANE)
async def test_f19_tool_that_does_not_end_is_killed_at_its_timeout(
    dialect: Dialect, tmp_path: Path, measured: Measured
) -> None:
    async with scene(tmp_path, dialect) as home:
        worker = await home.start_process(**ONE_SLOT)
        warm = [RawCommand("python", {"code": "result = 1"}), RawCommand("shell", {"command": "true"})]
        issued = [(await run_one(home, command))[0] for command in warm]
        before = await home.leftovers(worker)
        took = {}
        for name, command in ENDLESS.items():
            one, took[name] = await run_one(home, command)
            issued.append(one)
            assert "time" in told(home, one).lower(), told(home, one)
        after, _ = await run_one(home, RawCommand("noop"))
        await home.assert_books([*issued, after])
        await home.assert_holds_no_more(worker, before)
        await home.stop_all()
    for name, took_s in took.items():
        measured("F19", f"{dialect.value}: {name}, timeout 1 s: reported after", took_s, "s", at_most=1 + 1)


# ── F20 ──

GRANDCHILDREN = "sleep 1000 & (sleep 1001 & sleep 1002 & wait) & wait"
FLOOD_BYTES = 1_000_000_000 if HOLDS_TIMES else 200_000_000
FLOOD = f"yes 0123456789abcdef | head -c {FLOOD_BYTES}"


async def test_f20_grandchildren_a_flood_and_a_closed_input(tmp_path: Path, measured: Measured) -> None:
    async with scene(tmp_path) as home:
        worker = await home.start_process(**ONE_SLOT)
        warm, _ = await run_one(home, RawCommand("shell", {"command": "true"}))
        before, (had, most_before) = await home.leftovers(worker), worker.memory_mb()
        many, _ = await run_one(home, RawCommand("shell", {"command": GRANDCHILDREN, "timeout": 1}))
        await until(lambda: len(children_of(worker.process.pid)) == before.children, "the group's end")
        quick, took_s = await run_one(home, RawCommand("shell", {"command": "sleep 1003 & echo started"}))
        flood, _ = await run_one(home, RawCommand("shell", {"command": FLOOD}))
        keeps, most = worker.memory_mb()
        closed, _ = await run_one(home, RawCommand("shell", {"command": "exec 0<&-; cat; echo went on"}))
        assert "went on" in told(home, closed)
        assert home.terminal_events(flood.event_id) == ["command.completed"]
        assert "omitted" in told(home, flood) or "truncated" in told(home, flood), told(home, flood)[-500:]
        await home.assert_books([warm, many, quick, flood, closed])
        await home.assert_holds_no_more(worker, before)
        await home.stop_all()
    flood_gb = f"{FLOOD_BYTES / 1e9:g} GB"
    measured("F20", f"more memory over {flood_gb} of output", most - most_before, "MB", at_most=32)
    measured("F20", f"memory that is not returned after {flood_gb} of output", keeps - had, "MB", at_most=8)
    measured("F20", "a shell that leaves a child behind: reported after", took_s, "s", at_most=3)


# ── F21 ──

GREEDY = "x = [bytearray(10 ** 7) for _ in range(10 ** 4)]"
OOM = {
    "python over its memory_mb": RawCommand("python", {"code": GREEDY, "memory_mb": 200}),
    "shell over its limit": RawCommand("shell", {"command": f"ulimit -v 300000; python3 -c '{GREEDY}'"}),
    "killed as by the kernel": RawCommand("shell", {"command": "kill -9 $$"}),
    "python killed as by the kernel": RawCommand("python", {"code": "import os; os.kill(os.getpid(), 9)"}),
}


@pytest.mark.parametrize("dialect", ONE_PLANE)
async def test_f21_process_without_memory_is_reported_as_such_and_the_worker_goes_on(
    dialect: Dialect, tmp_path: Path, measured: Measured
) -> None:
    silent = []
    async with scene(tmp_path, dialect) as home:
        await home.start_process(**ONE_SLOT)
        issued = []
        for name, command in OOM.items():
            one, _ = await run_one(home, command)
            issued.append(one)
            if "memory" not in told(home, one).lower():
                silent.append(name)
        after, _ = await run_one(home, RawCommand("noop"))
        await home.close_books([*issued, after])
    assert silent == []
    measured("F21", f"{dialect.value}: ends whose event does not name memory", len(silent), "", exactly=0)
