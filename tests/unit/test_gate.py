"""What a control plane in trouble gets: less at once, one at a time when it is down, everything 30 s later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

import virtual_time
from noetl_worker.errors import MaybeProcessed, NotSent, ServerRefused, TransportError
from noetl_worker.models import Dialect
from noetl_worker.process.threads import OWNER
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.plane.gate import DOWN_AFTER, FAILURES_WITHIN_S, Gate
from unit.planes import URL, ScriptedTransport, answer, settings

anyio_backend = virtual_time.anyio_backend


async def refuse(gate: Gate, times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0.01)
        gate.refused(time.monotonic())


async def test_one_refusal_halves_the_limit_and_a_volley_of_them_does_so_once() -> None:
    gate = Gate(16)
    sent_at = time.monotonic()
    await asyncio.sleep(0.1)
    for _ in range(10):
        gate.refused(sent_at)
    assert (gate.limit(), gate.is_down) == (8, False)


async def test_limit_is_never_below_one_and_full_30_s_after_the_last_refusal() -> None:
    gate = Gate(16)
    await refuse(gate, 40)
    assert gate.limit() == 1
    grown = []
    for _ in range(6):
        await asyncio.sleep(5.0)
        grown.append(gate.limit())
    assert grown == sorted(grown)
    assert grown[-1] == 16


async def test_plane_that_is_down_gets_one_request_at_a_time_and_at_most_two_a_second() -> None:
    gate, sent = Gate(16), 0
    await refuse(gate, DOWN_AFTER)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if await gate.enter(patience_s=0):
            assert not await gate.enter(patience_s=0), "a second one beside it"
            sent += 1
            gate.refused(time.monotonic())
            gate.leave()
        await asyncio.sleep(0.01)
    assert 12 <= sent <= 30, "0.5 s growing to 5 s"


async def test_first_answer_opens_the_gate_again() -> None:
    gate = Gate(16)
    await refuse(gate, DOWN_AFTER)
    await asyncio.sleep(5)
    assert await gate.enter(0)
    gate.leave()
    gate.answered(0.01)
    entered = [await gate.enter(0) for _ in range(6)]
    assert entered.count(True) >= 4, "16 halved three times, and five seconds of growth"
    assert entered.count(True) < 16


async def test_retry_after_closes_the_gate_for_that_long() -> None:
    gate = Gate(16)
    gate.refused(time.monotonic(), 7.0)
    await asyncio.sleep(6.9)
    before = await gate.enter(0)
    await asyncio.sleep(0.2)
    assert (before, await gate.enter(0)) == (False, True)


async def test_answers_that_grow_slow_take_a_quarter_off() -> None:
    gate = Gate(16)
    for _ in range(50):
        gate.answered(0.01)
    await asyncio.sleep(100)
    gate.answered(3.0)
    assert gate.limit() == 12


async def test_waiting_requests_go_on_one_after_the_other_when_places_are_left() -> None:
    gate, order = Gate(1), []

    async def request(number: int) -> None:
        assert await gate.enter()
        order.append(number)
        await asyncio.sleep(0)
        gate.leave()

    await asyncio.gather(*(request(number) for number in range(20)))
    assert order == list(range(20))


async def test_cancelled_waiter_passes_its_turn_on() -> None:
    gate = Gate(1)
    assert await gate.enter()
    waiting = [asyncio.ensure_future(gate.enter()) for _ in range(2)]
    await asyncio.sleep(0)
    gate.leave()
    waiting[0].cancel()
    assert await waiting[1]


async def fails(gate: Gate, *executions: int) -> None:
    for execution in executions:
        await asyncio.sleep(0.01)
        gate.failed(time.monotonic(), execution)


async def test_server_errors_of_one_execution_leave_the_gate_open() -> None:
    """They may be that sender's mistake."""
    gate = Gate(16)
    await fails(gate, *[1] * 50, *[2] * 50)
    assert (gate.is_down, gate.limit()) == (False, 16)


async def test_server_errors_of_three_executions_close_the_gate_until_one_succeeds() -> None:
    gate = Gate(16)
    await fails(gate, 1, 2, 3)
    assert (gate.is_down, gate.has_room()) == (True, False)
    await asyncio.sleep(FAILURES_WITHIN_S)
    assert await gate.enter(0)
    gate.leave()
    await fails(gate, 1)
    assert (gate.is_down, gate.has_room()) == (True, False), "still, whoever asks"
    gate.answered(0.01)
    assert (gate.is_down, gate.failing) == (False, {})


async def test_success_between_server_errors_keeps_the_gate_open() -> None:
    gate = Gate(16)
    for execution in range(30):
        await fails(gate, execution, execution + 1)
        gate.answered(0.01)
    assert not gate.is_down


async def test_server_errors_of_three_executions_over_a_longer_time_leave_the_gate_open() -> None:
    gate = Gate(16)
    for execution in range(30):
        await fails(gate, execution)
        await asyncio.sleep(FAILURES_WITHIN_S / 2)
    assert not gate.is_down


def plane_with(
    script: Callable[[str, str, Any], Any], dialect: Dialect = Dialect.PYTHON
) -> tuple[Plane, ScriptedTransport]:
    transport = ScriptedTransport(script)
    client = ControlPlaneClient(transport, settings(WORKER_MAX_CONCURRENT="4"))
    return Plane(client, URL, dialect), transport


@pytest.mark.parametrize("trouble", [answer(503, {}), answer(429, {}), NotSent("refused")], ids=["503", "429", "down"])
async def test_claim_goes_back_to_the_queue_when_its_plane_is_down(trouble: Any) -> None:
    at, transport = plane_with(lambda *_: trouble)

    async def was_sent() -> bool:
        try:
            await at.claim(7, "w")
        except NotSent as error:
            return "refuses more requests or is down" not in str(error)
        return True

    sent = [await was_sent() for _ in range(3 * DOWN_AFTER)]
    assert sent[:DOWN_AFTER] == [True] * DOWN_AFTER
    assert False in sent, "its pauses grow over the time that a claim waits"
    assert len(transport.sent) == sent.count(True)
    assert at.client.servers.capacity_fraction() < 0.2


DUPLICATE = answer(500, {"error": "duplicate key value violates unique constraint", "status": 500})


async def asked_for(at: Plane, executions: int, *, claims: bool = True) -> None:
    """Each execution asks in a task of its own, as commands do."""

    async def one(execution: int) -> None:
        OWNER.set(execution)
        await (at.claim(execution, "w") if claims else at.post_events("/api/events", b"{}", {}))

    for execution in range(executions):
        await asyncio.ensure_future(one(execution))


async def test_server_errors_of_claims_close_the_gate_and_heartbeats_change_nothing() -> None:
    said = answer(500, {"error": "no"})
    at, transport = plane_with(lambda *_: said)
    for _ in range(20):
        with pytest.raises(ServerRefused):
            await at.heartbeat("w")
    assert not at.gate.is_down
    await asked_for(at, 3)
    assert at.gate.is_down
    said = answer(200, {"status": "ok"})
    await asyncio.sleep(6)
    await at.heartbeat("w")
    assert at.gate.is_down
    await asyncio.sleep(6)
    await asked_for(at, 1)
    assert (at.gate.is_down, len(transport.sent)) == (False, 25)


@pytest.mark.parametrize(("dialect", "is_down"), [(Dialect.RUST, False), (Dialect.PYTHON, True)])
async def test_server_error_that_says_duplicate_is_a_success_of_the_plane_whose_rule_it_is(
    dialect: Dialect, is_down: bool
) -> None:
    at, _ = plane_with(lambda *_: DUPLICATE, dialect)
    await asked_for(at, 3, claims=False)
    assert at.gate.is_down is is_down


def test_plane_in_trouble_does_not_hold_up_the_others() -> None:
    at, _ = plane_with(lambda *_: answer(503, {}))
    for _ in range(5):
        at.gate.refused(time.monotonic())
    other = at.client.servers.server_at("http://other.test").gate
    assert at.client.servers.capacity_fraction() == 1.0
    other.refused(time.monotonic())
    assert at.client.servers.capacity_fraction() < 1.0


async def test_claim_waits_at_a_plane_that_is_down_while_no_other_gives_commands() -> None:
    transport = ScriptedTransport(lambda *_: MaybeProcessed("no answer"))
    variables = {"NOETL_WORKER_TRUSTED_SERVERS": "http://second.test", "NOETL_CONTROL_PLANE": "python"}
    client = ControlPlaneClient(transport, settings(**variables))
    down = await client.plane("http://second.test")

    async def waited_s() -> float:
        started = asyncio.get_running_loop().time()
        with pytest.raises(TransportError):
            await down.claim(7, "worker")
        return asyncio.get_running_loop().time() - started

    for _ in range(DOWN_AFTER):
        with pytest.raises(MaybeProcessed):
            await down.claim(7, "worker")
    assert await waited_s() > 0
    await client.plane(URL)
    assert await waited_s() == 0
