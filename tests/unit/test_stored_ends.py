"""Events that the Python plane has stored and whose answers were lost: the claim says that the command is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from noetl_worker.errors import ClaimLost, MaybeProcessed, NotSent
from noetl_worker.models import AlreadyFinished, LoopPosition
from noetl_worker.plane.client import Plane
from noetl_worker.plane.python.recent_batches import RecentBatches
from noetl_worker.plane.rules import PendingEnd
from noetl_worker.report.events import CommandEvents
from unit.planes import Answer, Lost, answer, batch_status, command, emitter, plane
from unit.reports import OK
from unit.restarted_plane import EXECUTION, FIRST, LOOP

END = 767527445728591920
"""Of the recorded batch (tool-python): its last event."""


@dataclass
class Restarting:
    """A plane that stores a batch while its answer is lost, and then says that the command is over."""

    ended_by: str = "w-1"
    state: str | None = "failed"
    """Of the batch; None: it is not known any more."""
    error: Exception = field(default_factory=lambda: MaybeProcessed("connection reset"))
    batches: list[list[str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    has_events: bool = True

    def __call__(self, method: str, path: str, body: Any) -> Answer:
        if path == "/api/events/batch":
            self.batches.append([event["name"] for event in body["events"]])
            if len(self.batches) == 1:
                return self.error
            return answer(202, {"status": "accepted", "request_id": str(FIRST + 100)})
        self.asked.append(path.removeprefix(EXECUTION))
        if not self.has_events:
            return answer(404, {"detail": "Not Found"})
        if path == f"/api/events/batch/{FIRST}/status":
            return (
                answer(404, {"detail": "Batch request not found"})
                if self.state is None
                else batch_status(*self.state.split())
            )
        if "event_type=batch.accepted" in path:
            context = {"event_ids": [END - 2, END - 1, END], "request_id": str(FIRST), "commands_generated": 0}
            return self._row(FIRST + 1, context)
        assert "event_type=command.completed" in path
        return self._row(END, {"worker_id": self.ended_by, "command_id": command().command_id})

    @staticmethod
    def _row(event_id: int, context: dict[str, Any]) -> Answer:
        events = [{"event_id": event_id, "result": {"status": "COMPLETED", "context": context}}]
        return answer(200, {"events": events, "pagination": {"page": 1, "has_next": False}})


class Remembered(RecentBatches):
    """Those that would be asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Any] = []

    def accepted(self, plane: Plane, end: PendingEnd, answer: Mapping[str, Any]) -> None:
        self.batches.append(answer.get("request_id"))


async def report(said: Restarting, loop: LoopPosition | None = None) -> list[Any]:
    """Report one end; gives the batches that are remembered as accepted."""
    at, _ = plane(said)
    remembered = Remembered()
    ours = emitter(batches=remembered)
    over = Lost(AlreadyFinished("claim: 409 already_terminal"), certain_looks=1)
    await CommandEvents(command(loop=loop), at, "w-1", ours, hold_s=5.0).finish(OK, over)
    return remembered.batches


ENDS = ["call.done", "step.exit", "command.completed"]


async def test_stored_batch_that_is_never_processed_is_rescued() -> None:
    said = Restarting()
    assert await report(said) == [str(FIRST + 100)]
    assert said.batches == [ENDS, ["step.exit"]]


@pytest.mark.parametrize("state", ["accepted", "processing", "completed", "failed processing_timeout", None])
async def test_stored_batch_that_may_be_processed_is_remembered_and_not_sent_again(state: str | None) -> None:
    """One that the plane has forgotten is looked into with the other recent ones (test_recent_batches.py)."""
    said = Restarting(state=state)
    assert await report(said) == [str(FIRST)]
    assert said.batches == [ENDS]


@pytest.mark.parametrize(
    "said", [Restarting(ended_by="w-2"), Restarting(has_events=False)], ids=["another worker's", "events are not shown"]
)
async def test_end_that_the_plane_does_not_show_to_be_ours_is_not_ours(said: Restarting) -> None:
    with pytest.raises(ClaimLost):
        await report(said)
    assert said.batches == [ENDS]


async def test_end_that_never_left_is_not_looked_for() -> None:
    said = Restarting(error=NotSent("refused"))
    with pytest.raises(ClaimLost):
        await report(said)
    assert said.asked == []


async def test_item_of_a_loop_whose_batch_is_never_processed_is_not_rescued_and_that_is_said() -> None:
    said = Restarting()
    with capture_logs() as lines:
        await report(said, LOOP)
    assert said.batches == [ENDS]
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["batch_not_rescued"]
