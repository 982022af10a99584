"""F14 to F16, F18: the control plane is busy or broken, hangs, drops answers, is down, or refuses some commands."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from faults.conftest import Measured
from faults.proxy import Proxy, Way
from faults.scene import CALLS, Scene, beside_both_planes, scene, side_by_side
from holds import HOLDS_TIMES
from integration.house import TERMINAL
from integration.processes import Gate, WorkerProcess, until
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.errors import MaybeProcessed, NotSent
from noetl_worker.models import Dialect
from noetl_worker.pipeline.delivery.acknowledge import MAX_DELAY_S
from noetl_worker.remote.plane.gate import MAX_PAUSE_S
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.settings.settings import load_settings

SENDS = 4


# ── F15 ──


def plane_behind(proxy: Proxy) -> dict[str, Any]:
    """Settings of a plane that is reached by the proxy: it answers no other name but its own."""
    return {"port": proxy.server_port, "public_url": f"http://127.0.0.1:{proxy.port}"}


@asynccontextmanager
async def behind_proxy(directory: Path, dialect: Dialect) -> AsyncIterator[tuple[Scene, Proxy]]:
    """Workers reach the plane through the proxy only."""
    async with Proxy(free_port()) as proxy, scene(directory, dialect, plane=plane_behind(proxy)) as home:
        yield home, proxy


def answered(home: Scene, issued: list[Any]) -> bool:
    """The plane has stored a call event of each."""
    calls = home.ends(issued, *CALLS)
    return all(calls[str(one.command_id)] for one in issued)


@pytest.mark.parametrize("how", ["hangs", "resets"])
async def test_f15_answer_that_never_comes_leaves_one_row(
    dialect: Dialect, how: str, tmp_path: Path, measured: Measured
) -> None:
    gate = Gate(tmp_path)
    async with behind_proxy(tmp_path, dialect) as (home, proxy):
        worker = await home.start_process(
            NOETL_SERVER_URL=f"http://127.0.0.1:{proxy.port}",
            NOETL_WORKER_HTTP_TIMEOUT_S="1",
            LOG_LEVEL="debug",  # a line for each try
        )
        issued = await home.running(gate, 4)
        proxy.hold(Way.DOWN) if how == "hangs" else proxy.drop(Way.DOWN)
        gate.open()
        await until(lambda: answered(home, issued), "processed, and not answered")
        if how == "hangs":
            await until(lambda: len(worker.logged("events_not_accepted")) >= 4, "tried again")
        proxy.heal()
        await home.wait_ended(issued)
        await home.assert_books(issued, calls_at_most=1 if dialect is Dialect.PYTHON else None)
        calls, ends = home.ends(issued, *CALLS), home.ends(issued, *TERMINAL)
        await home.stop_all()
        refs = [str(one.command_id) for one in issued]
        sends = {ref: sends_of(worker, ref) for ref in refs}
    word = dialect.value
    # The Rust plane's batch has no key and makes its own ids: each send that it processed is a row
    # (protocol/events.md#rust-plane).
    most = 1 if dialect is Dialect.PYTHON else max(sends.values())
    over = sum(calls[ref] > sends[ref] for ref in refs)
    measured("F15", f"{word}: most call.done rows of a command, the plane {how}", max(calls.values()), "", at_most=most)
    measured("F15", f"{word}: commands with more rows than sends, the plane {how}", over, "", exactly=0)
    measured("F15", f"{word}: most terminal rows of a command, the plane {how}", max(ends.values()), "", exactly=1)


def sends_of(worker: WorkerProcess, ref: str) -> int:
    """How often a worker sent a command's first request: the tries that it logged, and the one that was accepted."""
    tries = [line["tries"] for line in worker.logged("events_not_accepted") if str(line["command_id"]) == ref]
    return max(tries, default=0) + 1


async def test_f15_sent_and_unanswered_is_distinguished_from_never_sent(measured: Measured) -> None:
    """What is called unsent is sent again: a child playbook would be started twice."""
    client = open_transport(load_settings({"NOETL_WORKER_HTTP_TIMEOUT_S": "2"}), max_connections=4)
    told: Counter[type[Exception]] = Counter()

    async def send(port: int) -> None:
        try:
            await client.send("POST", f"http://127.0.0.1:{port}/api/execute", {}, b"{}", 2)
        except (MaybeProcessed, NotSent) as error:
            told[type(error)] += 1

    async with Proxy(free_port()) as proxy, DevControlPlane(PlaneSettings(**plane_behind(proxy))) as plane:
        proxy.hold(Way.DOWN)
        await asyncio.gather(*(send(proxy.port) for _ in range(SENDS)))
        arrived, unsent = plane.requests.total(), told[NotSent]
        port = proxy.port
    await asyncio.gather(*(send(port) for _ in range(SENDS)))  # nobody listens there any more
    await client.close()
    assert arrived == SENDS
    measured("F15", f"sent requests reported as unsent, of {SENDS}", unsent, "", exactly=0)
    said_sent = told[MaybeProcessed] - arrived
    measured("F15", f"unsent requests reported as sent, of {SENDS}", said_sent, "", exactly=0)
    assert told[NotSent] == SENDS


# ── F16 ──


@beside_both_planes
async def test_f16_stop_while_the_plane_is_away_acks_nothing_and_loses_nothing(
    dialect: Dialect, tmp_path: Path, measured: Measured
) -> None:
    gate = Gate(tmp_path)
    variables = {
        "NOETL_WORKER_DRAIN_TIMEOUT_S": "1",
        "NOETL_WORKER_ACK_WAIT_S": "2",
        "NOETL_WORKER_CLAIM_LEASE_S": "1",
        "WORKER_ID": "pod-0",
    }
    leases = {"claim_lease_s": 1.0, "claims_cache_ttl_s": 0.3, "heartbeat_stale_s": 1.0, "retry_after_s": 1}
    async with scene(tmp_path, dialect, plane=leases) as home:
        first = await home.start_process("first", **variables)
        issued = await home.running(gate, 4)
        async with home.plane.outage():
            gate.open()
            await until(lambda: home.outbox_rows() == 4, "all refused, and on disk")
            first.signal()
            asked = time.monotonic()
            code = await first.exit_code()
            took_s = time.monotonic() - asked
            unsettled = await home.unsettled()
            assert first.logged("stopped")[0]["settled"].get("ack:reported") is None
        await home.start_process("second", **variables)
        await home.wait_ended(issued)
        await home.assert_books(issued)
        runs = gate.runs
        await home.stop_all()
    assert code in (0, 4)
    measured("F16", f"{dialect.value}: acked without an accepted set", 4 - unsettled, "", exactly=0)
    measured("F16", f"{dialect.value}: ended after", took_s, "s", at_most=1 + 5)
    measured("F16", f"{dialect.value}: runs of 4 finished commands", runs, "", exactly=4)


@beside_both_planes
async def test_f16_worker_killed_while_the_plane_is_away_leaves_its_outcomes_to_the_next(
    dialect: Dialect, tmp_path: Path, measured: Measured
) -> None:
    gate = Gate(tmp_path)
    variables = {"NOETL_WORKER_ACK_WAIT_S": "2", "WORKER_ID": "pod-0"}
    async with scene(tmp_path, dialect) as home:
        first = await home.start_process("first", **variables)
        issued = await home.running(gate, 4)
        async with home.plane.outage():
            gate.open()
            await until(lambda: home.outbox_rows() == 4, "all refused, and on disk")
            first.signal(signal.SIGKILL)
            await first.exit_code()
        await home.start_process("second", **variables)
        back = time.monotonic()
        await home.wait_ended(issued)
        told_s = time.monotonic() - back
        await home.close_books(issued)
    measured("F16", f"{dialect.value}: killed: runs of 4 finished commands", gate.runs, "", exactly=4)
    measured("F16", f"{dialect.value}: killed: reported by the next worker after", told_s, "s", at_most=5)


# ── F14 ──


def busy(home: Scene, status: int, times: list[float]) -> Any:
    """Every claim and event request is answered with this status, and Retry-After: 1 where a plane sends one."""

    def fault(request: Request) -> Response | None:
        if "/commands/" in request.url.path or "/events" in request.url.path:
            times.append(time.monotonic())
            headers = {"Retry-After": "1"} if status in (429, 503) else {}
            return JSONResponse({"detail": "busy"}, status_code=status, headers=headers)
        return None

    return fault


MOST_IN_ALL: Final = 60
"""Requests of a span: those before it is known that the plane is busy, and the few after that."""


async def busy_plane(
    directory: Path,
    measured: Measured,
    dialect: Dialect,
    status: int,
    *,
    span_s: float,
    count: int,
    told_within_s: float = 30,
) -> None:
    """`count` commands run when the plane becomes busy, as many wait; for `span_s` it answers `status`."""
    gate = Gate(directory)
    async with scene(directory, dialect) as home:
        await home.start_process(WORKER_MAX_CONCURRENT="16", WORKER_ID="pod-0")
        waits = RawCommand("shell", {"command": gate.command()})
        issued = await home.plane.create_commands([waits] * count, one_execution=False)
        await until(lambda: gate.runs == min(16, count), "all slots taken")
        times: list[float] = []
        home.plane.fault = busy(home, status, times)
        gate.open()
        issued += await home.plane.create_commands([RawCommand("noop") for _ in range(count)], one_execution=False)
        began = time.monotonic()
        await asyncio.sleep(span_s)  # the span of the fault
        home.plane.fault = None
        back = time.monotonic()
        await home.wait_ended(issued)
        told_s = time.monotonic() - back
        await home.close_books(issued)
    # The first seconds find out that it is busy; what is promised is the rate while that is known.
    noticed_s = max(3.0, span_s / 4)
    steady = [one for one in times if one - began > noticed_s]
    rate = len(steady) / (span_s - noticed_s)
    seconds = Counter(int(one - began) for one in steady)
    peak = max(seconds.values(), default=0) / max(rate, 1.0)
    word = f"{dialect.value}, {status}, {span_s:g} s"
    measured("F14", f"{word}: requests of a worker in {span_s:g} s", len(times), "", at_most=MOST_IN_ALL)
    measured("F14", f"{word}: requests a second", rate, "/s", at_most=2)
    measured("F14", f"{word}: largest second over the mean", peak, "x", at_most=2)
    measured("F14", f"{word}: all reported after its return", told_s, "s", at_most=told_within_s)


async def test_f14_busy_plane_is_asked_rarely_and_gets_everything(tmp_path: Path, measured: Measured) -> None:
    def one(status: int) -> Coroutine[Any, Any, None]:
        directory = tmp_path / str(status)
        directory.mkdir()
        return busy_plane(directory, measured, Dialect.PYTHON, status, span_s=9 if HOLDS_TIMES else 4, count=32)

    await side_by_side(*(one(status) for status in ((503, 429, 500) if HOLDS_TIMES else (503, 500))))


@pytest.mark.soak
async def test_f14_plane_that_is_busy_for_a_minute(dialect: Dialect, tmp_path: Path, measured: Measured) -> None:
    # The last to find the gate closed draws the longest delay then; it opens a pause after the plane's return at most.
    longest_s = MAX_PAUSE_S + MAX_DELAY_S + 1
    await busy_plane(tmp_path, measured, dialect, 503, span_s=60, count=64, told_within_s=longest_s)


# ── F18 ──

ROOM = {"NOETL_WORKER_MAX_ACK_PENDING": "20000"}
"""A message that waits for its delay counts as unacknowledged: with the default of 1,000, so many failing commands
and nobody gets any other (max_ack_pending_reached says so)."""


Storm: TypeAlias = tuple[list[float], list[int], float]
FAILING = 1_000 if HOLDS_TIMES else 100
FIRST_SERVED = 3
"""So many of the others may wait for the failing ones' first tries."""
SETTLED_PER_S, WITHIN_S = 5.5, 30
"""A slow core takes longer to ask for each command the first four times, whose waits are the usual ones."""


async def nak_storm(directory: Path, status: int, span_s: float) -> Storm:
    """FAILING commands whose claim answers `status` for `span_s`, and meanwhile one that does not every 0.2 s.

    Returns:
        (seconds that each other command took, attempts in each of the first seconds, attempts a second in the last two:
        where the claims answer 500 and times are held, it goes on until these are few)
    """
    async with scene(directory) as home:
        await home.start_process(**ROOM)
        failing = await home.plane.create_commands([RawCommand("noop") for _ in range(FAILING)], publish=False)
        marked = {str(one.event_id) for one in failing}
        times: list[float] = []

        def fault(request: Request) -> Response | None:
            if request.url.path.endswith("/claim") and request.url.path.split("/")[-2] in marked:
                times.append(time.monotonic())
                return JSONResponse({"detail": "cannot"}, status_code=status)
            return None

        home.plane.fault = fault
        for one in failing:
            home.plane.dispatcher.requeue(home.plane.command(one.event_id), as_text=False)
        await home.plane.dispatcher.flush()
        began, served, others = time.monotonic(), [], []

        def lately_per_s() -> float:
            return sum(one > time.monotonic() - 2 for one in times) / 2

        def goes_on() -> bool:
            passed_s = time.monotonic() - began
            if status == 500 and len(served) < FIRST_SERVED + 1:
                return True
            settling = HOLDS_TIMES and status == 500 and lately_per_s() > SETTLED_PER_S
            return passed_s < span_s or (settling and passed_s < WITHIN_S)

        while goes_on():
            if status == 500:
                others += await home.plane.create_commands([RawCommand("noop")])
                asked = time.monotonic()
                await home.wait_terminal(others[-1].event_id)
                served.append(time.monotonic() - asked)
            await asyncio.sleep(0.2)  # the pace of the others
        last_per_s, counts = lately_per_s(), Counter(int(one - began) for one in times)
        home.plane.fault = None
        if status == 500:  # five tries a second: the last one has its turn after minutes, but for a new durable
            await home.forget_delays()
        await home.wait_ended([*failing, *others])
        await home.close_books([*failing, *others])
        return served, [counts[second] for second in range(int(span_s))], last_per_s


async def test_f18_commands_that_always_fail_hold_up_nobody_and_a_busy_plane_is_not_stormed(
    tmp_path: Path, measured: Measured
) -> None:
    def one(status: int) -> Coroutine[Any, Any, Storm]:
        directory = tmp_path / str(status)
        directory.mkdir()
        return nak_storm(directory, status, 8 if HOLDS_TIMES else 4)

    (served, attempts, last_per_s), (_, busy_attempts, _) = await side_by_side(one(500), one(503))
    beside = f"others beside {FAILING:,} failing ones: longest time to their end"
    measured("F18", beside, max(served[FIRST_SERVED:]), "s", at_most=1)
    measured("F18", "attempts a second at first, each command failing by itself (500)", max(attempts), "/s")
    measured("F18", "attempts a second from then on", last_per_s, "/s", at_most=SETTLED_PER_S)
    known = busy_attempts[2:]
    measured("F18", "attempts a second, the plane busy (503)", sum(known) / len(known), "/s", at_most=5)
