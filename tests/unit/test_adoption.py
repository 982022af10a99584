"""Outcomes of the dead: told by the next worker as long as they are still theirs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import virtual_time
from noetl_worker.models import Report, Upload
from noetl_worker.pipeline.command import handover
from noetl_worker.pipeline.delivery.in_flight import InFlight, Seen
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.worker.recovery.adoption import AT_ONCE, Adoption
from unit.outboxes import box, event_set, left, left_behind, taken
from unit.planes import ScriptedTransport, answer, batch_status, settings

anyio_backend = virtual_time.anyio_backend


def adopting(ours: Emitter, script: Any, in_flight: InFlight, **variables: str) -> tuple[ScriptedTransport, Adoption]:
    """A new worker that has looked at what is left, and tells it to the plane of `script`."""
    transport = ScriptedTransport(script)
    client = ControlPlaneClient(transport, settings(NOETL_CONTROL_PLANE="python", **variables))
    adoption = Adoption(client, ours, in_flight)
    adoption.adopt()
    return transport, adoption


async def adopt(ours: Emitter, script: Any, in_flight: InFlight | None = None) -> tuple[ScriptedTransport, InFlight]:
    """All of it is told."""
    flight = InFlight() if in_flight is None else in_flight
    transport, adoption = adopting(ours, script, flight)
    while not ours.outbox.is_empty:
        await asyncio.sleep(0.001)
    await adoption.stop()
    ours.outbox.close()
    return transport, flight


def many_left_behind(directory: Path, count: int) -> None:
    """In one file."""
    dead = box(directory, max_rows=count)
    for number in range(count):
        dead.write(event_set(number))
    dead.close()


OVER = answer(409, {"detail": {"code": "already_terminal"}})
ACCEPTED = answer(202, {})
CLAIMED_AGAIN = answer(200, {"execution_id": 1, "node_name": "start", "action": "noop"})


def claim_then(claim: Any, told: list[str], then: Any = ACCEPTED) -> Any:
    """What a claim is answered, or each in turn."""

    def script(method: str, path: str, body: Any) -> Any:
        if "/events?" in path:
            return answer(200, {"events": []})  # none of ours is stored
        told.append(path)
        if path.endswith("/claim"):
            assert body == {"worker_id": "dead-worker"}, "asked in the name of the dead one"
            return claim.pop(0) if isinstance(claim, list) else claim
        return then

    return script


@pytest.mark.parametrize(
    "claim",
    [
        answer(409, {"detail": {"code": "active_claim", "worker_status": "running"}}),
        CLAIMED_AGAIN,
    ],
    ids=["the dead one had started", "claimed again in its name"],
)
async def test_adopted_outcome_that_is_still_its_own_is_told_under_its_key(
    ours: Emitter, tmp_path: Path, claim: Any
) -> None:
    left_behind(tmp_path)
    told: list[str] = []
    transport, flight = await adopt(ours, claim_then(claim, told))
    assert told == ["/api/commands/7/claim", "/api/events/batch"]
    assert transport.sent[-1][3]["idempotency-key"] == "key-7"
    assert flight.classify("c-7", 3) is Seen.FINISHED, "a delivery of it runs nothing any more"


@pytest.mark.parametrize(
    "claim",
    [answer(409, {"detail": {"code": "active_claim", "worker_id": "another"}}), OVER],
    ids=["another holds it", "it is over"],
)
async def test_adopted_outcome_that_is_no_longer_its_own_is_dropped(ours: Emitter, tmp_path: Path, claim: Any) -> None:
    left_behind(tmp_path)
    told: list[str] = []
    _, flight = await adopt(ours, claim_then(claim, told))
    assert told == ["/api/commands/7/claim"]
    assert flight.classify("c-7", 3) is Seen.NEW
    assert list(tmp_path.glob("*.sqlite3")) == []


async def test_adopted_rescue_is_sent_though_the_claim_says_that_the_command_is_over(
    ours: Emitter, tmp_path: Path
) -> None:
    left_behind(tmp_path, event_set(rescues="9"))

    def script(method: str, path: str, body: Any) -> Any:
        if path == "/api/events/batch":
            return answer(202, {"request_id": "10"})
        assert path == "/api/events/batch/9/status", "nobody else can end it: its claim is not asked"
        return batch_status("failed")

    transport, _ = await adopt(ours, script)
    assert [item["name"] for item in transport.bodies("/api/events/batch")[-1]["events"]] == ["step.exit"]


@pytest.mark.parametrize("state", ["accepted", "processing", "completed", "failed processing_error"])
async def test_adopted_rescue_of_a_batch_that_the_plane_may_process_is_not_sent(
    ours: Emitter, tmp_path: Path, state: str
) -> None:
    left_behind(tmp_path, event_set(rescues="9"))

    def script(method: str, path: str, body: Any) -> Any:
        if path == "/api/events/batch/9/status":
            return batch_status(*state.split())
        return OVER if method == "POST" else answer(200, {"events": []})

    transport, _ = await adopt(ours, script)
    assert transport.bodies("/api/events/batch") == []


async def test_adopted_outcome_of_a_command_that_the_plane_has_lost_is_given_up(ours: Emitter, tmp_path: Path) -> None:
    left_behind(tmp_path)
    told: list[str] = []
    await adopt(ours, claim_then(answer(404, {"detail": "Command not found"}), told))
    assert told == ["/api/commands/7/claim"] * handover.MAX_UNKNOWN_TRIES


async def test_adopted_outcome_waits_for_a_plane_that_is_down_and_counts_as_in_flight(
    ours: Emitter, tmp_path: Path
) -> None:
    left_behind(tmp_path)
    flight, answers = InFlight(), [answer(503, {}), answer(503, {}), OVER]
    looks: list[Seen] = []

    def script(method: str, path: str, body: Any) -> Any:
        if "/events?" in path:
            return answer(200, {"events": []})  # none of ours is stored
        looks.append(flight.classify("c-7", 3))
        return answers.pop(0)

    await adopt(ours, script, flight)
    assert looks == [Seen.BEING_REPORTED] * 3


def test_two_workers_that_look_at_once_adopt_each_set_once(tmp_path: Path) -> None:
    for number in range(5):
        left_behind(tmp_path, event_set(number))
    one, other = box(tmp_path), box(tmp_path)
    found = [*taken(one), *taken(other)]
    assert sorted(each.event_id for each in found) == [0, 1, 2, 3, 4]


def test_row_of_a_set_that_is_here_already_is_not_told_a_second_time(tmp_path: Path) -> None:
    for _ in range(2):
        left_behind(tmp_path, event_set(7))
    assert len(taken(box(tmp_path))) == 1
    assert len(list(tmp_path.glob("*.lock"))) == 1


async def test_many_adopted_sets_are_read_and_told_some_at_a_time(ours: Emitter, tmp_path: Path) -> None:
    many_left_behind(tmp_path, 40)
    loaded, most = [0], [0]
    load = ours.outbox.load

    def count(key: str) -> EventSet | None:
        loaded[0] += 1
        most[0] = max(most[0], loaded[0])
        return load(key)

    ours.outbox.load = count  # type: ignore[method-assign]

    def script(method: str, path: str, body: Any) -> Any:
        if path.endswith("/claim"):
            return CLAIMED_AGAIN
        loaded[0] -= 1
        return ACCEPTED

    transport, flight = await adopt(ours, script)
    assert len(transport.bodies("/api/events/batch")) == 40
    assert most[0] <= AT_ONCE
    assert Seen.BEING_REPORTED not in {flight.classify(f"c-{number}", 3) for number in range(40)}
    assert left(tmp_path) == []


async def test_rows_that_a_bug_ends_the_sending_of_hold_up_no_others(ours: Emitter, tmp_path: Path) -> None:
    many_left_behind(tmp_path, 3 * AT_ONCE)
    asked, flight = set[str](), InFlight()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # they are asyncio's to log

    def broken(key: str) -> EventSet | None:
        asked.add(key)
        raise ValueError("a bug")

    ours.outbox.load = broken  # type: ignore[method-assign]
    _, adoption = adopting(ours, lambda *_: ACCEPTED, flight)
    await asyncio.sleep(1)
    assert len(asked) == 3 * AT_ONCE
    assert Seen.BEING_REPORTED not in {flight.classify(f"c-{number}", 3) for number in range(3 * AT_ONCE)}
    await adoption.stop()
    ours.outbox.close()
    assert len(taken(box(tmp_path))) == 3 * AT_ONCE


async def test_adopted_set_that_waits_for_its_turn_counts_as_in_flight(ours: Emitter, tmp_path: Path) -> None:
    for number in range(AT_ONCE + 5):
        left_behind(tmp_path, event_set(number))
    flight = InFlight()
    _, adoption = adopting(ours, lambda *_: answer(503, {}), flight)
    assert {flight.classify(f"c-{number}", 3) for number in range(AT_ONCE + 5)} == {Seen.BEING_REPORTED}
    await adoption.stop()
    ours.outbox.close()
    assert len(taken(box(tmp_path))) == AT_ONCE + 5


async def test_adopted_outcome_that_is_refused_asks_again_whose_its_command_is(ours: Emitter, tmp_path: Path) -> None:
    """On the Rust plane its worker may be back under the same id, and have told its end meanwhile."""
    left_behind(tmp_path)
    told: list[str] = []
    await adopt(ours, claim_then([CLAIMED_AGAIN, OVER], told, then=answer(425, {})))
    assert told == ["/api/commands/7/claim", "/api/events/batch", "/api/commands/7/claim"]


@pytest.mark.parametrize("away", ["another plane", "the result store"])
async def test_outcomes_for_a_place_that_is_away_hold_up_no_others(ours: Emitter, tmp_path: Path, away: str) -> None:
    for number in range(AT_ONCE + 2):
        if away == "another plane":
            left_behind(tmp_path, event_set(number, server_url="http://away.test"))
        else:
            report = Report(status="success", context={}, upload=Upload("start", b"[1]", "start", {}))
            left_behind(tmp_path, event_set(number, report=report))
    left_behind(tmp_path, event_set(900))

    def script(method: str, path: str, body: Any) -> Any:
        if method == "PUT" or path.startswith("http://away.test"):
            return answer(425, {})
        return CLAIMED_AGAIN if path.endswith("/claim") else ACCEPTED

    async def go() -> None:
        trusted = "http://away.test"
        transport, adoption = adopting(ours, script, InFlight(), NOETL_WORKER_TRUSTED_SERVERS=trusted)
        while not transport.bodies("/api/events/batch"):
            await asyncio.sleep(0.001)
        await adoption.stop()

    await asyncio.wait_for(go(), 10)  # virtual seconds
