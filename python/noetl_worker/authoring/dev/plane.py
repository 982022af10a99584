"""The development control plane: the real planes' routes, claims, events and DSL core in one process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio
import uvicorn
from starlette.types import ASGIApp

from noetl_worker.authoring.dev.event_log import CommandRow, LoggedEvent
from noetl_worker.authoring.dev.forms.wire_form import Issued
from noetl_worker.authoring.dev.nats_server import CommandStream
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.orchestration.playbook import read_playbook
from noetl_worker.authoring.dev.orchestration.step_alone import StepAlone
from noetl_worker.authoring.dev.server.catalog import CatalogEntry
from noetl_worker.authoring.dev.server.own_requests import OwnAddresses, OwnRequests
from noetl_worker.authoring.dev.server.route_table import route_table
from noetl_worker.authoring.dev.server.routes import build_app
from noetl_worker.authoring.dev.server.state import PlaneState
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models.wire import JsonValue
from noetl_worker.pipeline.outbox.dev_token import token_file
from noetl_worker.process import event_loop

WAIT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class RawCommand:
    """A command without a playbook, for tests and benches: the content of a claim's answer."""

    action: str = "noop"
    tool_config: JsonValue = None
    """The tool's config; None: {}. A list is a Rust task sequence."""
    input: Mapping[str, JsonValue] | None = None
    cases: Sequence[JsonValue] = ()
    render_context: Mapping[str, JsonValue] | None = None
    step: str = "start"
    meta: Mapping[str, JsonValue] | None = None
    """Meta fields added to the plane's own."""


class DevControlPlane(PlaneState):
    """A control plane for development and tests, on loopback.

    `async with DevControlPlane(nats_url=server.url) as plane:` serves until the block ends. It runs in the caller's
    event loop; state outlives `stop()` and `start()`, which keep the port. Not made for production: one process,
    secrets are kept in clear, and whoever has the token may do everything (without `PlaneSettings.token`, everybody).
    Requests to another name, or of a page, are refused.
    """

    def __init__(self, settings: PlaneSettings | None = None, *, nats_url: str | None = None) -> None:
        """Create a plane. Without `nats_url`, nothing is published (HTTP only)."""
        super().__init__(settings, nats_url=nats_url)
        self.app: Final = build_app(self, route_table(self))
        """The routes as an ASGI application, for tests without a socket; see `finish_work`."""
        self._port = self.settings.port
        self._server: DevServer | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._changed = asyncio.Event()
        self.log.listen(lambda _: self._changed.set())

    # ── life ────────────────────────────────────────────────────────────────────────────────────

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start serving. Returns once requests are answered; the port is chosen at the first start and kept."""
        if self._server is not None:
            return
        # IPPROTO_TCP by name: asyncio turns Nagle off only then, and an answer in two writes would wait 40 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        self._port = int(listener.getsockname()[1])
        self.dispatcher.server_url = public_url = self.settings.public_url or self.url
        if self.nats_url is not None:
            chosen = self.settings
            stream = CommandStream(
                self.nats_url, stream=chosen.stream, subject=chosen.subject, storage=chosen.stream_storage
            )
            await stream.open()
            self.dispatcher.publisher = stream
        addresses = OwnAddresses.on_loopback(self._port, public_url)
        self._server = DevServer(OwnRequests(self.app, addresses, self.settings.token, token_file(self.url)))
        self._tasks = [
            asyncio.create_task(self._work_batches(), name="dev-plane-batches"),
            asyncio.create_task(self.reaper.run(), name="dev-plane-reaper"),
        ]
        await self._server.begin(listener)
        await self.dispatcher.flush()

    async def stop(self) -> None:
        """Stop serving and publishing. The state stays; `start()` brings the plane back on the same port."""
        server, self._server = self._server, None
        if server is None:
            return
        await server.end()
        await event_loop.end(*self._tasks)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        publisher, self.dispatcher.publisher = self.dispatcher.publisher, None
        if publisher is not None:
            await publisher.close()

    async def close(self) -> None:
        """Stop and close the store; the plane cannot be started again."""
        await self.stop()
        self.log.close()

    async def __aenter__(self) -> DevControlPlane:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _work_batches(self) -> None:
        while True:
            await self.batches.queued.wait()
            self.batches.queued.clear()
            await self.finish_work()

    # ── for tests ───────────────────────────────────────────────────────────────────────────────

    def register_playbook(self, content: str) -> CatalogEntry:
        """Put a playbook (YAML) into the catalog, unchecked; it is executed by its metadata.path."""
        return self.catalog.add(read_playbook(content).path, content)

    async def execute(
        self,
        path: str,
        payload: Mapping[str, JsonValue] | None = None,
        *,
        parent_execution_id: int | None = None,
        alone: StepAlone | None = None,
    ) -> int:
        """Start an execution of a registered playbook, or of one step; return its id. Raises KeyError for an unknown
        path.
        """
        entry = self.catalog.find(path=path)
        if entry is None:
            raise KeyError(path)
        playbook = self.catalog.playbook(entry)
        execution, _ = self.executions.begin(entry, playbook, payload or {}, parent_execution_id, alone)
        await self.dispatcher.flush()
        return execution.execution_id

    async def create_commands(
        self, commands: Iterable[RawCommand], *, one_execution: bool = True, publish: bool = True
    ) -> list[Issued]:
        """Issue commands without a playbook, in bulk (500 in some 20 ms).

        Args:
            one_execution: all in one execution, which ends when the last command has its result; else one each.
            publish: False leaves them without a notification (a lost publish).
        """
        execution: Execution | None = None
        issued: list[Issued] = []
        for command in commands:
            if execution is None or not one_execution:
                entry = self.catalog.find(path="raw") or self.catalog.add("raw", "{}")
                execution, _ = self.executions.begin(entry, None, {})
            issued.append(self._raw(execution, command))
        self.dispatcher.issue(issued, publish=publish)
        await self.dispatcher.flush()
        return issued

    def _raw(self, execution: Execution, command: RawCommand) -> Issued:
        context: dict[str, JsonValue] = {
            "tool_config": {} if command.tool_config is None else command.tool_config,
            "input": dict(command.input or {}),
        }
        if command.cases:
            context["cases"] = list(command.cases)
        if command.render_context is not None:
            context["render_context"] = dict(command.render_context)
        issued = self.form.raw(execution, command.step, command.action, context, self.log.ids)
        execution.open_commands[str(issued.command_id)] = command.step.partition(":")[0]
        return replace(issued, meta={**issued.meta, **(command.meta or {})})

    async def finish_work(self) -> None:
        """Process the queued batches and publish what follows; a started plane does this by itself."""
        self.batches.work_off()
        await self.dispatcher.flush()

    async def publish_again(self, event_id: int, *, as_text: bool = False) -> None:
        """Send a command's notification once more, as a reaper or a redelivery would."""
        self.dispatcher.requeue(self.command(event_id), as_text=as_text)
        await self.dispatcher.flush()

    def command(self, event_id: int) -> CommandRow:
        """Return the row of an issued command by its claim key. Raises KeyError."""
        row = self.log.command(event_id)
        if row is None:
            raise KeyError(event_id)
        return row

    def commands(self, execution_id: int) -> list[CommandRow]:
        return self.log.execution_commands(execution_id)

    def events(self, execution_id: int, *event_types: str) -> list[LoggedEvent]:
        """Return the events of an execution in id order, all or only the given types."""
        return self.log.events(execution_id, *event_types)

    def events_of_command(self, event_id: int, *event_types: str) -> list[LoggedEvent]:
        """Return the events that name one command, in id order."""
        row = self.command(event_id)
        return self.log.events(row.execution_id, *event_types, command_ref=row.command_ref)

    def execution(self, execution_id: int) -> Execution:
        """Return an execution. Raises KeyError."""
        found = self.executions.get(execution_id)
        if found is None:
            raise KeyError(execution_id)
        return found

    async def wait_until(self, predicate: Callable[[], bool], *, timeout_s: float | None = WAIT_S) -> None:
        """Wait until `predicate` holds; it is called again whenever an event is written.

        Raises TimeoutError after `timeout_s`; None waits for ever.
        """
        with anyio.move_on_after(timeout_s) as waiting:
            while not predicate():
                self._changed.clear()  # whom it has woken up already stays awake
                await self._changed.wait()
        if waiting.cancelled_caught and not predicate():
            raise TimeoutError(f"not within {timeout_s:g} s")

    async def wait_ended(self, execution_id: int, *, timeout_s: float | None = WAIT_S) -> str:
        """Wait for the end of an execution. Return COMPLETED, FAILED or CANCELLED; RUNNING if it stands still.

        Raises TimeoutError, KeyError.
        """
        execution = self.execution(execution_id)
        await self.wait_until(lambda: execution.is_at_rest, timeout_s=timeout_s)
        return execution.status

    async def wait_all_ended(self, *, timeout_s: float | None = WAIT_S) -> None:
        """Wait until every execution has ended or stands still. Raises TimeoutError."""
        await self.wait_until(
            lambda: all(execution.is_at_rest for execution in self.executions.all()), timeout_s=timeout_s
        )

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Stop the plane inside the block (connections are refused) and start it again afterwards."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()


class DevServer(uvicorn.Server):
    """A uvicorn server inside a running loop: it handles no signals, tells when it is up, and stops on request."""

    def __init__(self, app: ASGIApp, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Create a server that adds `headers` to every response."""
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        config.headers += headers
        super().__init__(config)
        self._is_up: Final = asyncio.Event()
        self._asked_to_stop: Final = asyncio.Event()

    async def begin(self, listener: socket.socket) -> None:
        self._serving = asyncio.create_task(self.serve(sockets=[listener]), name="dev-server")
        await self._is_up.wait()

    async def end(self) -> None:
        self.should_exit = True
        self._asked_to_stop.set()
        await self._serving

    async def main_loop(self) -> None:
        """Wait until the server has to stop; uvicorn's own loop would check ten times a second."""
        while not await self.on_tick(0):
            with anyio.move_on_after(0.1):
                await self._asked_to_stop.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._is_up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGINT and SIGTERM to the worker in the same process; handling them here would break its drain."""
        yield
