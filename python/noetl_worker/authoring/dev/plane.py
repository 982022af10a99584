"""The development control plane: a stand-in for the real control planes, in one process and with its data in memory."""

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
from noetl_worker.authoring.dev.nats_server import CommandStream
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.orchestration.playbook import read_playbook
from noetl_worker.authoring.dev.orchestration.step_alone import StepAlone
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
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
    """A command without a playbook, for tests and benchmarks. The fields are named as in a claim's HTTP answer."""

    action: str = "noop"
    tool_config: JsonValue = None
    """The tool's config; None means an empty config. On the Rust plane, the config of a list of tasks is a list."""
    input: Mapping[str, JsonValue] | None = None
    cases: Sequence[JsonValue] = ()
    render_context: Mapping[str, JsonValue] | None = None
    step: str = "start"
    meta: Mapping[str, JsonValue] | None = None
    """Fields that are added to the command's meta."""


class DevControlPlane(PlaneState):
    """A control plane for development and tests, on loopback.

    `async with DevControlPlane(nats_url=server.url) as plane:` serves until the block ends, in the caller's event loop.
    After `stop()`, `start()` serves the same data on the same port. The plane is not made for production: it has one
    process, stores secrets in clear text, and lets everybody with the token do everything. If `PlaneSettings.token` is
    empty, nobody needs a token. The plane refuses requests to other host names and requests from web pages.
    """

    def __init__(self, settings: PlaneSettings | None = None, *, nats_url: str | None = None) -> None:
        """Create a plane. Without `nats_url`, no notifications are published."""
        super().__init__(settings, nats_url=nats_url)
        self.app: Final = build_app(self, route_table(self))
        """The routes as an ASGI application. A test can use the application without a socket, and then calls
        `finish_work` itself."""
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
        """Start serving, and return when requests are answered. A later start uses the same port."""
        if self._server is not None:
            return
        # Without IPPROTO_TCP here, asyncio leaves Nagle's algorithm on, and an answer in two writes takes 40 ms.
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
        """Stop serving and publishing. The data stay in memory, and `start()` serves them on the same port."""
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
        """Stop serving and delete the data; the plane cannot be started again."""
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
        """Add a playbook, given as YAML, to the catalog without a check. The playbook's path is its `metadata.path`."""
        return self.catalog.add(read_playbook(content).path, content)

    async def execute(
        self,
        path: str,
        payload: Mapping[str, JsonValue] | None = None,
        *,
        parent_execution_id: int | None = None,
        alone: StepAlone | None = None,
    ) -> int:
        """Start an execution of a registered playbook. Return the execution's id. Raises KeyError for an unknown path.

        Args:
            payload: values that win over the playbook's workload.
            alone: the only step to run; None: the whole playbook.
        """
        entry = self.catalog.find(path=path)
        if entry is None:
            raise KeyError(path)
        execution, _ = self.executions.begin(entry, payload or {}, parent_execution_id, alone)
        await self.dispatcher.flush()
        return execution.execution_id

    async def create_commands(
        self, commands: Iterable[RawCommand], *, one_execution: bool = True, publish: bool = True
    ) -> list[IssuedCommand]:
        """Issue commands that belong to no playbook. 500 commands take about 20 ms.

        Args:
            one_execution: True puts all commands into one execution, which ends when each command has a result. False
                makes an execution for each command.
            publish: False publishes no notifications, as if they had been lost.
        """
        execution: Execution | None = None
        issued: list[IssuedCommand] = []
        for command in commands:
            if execution is None or not one_execution:
                entry = self.catalog.find(path="raw") or self.catalog.add("raw", "{}")
                execution = self.executions.open(entry, {})
            issued.append(self._raw(execution, command))
        self.dispatcher.issue(issued, publish=publish)
        await self.dispatcher.flush()
        return issued

    def _raw(self, execution: Execution, command: RawCommand) -> IssuedCommand:
        context: dict[str, JsonValue] = {
            "tool_config": {} if command.tool_config is None else command.tool_config,
            "input": dict(command.input or {}),
        }
        if command.cases:
            context["cases"] = list(command.cases)
        if command.render_context is not None:
            context["render_context"] = dict(command.render_context)
        issued = self.rules.raw(execution, command.step, command.action, context, self.log.ids)
        execution.open_commands[str(issued.command_id)] = command.step.partition(":")[0]
        return replace(issued, meta={**issued.meta, **(command.meta or {})})

    async def finish_work(self) -> None:
        """Process the queued batches of events, and publish the commands that follow.

        A started plane does this itself in the background. A test calls this method if it has not started the plane.
        """
        self.batches.work_off()
        await self.dispatcher.flush()

    async def publish_again(self, event_id: int, *, as_text: bool = False) -> None:
        """Publish a command's notification once more, as the plane's reaper does if no worker runs the command.

        Args:
            as_text: write the command_id as text, as the Python plane's reaper does.
        """
        self.dispatcher.requeue(self.command(event_id), as_text=as_text)
        await self.dispatcher.flush()

    def command(self, event_id: int) -> CommandRow:
        """Return the row of an issued command by the id of its `command.issued` event. Raises KeyError."""
        row = self.log.command(event_id)
        if row is None:
            raise KeyError(event_id)
        return row

    def commands(self, execution_id: int) -> list[CommandRow]:
        return self.log.execution_commands(execution_id)

    def events(self, execution_id: int, *event_types: str) -> list[LoggedEvent]:
        """Return the events of an execution in the order of their ids.

        Args:
            event_types: types of the events to return; without types, events of all types are returned.
        """
        return self.log.events(execution_id, *event_types)

    def events_of_command(self, event_id: int, *event_types: str) -> list[LoggedEvent]:
        """Return the events that name one command, in the order of their ids.

        Args:
            event_id: id of the command's `command.issued` event.
        """
        row = self.command(event_id)
        return self.log.events(row.execution_id, *event_types, command_ref=row.command_ref)

    def execution(self, execution_id: int) -> Execution:
        """Return an execution. Raises KeyError for an unknown id."""
        found = self.executions.get(execution_id)
        if found is None:
            raise KeyError(execution_id)
        return found

    async def wait_until(self, predicate: Callable[[], bool], *, timeout_s: float | None = WAIT_S) -> None:
        """Wait until `predicate` returns True. `predicate` is called again after each new event.

        Args:
            timeout_s: seconds after which TimeoutError is raised; None: never.
        """
        with anyio.move_on_after(timeout_s) as waiting:
            while not predicate():
                self._changed.clear()  # a task that `_changed` has already woken still goes on
                await self._changed.wait()
        if waiting.cancelled_caught and not predicate():
            raise TimeoutError(f"the plane did not reach the awaited state in {timeout_s:g} s: raise timeout_s")

    async def wait_ended(self, execution_id: int, *, timeout_s: float | None = WAIT_S) -> str:
        """Wait until nothing more happens in an execution, and return its status.

        The status is COMPLETED, FAILED or CANCELLED, or RUNNING for an execution that is stuck: it never ends. Raises
        TimeoutError after `timeout_s` seconds, and KeyError for an unknown execution.
        """
        execution = self.execution(execution_id)
        await self.wait_until(lambda: execution.is_at_rest, timeout_s=timeout_s)
        return execution.status

    async def wait_all_ended(self, *, timeout_s: float | None = WAIT_S) -> None:
        """Wait until nothing more happens in any execution. Raises TimeoutError after `timeout_s` seconds."""
        await self.wait_until(
            lambda: all(execution.is_at_rest for execution in self.executions.all()), timeout_s=timeout_s
        )

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Stop the plane during the block, so that connections are refused, and start it again after the block."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()


class DevServer(uvicorn.Server):
    """A uvicorn server that runs in the caller's event loop and leaves signals to the caller."""

    def __init__(self, app: ASGIApp, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Create a server that adds `headers` to every response."""
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        config.headers += headers
        super().__init__(config)
        self._is_up: Final = asyncio.Event()
        self._asked_to_stop: Final = asyncio.Event()

    async def begin(self, listener: socket.socket) -> None:
        """Start serving on a listening socket, and return when requests are answered."""
        self._serving = asyncio.create_task(self.serve(sockets=[listener]), name="dev-server")
        await self._is_up.wait()

    async def end(self) -> None:
        self.should_exit = True
        self._asked_to_stop.set()
        await self._serving

    async def main_loop(self) -> None:
        """Run uvicorn's periodic tasks, such as updating the `Date` header, every 100 ms until `end` is called."""
        while not await self.on_tick(0):
            with anyio.move_on_after(0.1):
                await self._asked_to_stop.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._is_up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGINT and SIGTERM to the worker in the same process, which shuts down gracefully on these signals."""
        yield
