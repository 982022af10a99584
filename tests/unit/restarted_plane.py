"""A Python plane after a restart, and a worker that asks it what became of its batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import NotSent
from noetl_worker.models import Command, LoopPosition, Report
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.transport.transport import Response
from noetl_worker.worker.recovery.adoption import Adoption
from noetl_worker.worker.recovery.recent_batches import CHECK_S, RecentBatches
from unit.planes import Answer, Ours, Script, ScriptedTransport, answer, batch_status, command, emitter, plane

OK = Report(status="success", context={"ok": True}, response={"ok": True})
EXECUTION = f"/api/executions/{command().execution_id}"
FIRST = 767527445728591916
"""Of the recorded batches (tool-python)."""
END = 767527445728591920
"""Its last event."""
LOOP = LoopPosition(event_id="loop_7", iteration_index=3, epoch_id="loop_7")


class Restarted:
    """A Python plane after a restart: what its events say of a batch, by their type, and the states it still knows."""

    def __init__(
        self,
        *stored: str,
        states: dict[str, str] | None = None,
        has_next: bool = False,
        later: int | None = None,
        lost: Exception | None = None,
        ended_by: str = "w-1",
    ) -> None:
        self.stored, self.states, self.has_next = stored, states or {}, has_next
        self.lost = lost
        """In place of the answer to its first batch."""
        self.ended_by = ended_by
        self.later = {} if later is None else {"request_id": str(later)}
        """Another worker's batch of the same execution."""
        self.batches: list[Any] = []

    def __call__(self, method: str, path: str, body: Any) -> Answer:
        if path == "/api/events/batch":
            self.batches.append(body)
            if self.lost is not None and len(self.batches) == 1:
                return self.lost
            return answer(202, {"status": "accepted", "request_id": str(FIRST + 10 * len(self.batches) - 10)})
        if path.startswith("/api/events/batch/"):
            state = self.states.get(path.split("/")[4])
            if state is None:
                return answer(404, {"detail": f"Batch request not found: {path.split('/')[4]}"})
            return batch_status(*state.split())
        if path.startswith(f"{EXECUTION}/events?"):
            return self._events(path.partition("event_type=")[2].partition("&")[0])
        assert path.endswith("/claim")
        one = command()
        who = {"event_id": one.event_id, "execution_id": one.execution_id, "node_id": "start", "node_name": "start"}
        meta = {"command_id": one.command_id, "step": "start", "tool_kind": "noop"}
        return answer(200, {"status": "ok", **who, "action": "noop", "context": {"tool_config": {}}, "meta": meta})

    def _events(self, kind: str) -> Response:
        """As recorded: the newest first, each with the batch in its result's context."""
        if kind == "command.completed":
            context: dict[str, Any] = {"worker_id": self.ended_by, "command_id": command().command_id}
            return _page({"event_id": END, "result": {"status": "COMPLETED", "context": context}})
        context = {"event_ids": [END - 2, END - 1, END], "request_id": str(FIRST), "commands_generated": 0}
        told = {"event_id": FIRST + 1, "event_type": kind, "result": {"status": "PENDING", "context": context}}
        later = {"event_id": FIRST + 500, "event_type": kind, "result": {"status": "PENDING", "context": self.later}}
        return _page(later, *([told] if kind in self.stored else []), has_next=self.has_next)

    def sent_again(self, told: int) -> list[list[str]]:
        return [[event["name"] for event in body["events"]] for body in self.batches[told:]]


def _page(*events: Any, has_next: bool = False) -> Response:
    return answer(200, {"events": events, "pagination": {"page": 1, "has_next": has_next}})


def numbered(*states: str) -> dict[str, str]:
    """Of batches in a row, the first of which is the recorded one."""
    return {str(FIRST + 10 * number): state for number, state in enumerate(states)}


@dataclass
class Watching:
    """A worker that asks what became of the batches in which it has told the ends of commands."""

    plane: Plane
    transport: ScriptedTransport
    telling: Emitter
    recent: RecentBatches

    async def end(self, one: Command) -> None:
        events = CommandEvents(one, self.plane, "w-1", self.telling, hold_s=5.0)
        events.start()
        await events.finish(OK, Ours())

    async def miss(self) -> None:
        """The plane is down for one request."""
        script, self.transport.script = self.transport.script, lambda method, path, body: NotSent("refused")
        with pytest.raises(NotSent):
            await self.plane.is_cancelled(command().execution_id)
        self.transport.script = script


@asynccontextmanager
async def watching(script: Script, directory: Path | None = None, **limits: int) -> AsyncIterator[Watching]:
    """Until it stops, at the end."""
    at, transport = plane(script)
    telling = emitter(directory, batches=(recent := RecentBatches(**limits)))
    resending = Adoption(at.client, telling, InFlight(), recent)
    yield Watching(at, transport, telling, recent)
    await resending.stop()
    await recent.stop()
    telling.outbox.close()


async def checked(
    script: Script,
    *,
    commands: int = 1,
    was_away: bool = True,
    checks: int = 1,
    loop: LoopPosition | None = None,
    **limits: int,
) -> ScriptedTransport:
    """Tell the ends of some commands; then the plane is down for a request, and is asked what became of them."""
    async with watching(script, **limits) as worker:
        for _ in range(commands):
            await worker.end(command(loop=loop))
        if was_away:
            await worker.miss()
        await asyncio.sleep(checks * (CHECK_S + 1.0))
    return worker.transport


def not_rescued(lines: Sequence[MutableMapping[str, Any]]) -> list[str]:
    """What the log says of them, by its reason or else its advice; nothing else is an error in it."""
    errors = [line for line in lines if line["log_level"] == "error"]
    assert {line["event"] for line in errors} <= {"batch_not_rescued"}
    return [line.get("reason", line["advice"]) for line in errors]


def asked(transport: ScriptedTransport) -> list[str]:
    return [path for method, path, _, _ in transport.sent if method == "GET" and "/api/events" not in path]
