"""A command that `noetl-worker exec` or `replay` runs in this process, without a claim or report to a control plane.

The command passes through the same stages as in a worker. Requests that would change something on the plane are
collected, not sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from noetl_worker.errors import ToolError
from noetl_worker.models.claim import Claimed
from noetl_worker.models.disposition import Disposition
from noetl_worker.models.notification import Envelope
from noetl_worker.models.slots import Slots
from noetl_worker.models.wire import JsonValue
from noetl_worker.pipeline.claim.text_marks import read_marks
from noetl_worker.pipeline.command.claimed_command import ClaimedCommand, WorkerServices
from noetl_worker.pipeline.command.command import hydrate
from noetl_worker.pipeline.command.dispatch import Dispatch
from noetl_worker.pipeline.command.tool_rules import make_registry
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.pipeline.delivery.keepalive import InProgress
from noetl_worker.pipeline.outbox.outbox import Outbox
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.pipeline.stages import Progress
from noetl_worker.remote.jetstream.delivery import Delivery
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.plane.identity import Identity
from noetl_worker.remote.plane.rules import BATCH, SINGLE
from noetl_worker.remote.plane.rust.event_ids import make_event_ids
from noetl_worker.remote.transport.transport import Body, Response, Transport
from noetl_worker.settings.settings import Settings
from noetl_worker.text import json_text
from noetl_worker.text.secrets import redaction
from noetl_worker.tools.registry import Registry
from noetl_worker.worker.recovery.outcomes import outcomes_by_dialect

_QUESTIONS: Final = frozenset({"/api/catalog/resource"})
"""Routes whose POST requests are sent to the plane, since these requests only read."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """A request that would have changed something on the plane, and so was not sent."""

    method: str
    path: str
    body: JsonValue


class WithholdingTransport:
    """An HTTP transport that sends only read requests. It records any other request and returns a made-up response."""

    def __init__(self, asked: Transport) -> None:
        self._asked = asked
        self.withheld: list[Withheld] = []

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float | None
    ) -> Response:
        path = urlsplit(url).path
        if method == "GET" or path in _QUESTIONS:
            return await self._asked.send(method, url, headers, body, timeout_s)
        content = b"".join(body) if isinstance(body, tuple) else body
        value = json_text.loads(content) if content else None
        self.withheld.append(Withheld(method, path, value))
        if path in (SINGLE, BATCH) or path.startswith("/api/vars/"):
            return _answer(200, {"status": "ok"})
        if method == "PUT" and isinstance(value, dict):
            return _answer(200, {"ref": f"(not stored: {value.get('name')})", "bytes": len(content or b"")})
        return _answer(400, {"detail": f"{method} {path} is not sent: a local run changes nothing on a plane"})

    async def close(self) -> None:
        await self._asked.close()


def _answer(status: int, body: JsonValue) -> Response:
    return Response(status, {"content-type": "application/json"}, json_text.dumps(body))


@dataclass(frozen=True, slots=True)
class LocalResult:
    """The outcome of a command that ran in this process. `withheld` has the requests that would have changed something
    on the plane, and so were not sent."""

    disposition: Disposition
    withheld: tuple[Withheld, ...]
    seconds: float
    events: tuple[Mapping[str, Any], ...]
    """All events, in the order in which a worker would send them. Each has `name` and `payload` on either plane."""

    @property
    def call(self) -> Mapping[str, Any] | None:
        """The event with the tool's result, call.done or call.error; None if no such event would have been sent."""
        return next((event for event in self.events if event["name"] in ("call.done", "call.error")), None)

    @property
    def failed(self) -> bool:
        """True if the command or its tool failed. On the Rust plane a command may complete although its tool failed."""
        if self.call is None or self.call["name"] == "call.error":
            return True
        status = (self.call["payload"].get("result") or {}).get("status")
        return str(status).lower() in ("error", "timeout", "failed")


class LocalRun:
    """Runner of commands in this process, without a claim: `async with LocalRun(settings, transport) as local_run:`."""

    def __init__(
        self, settings: Settings, transport: WithholdingTransport, *, registry: Registry | None = None
    ) -> None:
        self._settings, self._transport = settings, transport
        self.client: Final = ControlPlaneClient(transport, settings)
        self._registry = registry or make_registry(settings)
        identity = Identity(settings)
        outbox = Outbox("off", Path(), max_bytes=1)
        ends = outcomes_by_dialect(make_event_ids(settings))
        self._services = WorkerServices(
            settings,
            identity,
            self._registry,
            InFlight(),
            InProgress(settings.ack_wait_s),
            Emitter(ends, outbox),
            Slots(settings.max_concurrent),
            cancellation_poll_s=0,  # the execution may be over by now
        )

    async def __aenter__(self) -> LocalRun:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._registry.aclose()
        await self.client.close()

    async def run(
        self, body: Mapping[str, JsonValue], envelope: Envelope, plane: Plane, progress: Progress | None = None
    ) -> LocalResult:
        """Run a command to its end. Return its outcome, and the requests that would change the plane, which are not
        sent.

        Args:
            body: the plane's response to a claim of the command.
            envelope: the notification of the command.
            plane: client for the read requests of the tool.
            progress: lets the caller interrupt the tool by `progress.stop`; None if nobody interrupts the tool.
        """
        progress = progress or Progress()
        progress.task = asyncio.current_task()
        text = json_text.dumps(body)
        claim = Claimed(body, read_marks(text), len(text))
        before, since = len(self._transport.withheld), time.monotonic()
        worker_id = self._services.identity.name_for(plane.dialect)
        command = ClaimedCommand(
            claim, envelope, plane, Delivery.without_message(), self._services, progress, worker_id, since
        )
        disposition = await command.run()
        withheld = tuple(self._transport.withheld[before:])
        events = tuple(
            event for request in withheld if request.path in (SINGLE, BATCH) for event in _events(request.body)
        )
        return LocalResult(disposition, withheld, time.monotonic() - since, events)

    async def rendered(self, body: Mapping[str, JsonValue], envelope: Envelope, plane: Plane) -> JsonValue:
        """Return the config that the tool would get, with secrets redacted. The tool does not run.

        Raises:
            ToolError: the config cannot be made; the worker would report this error.
        """
        text = json_text.dumps(body)
        command = await hydrate(body, envelope, plane, marks=read_marks(text), size=len(text))
        dispatch = Dispatch(
            self._registry,
            command,
            plane,
            worker_id=self._services.identity.name_for(plane.dialect),
            limits=self._services.limits,
            slots=self._services.slots,
        )
        try:
            prepared = await dispatch.prepare()
        except ToolError as error:
            raise type(error)(redaction.redact_text(str(error), dispatch.credentials.known.texts())) from None
        return redaction.redact_value(json_text.plain(prepared.config), dispatch.credentials.known.texts())


def _events(body: JsonValue) -> list[dict[str, Any]]:
    """Return the events in the body of a report to either plane. Each event gets the keys `name` and `payload`."""
    if "events" in body:
        return list(body["events"])
    return [{**body, "name": body["event_type"], "payload": body["context"]}]
