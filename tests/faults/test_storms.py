"""L: the lines of a worker's log while something that all commands need is broken."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import nats
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from faults.conftest import Measured
from faults.proxy import Proxy
from faults.scene import Scene, scene, side_by_side
from holds import HOLDS_TIMES
from integration.processes import Gate, WorkerProcess, until
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.authoring.dev.plane import RawCommand

SPAN_S: Final = 60.0 if HOLDS_TIMES else 6.0
SLOTS, WAITING = 16, 200
MOST: Final = 20
"""Lines of a minute: a worker in trouble has at most ten causes, and each has two lines."""
ENDS: Final = frozenset({"command_finished", "command_failed"})
"""One for each command, as NOETL_WORKER_LOG_COMMANDS has it."""
BEATS: Final = {"WORKER_HEARTBEAT_INTERVAL": "1", "WORKER_NATS_LAG_POLL_INTERVAL": "1"}
Storm: TypeAlias = Callable[[Scene], AbstractAsyncContextManager[None]]


def plane_says(status: int, *, within: str = "/api/", but: str = "worker/pool") -> Storm:
    @asynccontextmanager
    async def storm(home: Scene) -> AsyncIterator[None]:
        def fault(request: Request) -> Response | None:
            path = request.url.path
            return JSONResponse({"detail": "no"}, status) if within in path and not (but and but in path) else None

        home.plane.fault = fault
        yield
        home.plane.fault = None

    return storm


@asynccontextmanager
async def every(seconds: float, act: Callable[[], Any]) -> AsyncIterator[None]:
    """Inside, `act` is done again and again."""

    async def go_on() -> None:
        while True:
            await act()
            await asyncio.sleep(seconds)

    going = asyncio.ensure_future(go_on())
    try:
        yield
    finally:
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)


@asynccontextmanager
async def plane_is_down(home: Scene) -> AsyncIterator[None]:
    async with home.plane.outage():
        yield


@asynccontextmanager
async def plane_comes_and_goes(home: Scene) -> AsyncIterator[None]:
    states = iter(range(10**6))

    async def turn() -> None:
        is_down = next(states) % 2 == 0
        home.plane.fault = (lambda _: JSONResponse({"detail": "no"}, 503)) if is_down else None

    async with every(2.5, turn):
        yield
    home.plane.fault = None


@asynccontextmanager
async def nats_restarts(home: Scene) -> AsyncIterator[None]:
    async with every(2.5, home.nats.restart):
        yield


@asynccontextmanager
async def durable_is_deleted(home: Scene) -> AsyncIterator[None]:
    """With the bucket of starts."""
    async with await nats.connect(home.nats.url) as client:

        async def delete() -> None:
            with suppress(nats.js.errors.NotFoundError):
                await client.jsm().delete_consumer("NOETL_COMMANDS", "noetl_worker")
            with suppress(nats.js.errors.NotFoundError):
                await client.jsm().delete_stream("KV_NOETL_COMMAND_STARTS")

        async with every(0.2, delete):
            yield


@asynccontextmanager
async def commands_of_another_pool(home: Scene) -> AsyncIterator[None]:
    async with await nats.connect(home.nats.url) as client:
        for number in range(WAITING):
            named = {"execution_id": number + 1, "event_id": number + 1, "command_id": number + 1, "step": "start"}
            body = {**named, "server_url": home.plane.url, "execution_pool": "gpu"}
            await client.jetstream().publish("noetl.commands", json.dumps(body).encode())
        yield
        await client.jsm().purge_stream("NOETL_COMMANDS")


CANCELLATIONS: Final = "questions for a cancellation are answered 500"
STORMS: Final[dict[str, Storm]] = {
    "the plane answers 500": plane_says(500),
    "the plane answers 500, heartbeats too": plane_says(500, but=""),
    "the plane answers 503": plane_says(503, but=""),
    "the plane answers 429": plane_says(429),
    "the plane answers 401": plane_says(401, but=""),
    "the plane refuses connections": plane_is_down,
    "the plane comes and goes": plane_comes_and_goes,
    CANCELLATIONS: plane_says(500, within="cancellation-check"),
    "events are answered 500, claims are not": plane_says(500, within="/api/events"),
    "NATS restarts again and again": nats_restarts,
    "the durable and the bucket of starts are deleted again and again": durable_is_deleted,
    "200 commands of another pool": commands_of_another_pool,
}

IN_ALL_RUNS: Final = (
    "the plane answers 500, heartbeats too",
    "the plane comes and goes",
    "NATS restarts again and again",
    "the durable and the bucket of starts are deleted again and again",
    "200 commands of another pool",
)
"""The causes of the others are among these, or have their one line in tests/integration/test_outages.py (a plane that
is down, or answers 401). `make faults` has all storms."""


def lines_of(worker: WorkerProcess, since: int) -> Counter[str]:
    """By event, of what was written after so many characters."""
    found = [
        json.loads(line) for line in worker.text[since:].splitlines() if line.startswith("{") and line.endswith("}")
    ]
    return Counter(line["event"] for line in found if line["event"] not in ENDS)


def note(measured: Measured, what: str, found: Counter[str]) -> None:
    most = ", ".join(f"{event} {count}" for event, count in found.most_common(3))
    print(f"{what}: {most}")
    measured("L", what, found.total(), "", at_most=MOST)


async def lines_within(directory: Path, what: str) -> Counter[str]:
    """What a worker logs in this storm."""
    directory.mkdir()
    gate = Gate(directory)
    async with scene(directory) as home:
        worker = await home.start_process(
            WORKER_MAX_CONCURRENT=str(SLOTS), NOETL_WORKER_POOL_SEGMENTS="legacy", **BEATS
        )
        run = [RawCommand("shell", {"command": gate.command()})] * (SLOTS // 2)
        await home.plane.create_commands(run, one_execution=False)
        await until(lambda: gate.runs == SLOTS // 2, "half of the slots taken")
        since = len(worker.text)
        waiting = [RawCommand("noop") for _ in range(WAITING)]
        async with STORMS[what](home):
            await home.plane.create_commands(waiting, one_execution=False)
            await asyncio.sleep(SPAN_S / 3)
            if what != CANCELLATIONS:
                gate.open()  # their ends meet the storm as well
            await asyncio.sleep(SPAN_S * 2 / 3)  # the span of the storm
            found = lines_of(worker, since)
        worker.signal()
        worker.signal()
        await worker.exit_code()
    return found


async def test_storm_is_a_line_a_minute_for_each_cause(tmp_path: Path, measured: Measured) -> None:
    storms = STORMS if HOLDS_TIMES else IN_ALL_RUNS
    all_found = await side_by_side(*(lines_within(tmp_path / what.replace(" ", "-"), what) for what in storms))
    for what, found in zip(storms, all_found, strict=True):
        note(measured, what, found)


async def test_outcomes_that_a_worker_left_are_adopted_in_a_few_lines(tmp_path: Path, measured: Measured) -> None:
    gate = Gate(tmp_path)
    async with scene(tmp_path) as home:
        first = await home.start_process("first", WORKER_MAX_CONCURRENT="64", WORKER_ID="pod-0")
        issued = await home.running(gate, 64)
        async with home.plane.outage():
            gate.open()
            await until(lambda: home.outbox_rows() == 64, "all refused, and on disk")
            first.signal(signal.SIGKILL)
            await first.exit_code()
        second = await home.start_process("second", WORKER_ID="pod-0")
        await home.wait_ended(issued)
        found = lines_of(second, 0)
        note(measured, "64 outcomes of a killed worker are adopted", found)
        assert await second.stop() == 0
        adopted = sum(line.get("repeats", 1) for line in second.logged("outcome_adopted"))
    assert adopted == 64


async def test_plane_that_hangs_is_a_line_a_minute_for_each_cause(tmp_path: Path, measured: Measured) -> None:
    async with Proxy(free_port()) as proxy:
        behind = {"port": proxy.server_port, "public_url": f"http://127.0.0.1:{proxy.port}"}
        async with scene(tmp_path, plane=behind) as home:
            variables = {"NOETL_SERVER_URL": behind["public_url"], "NOETL_WORKER_HTTP_TIMEOUT_S": "1"}
            worker = await home.start_process(**variables, **BEATS)
            since = len(worker.text)
            proxy.hold()
            await home.plane.create_commands([RawCommand("noop") for _ in range(WAITING)], one_execution=False)
            await asyncio.sleep(SPAN_S)  # the span of the storm
            found = lines_of(worker, since)
            proxy.heal()
            note(measured, "the plane hangs", found)
            worker.signal()
            worker.signal()
            await worker.exit_code()
