"""A report, told to a plane that answers by a script."""

from __future__ import annotations

import asyncio
from typing import Any

from noetl_worker.models import Dialect, Report
from noetl_worker.report.emitter import Emitter
from noetl_worker.report.events import CommandEvents
from noetl_worker.transport.transport import Response
from unit.planes import Ours, Script, ScriptedTransport, answer, command, emitter, plane

OK = Report(status="success", context={"ok": True}, response={"ok": True})


def accept(method: str, path: str, body: Any) -> Response:
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
    **changes: Any,
) -> ScriptedTransport:
    at, transport = plane(script, dialect)
    one = command(dialect, **changes)
    told = CommandEvents(one, at, "w-1", teller or emitter(), hold_s=hold_s)
    told.start()
    if wait_for_started:
        while not transport.sent:
            await asyncio.sleep(0)
    await told.finish(report, Ours())
    return transport


def names(body: Any) -> list[str]:
    return [event["name"] for event in body["events"]]
