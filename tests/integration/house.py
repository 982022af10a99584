"""A whole house on one loop: a real nats-server, the development control plane, a real worker."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from noetl_worker.dev.event_log import LoggedEvent
from noetl_worker.dev.nats_server import NatsServer
from noetl_worker.dev.plane import DevControlPlane, RawCommand
from noetl_worker.dev.settings import PlaneSettings
from noetl_worker.models import Dialect
from noetl_worker.plane.identity import Identity
from noetl_worker.settings.settings import load_settings
from noetl_worker.worker import Worker
from patience import PATIENCE_S, until

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

TERMINAL = ("command.completed", "command.failed")
CLAIM = "POST /api/commands/{event_id}/claim"


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

    async def start_worker(self, tracer_provider: TracerProvider | None = None, **variables: str) -> Worker:
        environment = {
            "NATS_URL": self.nats.url,
            "NOETL_SERVER_URL": self.plane.url,
            "WORKER_METRICS_BIND": "",
            "NOETL_WORKER_DRAIN_TIMEOUT_S": "5",
            "NOETL_WORKER_OUTBOX_DIR": self.outbox.name,
            **variables,
        }
        settings, traces = load_settings(environment), None
        identity = Identity(settings)
        if tracer_provider is not None:
            from noetl_worker.command.trace import DeliveryTraces

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

    async def publish(self, data: bytes, subject: str = "noetl.commands") -> None:
        """Put raw bytes into the command stream."""
        import nats

        client = await nats.connect(self.nats.url)
        try:
            await client.jetstream().publish(subject, data)
        finally:
            await client.close()

    async def dead_letters(self) -> list[dict[str, Any]]:
        import json

        import nats

        client = await nats.connect(self.nats.url)
        try:
            info = await client.jsm().stream_info("NOETL_DEAD_LETTERS")
            found = []
            for sequence in range(max(info.state.first_seq, 1), info.state.last_seq + 1):  # both 0 in a new stream
                message = await client.jsm().get_msg("NOETL_DEAD_LETTERS", sequence)
                found.append(json.loads(message.data or b"{}"))
            return found
        except nats.js.errors.NotFoundError:
            return []
        finally:
            await client.close()

    async def unsettled(self) -> int:
        """Messages of the durable that are waiting or not acknowledged."""
        import nats

        client = await nats.connect(self.nats.url)
        try:
            info = await client.jsm().consumer_info("NOETL_COMMANDS", "noetl_worker")
            return int(info.num_pending or 0) + int(info.num_ack_pending or 0)
        finally:
            await client.close()

    def terminal_events(self, event_id: int) -> list[str]:
        return [event.event_type for event in self.plane.events_of_command(event_id, *TERMINAL)]

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
        NatsServer() as nats,
        DevControlPlane(PlaneSettings(dialect=dialect, **(plane or {})), nats_url=nats.url) as control_plane,
    ):
        whole = House(nats, control_plane)
        try:
            if worker:
                await whole.start_worker(**variables)
            yield whole
        finally:
            await whole.close()
