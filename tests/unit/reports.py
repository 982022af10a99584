"""A report, made of what a tool gave, and told to a plane that answers by a script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from noetl_worker.models import CaseDecision, Dialect, FitRules, Report, ToolResult
from noetl_worker.observability.step_log import Warned
from noetl_worker.pipeline.report import results
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.remote.transport.transport import Response
from noetl_worker.text import json_text
from unit.planes import Lost, Ours, Script, ScriptedTransport, answer, command, emitter, plane

OK = Report(status="success", context={"ok": True}, response={"ok": True})
STORED = {"ref": "noetl://execution/7/result/start/1", "store": "kv", "scope": "execution", "bytes": 9, "sha256": "aa"}


async def report_of(
    data: Any,
    dialect: Dialect = Dialect.PYTHON,
    decision: CaseDecision | None = None,
    rules: FitRules | None = None,
    **changes: Any,
) -> Report:
    """Of a command whose tool gave this result, or succeeded with this data."""
    result = data if isinstance(data, ToolResult) else ToolResult.success(data)
    return await results.report(command(dialect, **changes), result, decision or CaseDecision(), rules or FitRules())


def parsed(part: Any) -> Any:
    """What is read of it on the other side."""
    return json_text.loads(json_text.dumps(part))


def accept(method: str, path: str, body: Any) -> Response:
    """All events, and each result into the store."""
    if method == "PUT":
        return answer(200, STORED)
    if path == "/api/events/batch":
        return answer(202, {"status": "accepted", "event_ids": [1, 2]})
    return answer(200, {"status": "ok", "event_id": (body or {}).get("event_id") or 5})


async def tell(
    report: Report,
    script: Script = accept,
    *,
    dialect: Dialect = Dialect.PYTHON,
    hold_s: float = 5.0,
    wait_for_started: bool = False,
    teller: Emitter | None = None,
    claim: Ours | Lost | None = None,
    free_slot: Callable[[], AbstractContextManager[None]] = nullcontext,
    warned: Warned | None = None,
    **changes: Any,
) -> ScriptedTransport:
    at, transport = plane(script, dialect)
    one = command(dialect, **changes)
    told = CommandEvents(one, at, "w-1", teller or emitter(), hold_s, free_slot, warned or Warned())
    told.start()
    if wait_for_started:
        while not transport.sent:
            await asyncio.sleep(0)
    await told.finish(report, claim or Ours())
    return transport


def names(body: Any) -> list[str]:
    return [event["name"] for event in body["events"]]


def puts(transport: ScriptedTransport) -> list[Any]:
    """What the store was sent."""
    return [body for method, _, body, _ in transport.sent if method == "PUT"]


def event_of(name: str, transport: ScriptedTransport) -> Any:
    """The last batch's event of this name."""
    return next(one for one in transport.bodies("/api/events/batch")[-1]["events"] if one["name"] == name)


def call_done(transport: ScriptedTransport) -> Any:
    """The payload of `call.done`, in the last batch."""
    return event_of("call.done", transport)["payload"]
