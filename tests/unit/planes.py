"""A control plane for unit tests: a scripted transport, and the commands and envelopes to send through it."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from noetl_worker.errors import ClaimLost, SettingsError
from noetl_worker.models import AlreadyFinished, Command, Dialect, Envelope, HeldByOther
from noetl_worker.models.stopping import StopLevel, Stopping
from noetl_worker.pipeline.outbox.outbox import Outbox
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.plane.rust.event_ids import EventIds
from noetl_worker.remote.transport.transport import Body, Response
from noetl_worker.settings.settings import Settings, load_settings
from noetl_worker.worker.recovery.outcomes import outcomes_by_dialect
from noetl_worker.worker.recovery.recent_batches import RecentBatches

URL = "http://plane.test"
Answer = Response | Exception


class After(NamedTuple):
    """An answer that takes its time."""

    seconds: float
    answer: Answer


Script = Callable[[str, str, Any], Answer | After]


def answer(status: int, body: Any = None, **headers: str) -> Response:
    whole = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, whole)


def batch_status(state: str, error_code: str | None = None) -> Response:
    """What became of a batch, in the form of the records tool-python-batch-status and ack-timeout-batch-status; a
    failed one never came into the queue, if no other code is given."""
    code, message = error_code or "ack_timeout", "Enqueue timeout (>0.25s)"
    failure = {"error_code": code, "message": message} if state == "failed" else {"error_code": None, "message": None}
    return answer(200, {"request_id": "7", "state": state, "status": state.upper(), **failure})


class ScriptedTransport:
    """Answers by a function of (method, path, body) and keeps what was sent."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.sent: list[tuple[str, str, Any, Mapping[str, str]]] = []
        self.timeouts_s: list[float] = []

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float
    ) -> Response:
        path = url.removeprefix(URL)
        whole = b"".join(body) if isinstance(body, tuple) else body
        value = None if whole is None else json.loads(whole)
        self.sent.append((method, path, value, dict(headers)))
        self.timeouts_s.append(timeout_s)
        said = self.script(method, path, value)
        if isinstance(said, After):
            await asyncio.sleep(said.seconds)
            said = said.answer
        if isinstance(said, Exception):
            raise said
        return said

    async def close(self) -> None:
        return None

    def bodies(self, path: str) -> list[Any]:
        return [body for _, sent_path, body, _ in self.sent if sent_path.partition("?")[0] == path]


def settings(**variables: str) -> Settings:
    return load_settings({"NOETL_SERVER_URL": URL, "WORKER_METRICS_BIND": "", **variables})


def refusal(variables: Mapping[str, str], **sources: Any) -> str:
    """Why no worker starts with these settings. No password is in it."""
    with pytest.raises(SettingsError) as caught:
        load_settings(variables, **{"dotenv": Path(os.devnull), **sources})
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


def plane(script: Script, dialect: Dialect = Dialect.PYTHON) -> tuple[Plane, ScriptedTransport]:
    transport = ScriptedTransport(script)
    return Plane(ControlPlaneClient(transport, settings()), URL, dialect), transport


class Hurried(Stopping):
    """Of a worker that tries again at once; how long it would have waited is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    async def sleep(
        self, seconds: float, *awaited: asyncio.Future[Any], until: StopLevel = StopLevel.GRACE_OVER
    ) -> None:
        self.waits.append(seconds)
        await super().sleep(min(seconds, 0.001), *awaited, until=until)


def emitter(directory: Path | None = None, when: str = "on_failure", batches: RecentBatches | None = None) -> Emitter:
    """With an outbox in `directory`; without one, nothing is kept."""
    where = directory or Path("no outbox")
    outbox = Outbox(when if directory else "off", where, max_rows=100, max_bytes=1_000_000)
    return Emitter(outcomes_by_dialect(EventIds(1), batches), outbox, Hurried())


def rows_on_disk(directory: Path) -> int:
    """Rows of all outboxes in a directory."""
    total = 0
    for path in directory.glob("*.sqlite3"):
        with sqlite3.connect(path) as database:
            total += database.execute("SELECT count(*) FROM event_sets").fetchone()[0]
        database.close()
    return total


class Ours:
    """The command is ours, certainly."""

    def is_uncertain(self, now: float) -> bool:
        return False

    async def confirm(self) -> None:
        return None


class Lost:
    """The command may not be ours, after so many looks at which it is; asked, the plane says what became of it."""

    def __init__(self, claim: HeldByOther | AlreadyFinished, *, certain_looks: float = 0) -> None:
        self._claim, self._certain_looks = claim, certain_looks
        self.was_asked = False

    def is_uncertain(self, now: float) -> bool:
        self._certain_looks -= 1
        return self._certain_looks < 0

    async def confirm(self) -> None:
        self.was_asked = True
        raise ClaimLost(self._claim)


ENVELOPE = Envelope(767527441517510672, 767527441685282836, 767527441685282835, "start", URL, None, None)


def command(dialect: Dialect = Dialect.PYTHON, **changes: Any) -> Command:
    made = Command(
        execution_id=ENVELOPE.execution_id,
        event_id=ENVELOPE.event_id,
        command_id=ENVELOPE.command_id if dialect is Dialect.PYTHON else "7:start:9",
        step="start",
        kind="noop",
        config={},
        input={},
        variables={"action": "noop", "node_name": "start"},
        cases=(),
        meta={},
        server_url=URL,
        dialect=dialect,
    )
    return replace(made, **changes)
