"""Events that the Python plane has stored and whose answers were lost: the claim says that the command is over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from noetl_worker.errors import ClaimLost, MaybeProcessed, NotSent
from noetl_worker.models import AlreadyFinished, LoopPosition
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.remote.plane.client import Plane
from noetl_worker.worker.recovery.recent_batches import RecentBatches
from unit.planes import Answer, Lost, Script, answer, command, emitter, plane
from unit.reports import OK
from unit.restarted_plane import FIRST, LOOP, Restarted


class Remembered(RecentBatches):
    """Those that would be asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Any] = []

    def accepted(self, plane: Plane, end: EventSet, answer: Mapping[str, Any]) -> None:
        self.batches.append(answer.get("request_id"))


async def report(said: Script, loop: LoopPosition | None = None) -> list[Any]:
    """Report one end; gives the batches that are remembered as accepted."""
    at, _ = plane(said)
    remembered = Remembered()
    ours = emitter(batches=remembered)
    over = Lost(AlreadyFinished("claim: 409 already_terminal"), certain_looks=1)
    await CommandEvents(command(loop=loop), at, "w-1", ours, hold_s=5.0).finish(OK, over)
    return remembered.batches


def restarting(state: str | None = "failed", ended_by: str = "w-1") -> Restarted:
    """It has stored a batch whose answer was lost, and says then that the command is over."""
    states = {str(FIRST): state} if state is not None else {}
    lost = MaybeProcessed("connection reset")
    return Restarted("batch.accepted", states=states, lost=lost, ended_by=ended_by)


ENDS = ["call.done", "step.exit", "command.completed"]


async def test_stored_batch_that_is_never_processed_is_rescued() -> None:
    said = restarting()
    assert await report(said) == [str(FIRST + 10)]
    assert said.sent_again(0) == [ENDS, ["step.exit"]]


@pytest.mark.parametrize("state", ["accepted", "processing", "completed", "failed processing_timeout", None])
async def test_stored_batch_that_may_be_processed_is_remembered_and_not_sent_again(state: str | None) -> None:
    """One that the plane has forgotten is looked into with the other recent ones (test_recent_batches.py)."""
    said = restarting(state)
    assert await report(said) == [str(FIRST)]
    assert said.sent_again(0) == [ENDS]


@pytest.mark.parametrize(
    ("ended_by", "has_events"), [("w-2", True), ("w-1", False)], ids=["another worker's", "events are not shown"]
)
async def test_end_that_the_plane_does_not_show_to_be_ours_is_not_ours(ended_by: str, has_events: bool) -> None:
    said = restarting(ended_by=ended_by)

    def script(method: str, path: str, body: Any) -> Answer:
        return said(method, path, body) if has_events or method == "POST" else answer(404, {"detail": "Not Found"})

    with pytest.raises(ClaimLost):
        await report(script)
    assert said.sent_again(0) == [ENDS]


async def test_end_that_never_left_is_not_looked_for() -> None:
    asked = []

    def script(method: str, path: str, body: Any) -> Answer:
        asked.append(path)
        return NotSent("refused")

    with pytest.raises(ClaimLost):
        await report(script)
    assert asked == ["/api/events/batch"]


async def test_item_of_a_loop_whose_batch_is_never_processed_is_named_not_rescued() -> None:
    said = restarting()
    with capture_logs() as lines:
        await report(said, LOOP)
    assert said.sent_again(0) == [ENDS]
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["batch_not_rescued"]
