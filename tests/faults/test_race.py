"""F27 and double claims: two workers for the same command."""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, Final

import pytest
from starlette.requests import Request
from starlette.responses import Response as PlaneResponse

from faults.conftest import Measured
from faults.scene import QUICK, Scene, scene
from holds import HOLDS_TIMES
from integration.house import TERMINAL
from integration.processes import until
from nats_client import connected
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.authoring.dev.server.answers import HttpAnswer
from noetl_worker.models import Dialect
from patience import PATIENCE_S


async def two_workers(home: Scene, **variables: str) -> None:
    """Each with a durable of its own, so that each is sent every command."""
    home.durables = ("durable_one", "durable_two")
    for name in ("one", "two"):
        await home.start_process(name, NATS_CONSUMER=f"durable_{name}", WORKER_ID=name, **variables)


# ── F27 ──


async def race(directory: Path, dialect: Dialect, measured: Measured, count: int) -> None:
    async with scene(directory, dialect, plane={"retry_after_s": 1}) as home:
        await two_workers(home, WORKER_MAX_CONCURRENT="32", NOETL_WORKER_MAX_ACK_PENDING="20000", **QUICK)
        issued = await home.plane.create_commands([RawCommand("noop") for _ in range(count)])
        await home.wait_ended(issued)
        await home.assert_books(issued)
        refused = sum(home.asked[one.event_id] - 1 for one in issued)
        await home.stop_all()
        most = max(home.grants.values())
        assert len(home.grants) == count
    measured("F27", f"{dialect.value}: claims granted of a command, of {count}", most, "", exactly=1)
    measured("F27", f"{dialect.value}: claims refused", refused, "")


async def test_f27_each_command_of_two_racing_workers_runs_once(
    dialect: Dialect, tmp_path: Path, measured: Measured
) -> None:
    await race(tmp_path, dialect, measured, 500 if HOLDS_TIMES else 60)


@pytest.mark.soak
async def test_f27_each_of_10_000_commands_of_two_racing_workers_runs_once(
    dialect: Dialect, tmp_path: Path, measured: Measured
) -> None:
    await race(tmp_path, dialect, measured, 10_000)


HELD = {
    Dialect.PYTHON: b'{"detail":{"code":"active_claim","message":"Command already claimed by w","worker_id":"w"}}',
    Dialect.RUST: b'{"error":"Command already claimed by w","status":409}',
}


PAIRS, ROUNDS = 300, 5
"""The best of so many rounds: a machine that does something else meanwhile spoils one, a slow path spoils all."""


async def returned_and_done_ms(home: Scene, dialect: Dialect) -> tuple[list[IssuedCommand], list[float], list[float]]:
    """(commands, ms to a refused claim's NAK, ms to a granted command's ACK) from the claim's arrival, in turn."""
    asked_at, took_ms, refuse = 0.0, 0.0, False
    answered = asyncio.Event()

    def held(request: Request) -> PlaneResponse | None:
        nonlocal asked_at
        if not request.url.path.endswith("/claim"):
            return None
        asked_at = time.monotonic()
        if not refuse:
            return None
        return PlaneResponse(HELD[dialect], 409, {"Retry-After": "2", "Content-Type": "application/json"})

    async def note(message: Any) -> None:
        nonlocal took_ms
        took_ms = (time.monotonic() - asked_at) * 1000
        assert message.data.startswith(b"-NAK" if refuse else b"+ACK"), message.data
        answered.set()

    home.plane.fault = held
    issued = await home.plane.create_commands([RawCommand("noop") for _ in range(2 * PAIRS)], publish=False)
    found: dict[bool, list[float]] = {True: [], False: []}
    client = await connected(home.nats.url)
    try:
        heard = await client.subscribe("$JS.ACK.*.*.1.>", cb=note)  # first deliveries, not those that come back
        await client.flush()
        for number, one in enumerate(issued):
            refuse = number % 2 == 0
            answered.clear()
            home.plane.dispatcher.requeue(home.plane.command(one.event_id), as_text=False)
            await home.plane.dispatcher.flush()
            await asyncio.wait_for(answered.wait(), PATIENCE_S)
            found[refuse].append(took_ms)
        await heard.unsubscribe()
    finally:
        await client.close()
        home.plane.fault = None
    return issued, found[True], found[False]


@pytest.mark.skipif(not HOLDS_TIMES, reason="a time: make faults")
async def test_f27_refused_claim_is_returned_sooner_than_a_granted_one_is_done_with(
    dialect: Dialect, tmp_path: Path, measured: Measured
) -> None:
    async with scene(tmp_path, dialect) as home:
        await home.start_process(NOETL_WORKER_MAX_ACK_PENDING="20000", **QUICK)
        p99_ms, ratios, everything = [], [], []
        for _ in range(ROUNDS):
            issued, back_ms, done_ms = await returned_and_done_ms(home, dialect)
            everything += issued
            p99_ms.append(sorted(back_ms)[int(len(back_ms) * 0.99)])
            ratios.append(median(back_ms) / median(done_ms))
            if p99_ms[-1] <= 1.5:
                break
        await home.wait_ended(everything)
        await home.close_books(everything)
    word = dialect.value
    measured("F27", f"{word}: a refused claim to its NAK, a granted one to its ACK", min(ratios), "x", at_most=1)
    measured("F27", f"{word}: from a 409 to its NAK, p99 of {PAIRS}", min(p99_ms), "ms", at_most=2)


# ── both get 200 ──

TWO_STEPS = """
metadata: {name: two, path: t/two}
workflow:
  - step: start
    tool: {kind: shell, command: "flock -s GATE true; echo 'by={{ worker_id }}.'"}
    next: {arcs: [{step: second}]}
  - step: second
    tool: {kind: noop}
"""


def give_to_everybody(home: Scene) -> None:
    """A claim of a command that is not over gets the command, as under contention on the real plane
    (protocol/claim.md#races)."""
    claims: Any = home.plane.claims
    real, given = claims.claim, dict[int, HttpAnswer]()

    def claim(event_id: int, worker_id: str) -> HttpAnswer:
        said: HttpAnswer = real(event_id, worker_id)
        if b"active_claim" in said.body and event_id in given:
            home.grants[home.plane.command(event_id).command_ref] += 1
            return given[event_id]
        if said.status == 200:
            given[event_id] = said
        return said

    claims.claim = claim


async def books_of_the_race(home: Scene, executions: list[int]) -> int:
    """Everything is acked, by both; how many commands have not one terminal event for each claim that was granted.

    Two claims are two terminal events here: the real plane stores both, and acts on the first
    (protocol/events.md#python-plane).
    """
    await home.wait_settled()
    ends = Counter(event.command_ref for one in executions for event in home.plane.events(one, *TERMINAL))
    refs = [row.command_ref for one in executions for row in home.plane.commands(one)]
    return sum(not 1 <= ends[ref] <= home.grants[ref] for ref in refs)


BOTH: Final = 200 if HOLDS_TIMES else 20
"""Commands that both workers are given."""


async def test_command_that_two_workers_are_given_counts_by_its_first_result(
    tmp_path: Path, measured: Measured
) -> None:
    async with scene(tmp_path, plane={"claims_cache_ttl_s": -1.0}) as home:
        give_to_everybody(home)
        await two_workers(home, WORKER_MAX_CONCURRENT="200")
        with (tmp_path / "gate").open("w") as gate:  # locked: no command ends before both workers have all of them
            fcntl.flock(gate, fcntl.LOCK_EX)
            home.plane.register_playbook(TWO_STEPS.replace("GATE", gate.name))
            executions = [await home.plane.execute("t/two") for _ in range(BOTH)]
            await until(lambda: home.grants.total() == 2 * BOTH, "both have every command")
        await home.plane.wait_all_ended()
        over = await books_of_the_race(home, executions)  # an execution ends with the first result: the second is later
        twice, again, lost = 0, 0, Counter[str]()
        for execution_id in executions:
            assert home.plane.execution(execution_id).status == "COMPLETED"
            commands = Counter(row.node for row in home.plane.commands(execution_id))
            assert set(commands) == {"start", "second"}
            again += commands.total() - 2  # a result that moves the execution once more issues a step once more
            done = [event for event in home.plane.events(execution_id, "call.done") if event.node == "start"]
            twice += len(done) == 2
            lost.update(str(event.worker_id).partition("-")[0] for event in done[1:])
            taken = str(home.plane.execution(execution_id).variables["start"])
            assert f"by={done[0].worker_id}." in taken, "not the first result"
        await home.stop_all()
    measured("D", f"commands of {BOTH} that both workers ran", twice, "", exactly=BOTH)
    measured("D", "second results that moved an execution", again, "", exactly=0)
    measured("D", "commands without an outcome, or with more than one for each claim", over, "", exactly=0)
    measured("D", "lost by the first worker", lost["one"], "")
    measured("D", "lost by the second worker", lost["two"], "")
