"""Outcomes that are told: on disk while they are refused, out of their slot, and told once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import virtual_time
from noetl_worker.errors import ClaimLost, ServerRefused
from noetl_worker.models import AlreadyFinished, Dialect
from noetl_worker.models.slots import Slots
from noetl_worker.pipeline.report.emitter import LATE_S, Emitter
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.gate import DOWN_AFTER
from unit.outboxes import box, event_set, left, taken
from unit.planes import After, Ours, ScriptedTransport, answer, command, emitter, plane, rows_on_disk
from unit.reports import OK

anyio_backend = virtual_time.anyio_backend


def begun(at: Plane, ours: Emitter, owner: Any = None, **free_slot: Any) -> asyncio.Task[None]:
    """The telling of an end, by the owner of its claim."""
    told = CommandEvents(command(at.dialect), at, "w-1", ours, hold_s=5.0, **free_slot)
    told.start()
    return asyncio.ensure_future(told.finish(OK, owner or Ours()))


async def tell(ours: Emitter, script: Any, dialect: Dialect = Dialect.PYTHON, **free_slot: Any) -> ScriptedTransport:
    at, transport = plane(script, dialect)
    await begun(at, ours, **free_slot)
    return transport


async def on_disk(ours: Emitter) -> None:
    while ours.outbox.is_empty:
        await asyncio.sleep(0)


async def cut_off(telling: asyncio.Task[None], ours: Emitter) -> None:
    """As the end of a process does."""
    telling.cancel()
    await asyncio.wait({telling})
    ours.outbox.close()


def accepting(refusals: int, seen: list[int] | None = None, directory: Path | None = None) -> Any:
    refused = [answer(503, {})] * refusals

    def script(method: str, path: str, body: Any) -> Any:
        if seen is not None and directory is not None:
            seen.append(rows_on_disk(directory))
        if refused:
            return refused.pop()
        return answer(202, {"event_ids": [5]}) if "batch" in path else answer(200, {"event_id": 7})

    return script


async def test_accepted_set_never_touches_the_disk(ours: Emitter, tmp_path: Path) -> None:
    await tell(ours, accepting(0))
    assert left(tmp_path) == []


async def test_refused_set_is_on_disk_at_the_next_try_and_gone_when_accepted(
    ours: Emitter, tmp_path: Path, dialect: Dialect
) -> None:
    seen: list[int] = []
    await tell(ours, accepting(2, seen, tmp_path), dialect)
    assert seen[:3] == [0, 1, 1]
    assert ours.outbox.is_empty
    assert rows_on_disk(tmp_path) == 0


async def test_set_for_a_plane_that_is_down_is_on_disk_before_its_first_try(ours: Emitter, tmp_path: Path) -> None:
    at, transport = plane(accepting(0))
    for _ in range(DOWN_AFTER):
        at.gate.refused(time.monotonic())
    telling = begun(at, ours)
    await on_disk(ours)
    assert (transport.sent, rows_on_disk(tmp_path)) == ([], 1)
    await telling
    assert ours.outbox.is_empty


async def test_always_writes_before_the_first_try(tmp_path: Path, dialect: Dialect) -> None:
    seen: list[int] = []
    ours = emitter(tmp_path, "always")
    await tell(ours, accepting(0, seen, tmp_path), dialect)
    assert set(seen) == {1}
    assert rows_on_disk(tmp_path) == 0
    ours.outbox.close()


async def test_set_on_disk_leaves_its_slot_and_one_in_memory_holds_it(tmp_path: Path) -> None:
    free: dict[str, list[int]] = {"disk": [], "memory": []}
    for where, ours in (("disk", emitter(tmp_path)), ("memory", emitter())):
        slots = Slots(1)
        slots.take()
        inner = accepting(2)

        def script(*request: Any, where: str = where, slots: Slots = slots, inner: Any = inner) -> Any:
            free[where].append(slots.free())
            return inner(*request)

        await tell(ours, script, free_slot=slots.waiting)
        assert slots.free() == 0, "it is back in its slot"
        ours.outbox.close()
    assert free == {"disk": [0, 1, 1], "memory": [0, 0, 0]}


async def test_set_that_the_plane_refuses_for_good_leaves_the_disk(ours: Emitter) -> None:
    answers = [answer(503, {}), answer(422, {})]
    with pytest.raises(ServerRefused):
        await tell(ours, lambda *_: answers.pop(0))
    assert ours.outbox.is_empty


async def test_long_refused_set_asks_for_its_claim_before_it_is_sent_late(ours: Emitter) -> None:
    at, transport = plane(lambda _, path, __: answer(200, {"events": []}) if "/events?" in path else answer(503, {}))

    class Lost(Ours):
        async def confirm(self) -> None:
            raise ClaimLost(AlreadyFinished("somebody else did it"))

    with pytest.raises(ClaimLost):
        await begun(at, ours, Lost())
    assert transport.sent, "it was tried while it was not late"
    assert ours.outbox.is_empty


async def test_late_set_is_on_disk_and_out_of_its_slot_while_its_claim_is_asked(ours: Emitter, tmp_path: Path) -> None:
    slots = Slots(1)
    slots.take()

    class Uncertain:
        def is_uncertain(self, now: float) -> bool:
            return True

        async def confirm(self) -> None:
            await asyncio.Event().wait()

    at, transport = plane(accepting(0))
    telling = begun(at, ours, Uncertain(), free_slot=slots.waiting)
    await on_disk(ours)
    assert (slots.free(), transport.sent) == (1, [])
    await cut_off(telling, ours)
    assert rows_on_disk(tmp_path) == 1


async def test_set_whose_requests_are_refused_one_after_the_other_leaves_its_slot_once(ours: Emitter) -> None:
    slots = Slots(1)
    slots.take()
    refusals, free = {"/api/events/batch": 2, "/api/events": 2}, []

    def script(method: str, path: str, body: Any) -> Any:
        free.append(slots.free())
        refusals[path] -= 1
        if refusals[path] >= 0:
            return answer(425, {})
        return answer(202, {"event_ids": [5]}) if "batch" in path else answer(200, {"event_id": 7})

    await tell(ours, script, Dialect.RUST, free_slot=slots.waiting)
    assert free == [0, 1, 1, 1, 1, 1]
    assert slots.free() == 0


async def test_stop_while_the_start_is_under_way_leaves_the_outcome_on_disk(
    ours: Emitter, tmp_path: Path, dialect: Dialect
) -> None:
    at, transport = plane(lambda *_: After(float("inf"), answer(200)), dialect)
    told = CommandEvents(command(dialect), at, "w-1", ours, hold_s=0.0)
    told.start()
    while not transport.sent:
        await asyncio.sleep(0)
    telling = asyncio.ensure_future(told.finish(OK, Ours()))
    await asyncio.sleep(0)
    await cut_off(telling, ours)
    [left] = taken(box(tmp_path))
    assert b'"call.done"' in left.body()


async def test_set_that_waited_at_the_gate_asks_whose_its_command_is() -> None:
    """The gate may be closed for minutes: what was ours at the last look may be another worker's by then."""
    said: list[str] = []

    class Asked(Ours):
        async def confirm(self) -> None:
            said.append("asked")

    def script(method: str, path: str, body: Any) -> Any:
        said.append("sent")
        return answer(202, {"event_ids": [5]})

    at, _ = plane(script)

    def refused() -> None:
        at.gate.refused(time.monotonic(), retry_after_s=LATE_S)

    refused()
    asyncio.get_running_loop().call_later(LATE_S - 1.0, refused)
    await begun(at, emitter(), Asked())
    assert said[-2:] == ["asked", "sent"]


async def test_adopted_outcome_and_our_own_of_one_claim_are_told_one_after_the_other() -> None:
    """Rust plane: a restarted worker is accepted under its id, and the outcome of its first life is on the disk."""
    asked: list[str] = []

    class Uncertainty:
        def __init__(self, name: str) -> None:
            self.name = name

        def is_uncertain(self, now: float) -> bool:
            return False

        async def confirm(self) -> None:
            asked.append(self.name)
            raise ClaimLost(AlreadyFinished("over"))

    at, _ = plane(lambda *_: After(1.0, answer(202, {})))
    ours = emitter()
    first = asyncio.ensure_future(ours.deliver(at, event_set(), Uncertainty("first")))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(ours.deliver(at, event_set(), Uncertainty("second")))
    await first
    with pytest.raises(ClaimLost):
        await second
    assert asked == ["second"]
