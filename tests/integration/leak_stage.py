"""A worker's whole way of a command without sockets, with an ear at everything that leaves the process.

A tool of its own gets a secret in one of several ways and puts it into any number of places. What leaves is kept:
requests to the plane, dead letters to NATS, log lines in both forms, metrics, the outbox on disk, the dev live views.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
import structlog
from rich.console import Console

import logging_guard
from noetl_worker.authoring.dev.failures import About
from noetl_worker.authoring.dev.live_view import JsonView, LineView, View
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.errors import ToolError
from noetl_worker.models import Dialect, ToolResult
from noetl_worker.models.slots import Slots
from noetl_worker.observability import metrics
from noetl_worker.observability.logging import configure_logging
from noetl_worker.pipeline.command.claimed_command import WorkerServices
from noetl_worker.pipeline.delivery.dead_letter import DeadLetters
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.pipeline.delivery.settle import settle_delivery
from noetl_worker.pipeline.executor import Executor
from noetl_worker.pipeline.outbox.outbox import Outbox
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.remote.plane.identity import Identity
from noetl_worker.remote.plane.rust.event_ids import EventIds
from noetl_worker.remote.transport.transport import Body, Response
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.registry import Registry
from noetl_worker.worker.recovery.outcomes import outcomes_by_dialect
from unit.planes import URL, settings

CATALOG = 9


@dataclass(frozen=True, slots=True)
class LeakConfig:
    auth: str | None = None
    password: Any = None
    headers: dict[str, Any] = field(default_factory=dict)
    note: Any = None
    input: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = None


@dataclass
class Plan:
    """One command: where its secret comes from and where the tool puts it."""

    secret: str
    source: str
    places: tuple[str, ...]
    case: str = "none"
    refused: bool = False
    """The plane refuses every outcome, quoting it: a dead letter."""


class LeakTool:
    kind: ClassVar[str] = "leak"
    config_model: ClassVar[type] = LeakConfig

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.received: list[str] = []

    async def run(self, config: LeakConfig, context: ToolContext) -> ToolResult:
        plan = self.plan
        assert plan is not None
        secret = await received(plan, config, context)
        self.received.append(secret)
        result: dict[str, Any] = {"status": "success", "data": {"n": 1}}
        for place in plan.places:
            await PLACES[place](secret, context, result)
        return ToolResult(**{**result, "status": ToolResult.success().status})


async def received(plan: Plan, config: LeakConfig, context: ToolContext) -> str:
    """The secret, as the tool came by it."""
    source = plan.source
    if source.startswith("credential:"):
        assert config.auth is not None
        return str((await context.secrets.credential(config.auth))[source.partition(":")[2]])
    if source == "keep_secret":
        context.secrets.keep(plan.secret)
        return plan.secret
    value = {
        "inline": config.password,
        "reference": config.note,
        "template": config.note,
        "header": config.headers.get("X-Api-Key"),
        "bearer": str(config.headers.get("Authorization")).removeprefix("Bearer "),
        "workload": context.values.variables.get("workload", {}).get("db_password"),
        "input": config.input.get("client_secret"),
    }[source]
    return str(value)


def command_of(plan: Plan) -> RawCommand:
    source, secret = plan.source.partition(":")[0], plan.secret
    config: dict[str, Any] = {
        "credential": {"auth": "leaky"},
        "inline": {"password": secret},
        "reference": {"note": {"$noetl_ref": {"kind": "keychain", "name": "leaky", "field": "value"}}},
        "template": {"note": "{{ keychain.leaky.value }}"},
        "header": {"headers": {"X-Api-Key": secret}},
        "bearer": {"headers": {"Authorization": f"Bearer {secret}"}},
    }.get(source, {})
    given = {"client_secret": secret} if source == "input" else {}
    variables = {"workload": {"db_password": secret}} if source == "workload" else {}
    if "unknown_field" in plan.places:
        config[f"x{secret}"] = 1
    return RawCommand("leak", config, given, cases_of(plan), variables, meta={"catalog_id": str(CATALOG), "attempt": 1})


def cases_of(plan: Plan) -> list[Any]:
    then: Any = {
        "exit": {"exit": {"status": "done", "data": {plan.secret: [plan.secret, {"deep": f"<{plan.secret}>"}]}}},
        "fail": {"fail": {"message": f"not with {plan.secret}"}},
        "set_var": {"set_var": {"name": "v", "value": {"x": [plan.secret]}}},
        "skipped": "continue",
        "none": None,
    }[plan.case]
    if plan.case == "skipped":
        return [{"when": [{"left": "a", "op": plan.secret}], "then": "continue"}, {"when": [], "then": then}]
    return [] if then is None else [{"when": [], "then": then}]


# ── places ──────────────────────────────────────────────────────────────────────────────────────

Put = Callable[[str, ToolContext, dict[str, Any]], Awaitable[None]]


def data(make: Callable[[str], Any]) -> Put:
    async def put(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
        result["data"][f"d{len(result['data'])}"] = make(secret)

    return put


def part(name: str) -> Put:
    async def put(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
        result[name] = f"before {secret} after\n{secret}"

    return put


async def as_key(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
    result["data"][secret] = {f"pre{secret}": 1}


async def raised(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
    raise ToolError(f"cannot log in with {secret}", kind="connection", code=secret)


async def raised_by_chance(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
    raise KeyError(secret)


async def raised_from(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
    try:
        try:
            raise ValueError(f"inner {secret}")
        except ValueError as error:
            raise OSError(5, "middle", secret) from error
    except OSError as error:
        raise RuntimeError("outer") from error


async def returned_failure(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
    raise ToolError("unused") if not secret else ToolError(f"password={secret}", code=f"E{secret}")


async def logged(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
    context.logger.warning(f"event {secret}", field=secret, nested={"k": [secret], secret: 1}, plain=("t", secret))
    try:
        raise LookupError(secret)
    except LookupError:
        context.logger.info("with a trace", exc_info=True)
        logging.getLogger("a.library").warning("library says %s", secret, exc_info=True)
    structlog.get_logger("of.the.tool").warning("own logger", token_value=secret, error=ValueError(secret))
    warnings.showwarning(f"deprecated {secret}", UserWarning, "f", 1)


async def logged_in_thread(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, lambda: context.logger.warning("thread", value=f"-{secret}-"))


async def progress(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
    context.worker.report_progress({"row": secret, "list": [f"x{secret}x"]})


async def set_vars(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
    await context.worker.control_plane.set_vars({"v": {"a": [secret]}, "w": f"{secret}!"})


async def put_result(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
    await context.worker.control_plane.put_result("own", json.dumps({"a": secret}).encode(), source_step="start")


async def large(secret: str, context: ToolContext, result: dict[str, Any]) -> None:
    result["data"]["rows"] = [{"i": number, "text": f"{secret} {'x' * 500}"} for number in range(300)]


PLACES: dict[str, Put] = {
    "value": data(lambda secret: secret),
    "in_text": data(lambda secret: f"a{secret}b {secret}"),
    "nested": data(lambda secret: [[{"a": {"b": [secret, 1]}}], secret]),
    "json_text": data(lambda secret: json.dumps({"x": secret})),
    "json_text_plain": data(lambda secret: json.dumps({"x": secret}, ensure_ascii=False)),
    "url": data(lambda secret: f"https://host/p?q={quote(secret, safe='')}&r=1"),
    "url_user": data(lambda secret: f"pg://me:{quote(secret, safe='')}@host/db"),
    "base64": data(lambda secret: base64.b64encode(secret.encode()).decode()),
    "base64_inside": data(lambda secret: base64.urlsafe_b64encode(f"user:{secret}\n".encode()).decode()),
    "hex": data(lambda secret: secret.encode().hex()),
    "repr": data(repr),
    "as_bytes": data(lambda secret: f"me:{secret}".encode()),
    "sensitive_key": data(lambda secret: {"password": secret, "Authorization": f"Bearer {secret}"}),
    "as_key": as_key,
    "stdout": part("stdout"),
    "stderr": part("stderr"),
    "raised": raised,
    "raised_by_chance": raised_by_chance,
    "raised_from": raised_from,
    "returned_failure": returned_failure,
    "logged": logged,
    "logged_in_thread": logged_in_thread,
    "progress": progress,
    "set_vars": set_vars,
    "put_result": put_result,
    "large": large,
    "unknown_field": data(lambda secret: 1),
}
ENDS = ("raised", "raised_by_chance", "raised_from", "returned_failure")
"""Places that end the tool: they come last."""


# ── the stage ───────────────────────────────────────────────────────────────────────────────────


class Recording:
    """A transport to a plane of this process: it keeps every request, and refuses outcomes when told to, quoting
    them."""

    def __init__(self, plane: DevControlPlane) -> None:
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=plane.app))  # type: ignore[arg-type]
        self.sent: list[bytes] = []
        self.refuses = False

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float
    ) -> Response:
        whole = b"".join(body) if isinstance(body, tuple) else body or b""
        self.sent += [url.encode(), json.dumps(dict(headers)).encode(), whole]
        if self.refuses and "/api/events" in url:
            return Response(422, {}, b'{"detail":' + json.dumps(whole.decode()).encode() + b"}")
        answer = await self.client.request(method, url, headers=dict(headers), content=whole)
        return Response(answer.status_code, dict(answer.headers), answer.content)

    async def close(self) -> None:
        await self.client.aclose()


class Message:
    """A delivery that takes any answer."""

    reply, subject, headers, num_delivered, tries, received_at = "r", "noetl.commands", None, 1, 1, 0.0
    message_id = "noetl_commands-1-1"
    stored_at = 0.0

    def __init__(self, body: bytes, sequence: int) -> None:
        self.data = body
        self.stream_sequence = sequence
        self.answers: list[str] = []

    def age_s(self) -> float:
        return 1.0

    async def ack(self) -> None:
        self.answers.append("ack")

    async def nak(self, delay_s: float) -> None:
        self.answers.append("nak")

    async def term(self, reason: str) -> None:
        self.answers.append(f"term {reason}")


class Alive:
    def is_expired(self, reply: str, now: float) -> bool:
        return False


PAGE, AROUND = 4096, 512
"""Bytes of a file that are compared at once, and of what is around those that changed: more than a secret has."""


class Stage:
    """One plane and one worker's stages; `play` takes one command through them."""

    def __init__(self, dialect: Dialect, outbox: Path) -> None:
        self.plane = DevControlPlane(PlaneSettings(dialect=dialect))
        ours = settings(NOETL_CONTROL_PLANE=dialect.value)
        self.wire = Recording(self.plane)
        self.tool = LeakTool()
        self.client = ControlPlaneClient(self.wire, ours)
        self.registry = Registry([self.tool], plugins=False)
        self.directory = outbox
        self._looked_at: dict[Path, bytes] = {}
        self.outbox = Outbox("always", outbox, max_rows=100, max_bytes=1_000_000)
        emitter = Emitter(outcomes_by_dialect(EventIds(1)), self.outbox)
        services = WorkerServices(ours, Identity(ours), self.registry, InFlight(), Alive(), emitter, Slots(4))  # type: ignore[arg-type]
        self.execution = Executor(self.client, services)
        self.dead_letters: list[bytes] = []
        self.lines = io.StringIO()
        self.views: list[View] = [
            LineView(Console(file=self.lines, width=100_000)),
            JsonView(self.lines),
        ]
        for view in self.views:
            self.plane.log.listen(lambda event, view=view: view.event(event, About("leak")))  # type: ignore[misc]
        self._count = 0

    async def play(self, plan: Plan, log_form: str) -> tuple[Message, str]:
        """Take the plan's command to its end; the message with its answer, and what was logged."""
        self._store(plan)
        self.tool.plan, self.wire.refuses = plan, plan.refused
        [issued] = await self.plane.create_commands([command_of(plan)], publish=False)
        body = {name: getattr(issued, name) for name in ("execution_id", "event_id", "command_id")}
        self._count += 1
        message = Message(json.dumps({**body, "step": issued.node, "server_url": URL}).encode(), self._count)
        with logs_in(log_form) as log:
            outcome = await self.execution.run(message)  # type: ignore[arg-type]
            assert outcome is not None
            await settle_delivery(DeadLetters(self._publish, "w"), message, outcome)
            await self.plane.finish_work()
        execution = self.plane.execution(issued.execution_id)
        for view in self.views:
            view.summary(execution)
        return message, log.getvalue()

    def _store(self, plan: Plan) -> None:
        field_name = plan.source.partition(":")[2] or "value"
        held = {field_name: plan.secret, "host": "db.internal", "port": 5432}
        self.plane.credentials.write({"name": "leaky", "type": "custom", "data": held})
        self.plane.keychain.write(CATALOG, "leaky", {"token_data": {"value": plan.secret, "user": "me"}})
        self.client.credential_cache.clear()

    async def _publish(self, subject: str, dead_letter: bytes, message_id: str) -> None:
        self.dead_letters.append(dead_letter)

    def left(self) -> Iterator[tuple[str, bytes]]:
        """Everything that has left so far, and forget it."""
        yield from (("request", body) for body in self.wire.sent)
        yield from (("dead letter", dead_letter) for dead_letter in self.dead_letters)
        yield "view", self.lines.getvalue().encode()
        yield "metrics", metrics.exposition()
        yield from (("outbox", self._written(path)) for path in sorted(self.directory.rglob("*")) if path.is_file())
        self.wire.sent.clear()
        self.dead_letters.clear()
        self.lines.seek(0)
        self.lines.truncate()

    def _written(self, path: Path) -> bytes:
        """What of the file is not as it was when it was looked at before: the first commands' rows stay in it."""
        before, now = self._looked_at.get(path, b""), path.read_bytes()
        self._looked_at[path] = now
        pages = (slice(start, start + PAGE) for start in range(0, len(now), PAGE))
        changed = (page.start for page in pages if now[page] != before[page])
        return b"".join(now[max(0, start - AROUND) : start + PAGE + AROUND] for start in changed)

    async def close(self) -> None:
        self.outbox.close()
        await self.registry.aclose()
        await self.client.close()
        await self.plane.close()


@contextmanager
def logs_in(form: str) -> Iterator[io.StringIO]:
    """Logging as `run` sets it up, into a text."""
    text = io.StringIO()
    with logging_guard.kept(), redirect_stderr(text):
        logging.getLogger().handlers[:] = []  # else basicConfig(force=True) would close the runner's
        configure_logging("debug", form)
        yield text
