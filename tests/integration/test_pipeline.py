"""A real notification from JetStream bytes to an acknowledged outcome, against the development control plane."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

import loops
from integration.house import CLAIM, house, noops
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect
from noetl_worker.pipeline.delivery import acknowledge

BIG = "result = {'rows': [{'i': i, 'text': 'x' * 100} for i in range(2000)], 'count': 2000}"


def case(*conditions: Any, then: Any) -> dict[str, Any]:
    return {"when": list(conditions), "then": then}


def mixed(number: int) -> RawCommand:
    """One of ten kinds of command by turns: successes, failures, every case action, oversized, unknown kind."""

    def noop(*cases: Any) -> RawCommand:
        return RawCommand("noop", {"result": {"n": number}}, cases=list(cases))

    n_is = {"left": "result.n", "op": "eq", "right": number}
    commands = [
        RawCommand("shell", {"command": f"echo {number}"}),
        RawCommand("shell", {"command": "echo out; echo err >&2; exit 3"}),
        RawCommand("python", {"code": BIG if number % 50 == 2 else "result = {'n': n + 1}"}, input={"n": number}),
        noop(case(n_is, then={"exit": {"status": "done", "data": {"k": 1}}})),
        noop(case(n_is, then={"set_var": {"name": f"v{number}", "value": number}})),
        noop(case(n_is, then={"fail": {"message": "not wanted"}})),
        noop(case(then={"goto": {"step": "s2"}}), case(then="continue")),
        RawCommand("teleport", {}),
        noop(case({"left": "result.n", "op": "matches", "right": "("}, then="continue")),
        noop(),
    ]
    return commands[number % 10]


FAILS = {Dialect.PYTHON: {1, 5, 7, 8}, Dialect.RUST: {5, 7, 8}}
"""Turns that end in command.failed: on the Rust plane a tool's own failure completes
(protocol/events.md#rust-plane)."""


MIXED, NOOPS = 100, 60


async def test_mixed_commands_end_in_exactly_one_terminal_set_each(dialect: Dialect) -> None:
    async with house(dialect, WORKER_MAX_CONCURRENT="32") as home:
        issued = await home.ran(*(mixed(n) for n in range(MIXED)))
        for number, one in enumerate(issued):
            await asyncio.sleep(0)  # each looks through thousands of events
            events = home.terminal_events(one.event_id)
            fails = number % 10 in FAILS[dialect]
            assert events == ["command.failed" if fails else "command.completed"], (number, events)
        assert await home.dead_letters() == []
        stored = await home.stored_variables(issued[0].execution_id)
        assert len(stored["variables"] if isinstance(stored, dict) else stored) == MIXED // 10
        worker = home.workers[0]
        assert worker.deliveries.settled == {"ack:reported": MIXED}


@pytest.mark.parametrize("anyio_backend", loops.BOTH)
@pytest.mark.parametrize(("dialect", "most"), [(Dialect.PYTHON, 2), (Dialect.RUST, 3)])
async def test_fast_command_costs_at_most_three_requests(dialect: Dialect, most: int) -> None:
    # A hold that no noop outlives: this counts requests, not the speed of the machine.
    async with house(dialect, NOETL_WORKER_STARTED_HOLD_MS="5000") as home:
        before = Counter(home.plane.requests)
        issued = await home.plane.create_commands(noops(NOOPS))
        await home.wait_terminal(*(one.event_id for one in issued))
        counted = home.plane.requests - before
        spent = sum(count for route, count in counted.items() if "/commands/" in route or "/events" in route)
        assert spent == NOOPS * most
        assert counted[CLAIM] == NOOPS


async def test_long_command_is_kept_ours_over_many_ack_waits() -> None:
    async with house(NOETL_WORKER_ACK_WAIT_S="1") as home:
        await home.ran(RawCommand("shell", {"command": "sleep 4"}))
        assert home.plane.requests[CLAIM] == 1


BAD_NOTIFICATIONS = [
    b"",
    b"{broken",
    b"[]",
    b"null",
    b'{"execution_id": 1}',
    b'{"execution_id":null,"event_id":1,"command_id":1,"step":"s"}',
    b'{"execution_id":1.5,"event_id":1,"command_id":1,"step":"s"}',
    b"\xff\xfe",
    b"[" * 5000,
    b'{"a":"' + b"x" * 900_000,
    json.dumps({"execution_id": 1, "event_id": 2**70, "command_id": 1, "step": "s"}).encode(),
]


@pytest.fixture
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is returned comes again after half a second at most, not after up to 30 s."""
    monkeypatch.setattr(acknowledge, "MAX_DELAY_S", 0.5)


@pytest.mark.usefixtures("short_delays")
async def test_command_of_another_pool_is_never_claimed_nor_told_as_failed_and_ends_as_a_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acknowledge, "OLD_AFTER_S", 0.0)  # it is old enough, after its sixth delivery
    async with house(Dialect.RUST, NATS_FILTER_SUBJECT="noetl.commands.gpu.>") as home:
        [foreign] = await home.plane.create_commands([RawCommand("noop")])  # to noetl.commands.shared.<execution>
        body = home.notification(foreign, execution_pool="shared")
        await home.publish(json.dumps(body).encode(), "noetl.commands.gpu.7")
        await home.wait_settled()
        assert home.plane.requests[CLAIM] == 0
        assert home.terminal_events(foreign.event_id) == []
        [dead_letter] = await home.dead_letters()
        assert (dead_letter["kind"], dead_letter["num_delivered"]) == ("pool_not_served", 6)
        cause = "the command is for pool 'shared', and this worker serves: gpu"
        assert dead_letter["reason"] == f"another pool's command: {cause}"
        assert (dead_letter["step"], json.loads(dead_letter["notification"])) == ("start", body)


@pytest.mark.usefixtures("short_delays")
@pytest.mark.parametrize("as_text", [False, True], ids=["same id", "id as text"])
async def test_command_published_twice_runs_once(as_text: bool) -> None:
    async with house() as home:
        [one] = await home.plane.create_commands([RawCommand("shell", {"command": "sleep 0.5"})])
        await home.plane.publish_again(one.event_id, as_text=as_text)
        await home.wait_terminal(one.event_id)
        await home.wait_settled()
        assert len(home.plane.events_of_command(one.event_id, "call.done")) == 1
        assert home.plane.requests[CLAIM] == 1


async def test_finished_command_that_comes_again_to_a_new_worker_is_acked_without_running() -> None:
    async with house(worker=False) as home:
        first = await home.start_worker()
        [one] = await home.ran(RawCommand("noop"))
        await home.stop_worker(first)
        second = await home.start_worker()
        await home.plane.publish_again(one.event_id)
        await home.wait_settled()
        assert second.deliveries.settled == {"ack:already_finished": 1}
        assert len(home.plane.events_of_command(one.event_id, "call.done")) == 1


async def test_interrupted_command_is_told_as_failed_where_nobody_could_take_it_up_again() -> None:
    async with house(Dialect.RUST, worker=False) as home:
        worker = await home.start_worker(NOETL_WORKER_DRAIN_TIMEOUT_S="0.3")
        [one] = await home.plane.create_commands([RawCommand("shell", {"command": "sleep 1000"})])
        await home.plane.wait_until(lambda: bool(home.plane.events_of_command(one.event_id, "command.started")))
        assert await home.stop_worker(worker) == 4
        [failed] = home.plane.events_of_command(one.event_id, "command.failed")
        assert "interrupted" in str(failed.result) + str(failed.context) + str(failed.error)
