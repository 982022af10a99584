"""A whole house on one loop: a real nats-server, the development control plane, a real worker."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx
import nats
from nats.aio.client import Client
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from noetl_worker.authoring.dev.event_log import LoggedEvent
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models import Dialect
from noetl_worker.remote.plane.identity import Identity
from noetl_worker.settings.settings import load_settings
from noetl_worker.worker.worker import Worker
from patience import PATIENCE_S, until

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

TERMINAL = ("command.completed", "command.failed")
CLAIM = "POST /api/commands/{event_id}/claim"


def without_nats(version: str) -> Callable[[Request], Response | None]:
    """A fault: the health of a Rust plane that sends no commands over NATS (protocol/pools.md#subjects); the rest is
    recorded of 3.54.0."""
    health = {"status": "ok", "database": "connected", "nats": "removed", "uptime_seconds": 1, "version": version}
    return lambda request: JSONResponse(health) if request.url.path == "/api/health" else None


def noops(count: int) -> list[RawCommand]:
    return [RawCommand("noop") for _ in range(count)]


@dataclass
class House:
    nats: NatsServer
    plane: DevControlPlane
    workers: list[Worker] = field(default_factory=list)
    outbox: TemporaryDirectory[str] = field(default_factory=lambda: TemporaryDirectory(prefix="noetl-outbox-"))
    """Shared by the workers of this house, as by those of a machine; what a killed one leaves there stays here."""
    _running: dict[int, asyncio.Task[int]] = field(default_factory=dict)

    @property
    def addresses(self) -> dict[str, str]:
        """Variables of whoever asks this house."""
        return {"NATS_URL": self.nats.url, "NOETL_SERVER_URL": self.plane.url}

    @property
    def variables(self) -> dict[str, str]:
        """Of a worker in front of this house."""
        own = {"NOETL_WORKER_OUTBOX_DIR": self.outbox.name, "NOETL_WORKER_DRAIN_TIMEOUT_S": "5"}
        return {**self.addresses, **own, "WORKER_METRICS_BIND": ""}

    async def start_worker(self, tracer_provider: TracerProvider | None = None, **variables: str) -> Worker:
        settings, traces = load_settings({**self.variables, **variables}), None
        identity = Identity(settings)
        if tracer_provider is not None:
            from noetl_worker.pipeline.command.trace import DeliveryTraces

            traces = DeliveryTraces(tracer_provider, settings, identity.unique)
        worker = Worker(settings, identity=identity, traces=traces)
        running = asyncio.ensure_future(worker.run())
        ready = asyncio.ensure_future(worker.ready.wait())
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if running.done():
            running.result()
        self.workers.append(worker)
        self._running[id(worker)] = running
        return worker

    def run_of(self, worker: Worker) -> asyncio.Task[int]:
        """Its run, which is the test's to await from here on."""
        return self._running.pop(id(worker))

    async def stop_worker(self, worker: Worker) -> int:
        """Drain it; its exit code."""
        running = self.run_of(worker)
        if not running.done():
            worker.request_stop()
        return await running

    def outbox_rows(self) -> int:
        """Outcomes on disk, of all workers of this house, dead ones too."""
        total = 0
        for path in Path(self.outbox.name).glob("*.sqlite3"):
            with closing(sqlite3.connect(path)) as database, suppress(sqlite3.OperationalError):  # it is being made
                total += database.execute("SELECT count(*) FROM event_sets").fetchone()[0]
        return total

    async def close(self) -> None:
        for worker in self.workers:
            if id(worker) in self._running:
                await self.stop_worker(worker)
        self.outbox.cleanup()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A connection of the test's own."""
        client = await nats.connect(self.nats.url)
        try:
            yield client
        finally:
            await client.close()

    async def publish(
        self, data: bytes, subject: str = "noetl.commands", headers: dict[str, str] | None = None
    ) -> None:
        """Put raw bytes into the command stream."""
        async with self.client() as client:
            await client.jetstream().publish(subject, data, headers=headers)

    def notification(self, issued: IssuedCommand, **more: object) -> dict[str, Any]:
        """The body of one for this command, for whoever publishes it himself."""
        ids = {"execution_id": issued.execution_id, "event_id": issued.event_id, "command_id": issued.command_id}
        return {**ids, "step": issued.node, "server_url": self.plane.url, **more}

    async def dead_letters(self) -> list[dict[str, Any]]:
        async with self.client() as client:
            try:
                state = (await client.jsm().stream_info("NOETL_DEAD_LETTERS")).state
            except nats.js.errors.NotFoundError:
                return []
            numbers = range(max(state.first_seq, 1), state.last_seq + 1)  # both 0 in a new stream
            kept = [await client.jsm().get_msg("NOETL_DEAD_LETTERS", number) for number in numbers]
            return [json.loads(message.data or b"{}") for message in kept]

    async def wait_dead_letters(self, count: int) -> list[dict[str, Any]]:
        async def are_kept() -> bool:
            return len(await self.dead_letters()) == count

        await until(are_kept, f"{count} dead letters")
        return await self.dead_letters()

    async def unsettled(self) -> int:
        """Messages of the durable that are waiting or not acknowledged."""
        async with self.client() as client:
            info = await client.jsm().consumer_info("NOETL_COMMANDS", "noetl_worker")
            return int(info.num_pending or 0) + int(info.num_ack_pending or 0)

    async def ran(self, *commands: RawCommand) -> list[IssuedCommand]:
        """These commands, when each has a terminal event and JetStream has nothing waiting or unacknowledged."""
        issued = await self.plane.create_commands(commands)
        await self.wait_terminal(*(one.event_id for one in issued))
        await self.wait_settled()
        return issued

    async def stored_variables(self, execution_id: int) -> Any:
        """As the plane answers who asks for them."""
        async with httpx.AsyncClient(verify=False) as client:
            return (await client.get(f"{self.plane.url}/api/vars/{execution_id}")).json()

    def terminal_events(self, event_id: int) -> list[str]:
        return [event.event_type for event in self.plane.events_of_command(event_id, *TERMINAL)]

    def refuse_first_claims(self) -> None:
        """Each command is then delivered twice."""
        claims, refused = self.plane.claims, set[int]()
        claim = claims.claim

        def refusing(event_id: int, worker_id: str) -> Any:
            if event_id in refused:
                claims.release(event_id)
            else:
                claims.hold(event_id)
                refused.add(event_id)
            return claim(event_id, worker_id)

        claims.claim = refusing  # type: ignore[method-assign]

    async def wait_terminal(self, *event_ids: int) -> None:
        """Wait until each of these commands has a terminal event."""
        missing = {self.plane.command(one).command_ref for one in event_ids if not self.terminal_events(one)}

        def note(event: LoggedEvent) -> None:
            if event.event_type in TERMINAL and event.command_ref is not None:
                missing.discard(event.command_ref)

        forget = self.plane.log.listen(note)
        try:
            await self.plane.wait_until(lambda: not missing, timeout_s=PATIENCE_S)
        except TimeoutError:
            raise TimeoutError(f"no terminal event within {PATIENCE_S:g} s: {sorted(missing)}") from None
        finally:
            forget()

    async def wait_settled(self) -> None:
        """Wait until JetStream has nothing waiting or unacknowledged."""

        async def nothing() -> bool:
            return not await self.unsettled()

        await until(nothing, "nothing is waiting or unacknowledged", every_s=0.05)


@asynccontextmanager
async def house(
    dialect: Dialect = Dialect.PYTHON, *, plane: dict[str, Any] | None = None, worker: bool = True, **variables: str
) -> AsyncIterator[House]:
    """Everything up; a worker too unless `worker` is False. `variables` are the worker's environment."""
    async with (
        NatsServer() as server,
        DevControlPlane(PlaneSettings(dialect=dialect, **(plane or {})), nats_url=server.url) as control_plane,
    ):
        whole = House(server, control_plane)
        try:
            if worker:
                await whole.start_worker(**variables)
            yield whole
        finally:
            await whole.close()
