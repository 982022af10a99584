"""The product's worker as a simulated process: started, stopped, frozen, killed, and started again by a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from noetl_worker.errors import NoetlWorkerError
from noetl_worker.models import Dialect
from noetl_worker.pipeline.delivery.keepalive import Keepalive
from noetl_worker.settings.settings import Settings
from noetl_worker.tools.registry import Registry
from noetl_worker.worker.worker import Worker
from simulate import http_link, nats_link
from simulate.clock import STRAND, Process, VirtualLoop
from simulate.disk import SimOutbox
from simulate.http_link import HttpNetwork
from simulate.nats_link import NatsNetwork
from simulate.tool import SimulatedTool
from simulate.trace import Trace


class _Keepalive(Keepalive):
    """The keepalive thread as a second strand of its process, on the one virtual loop."""

    _running: asyncio.Task[Any] | None = None

    async def serve(self) -> None:
        strand = STRAND.get()
        assert strand is not None, "a keepalive outside of every process"
        self._running = strand.process.keepalive.spawn(self._guarded())
        await asyncio.wrap_future(self._serving)

    async def _guarded(self) -> None:
        try:
            await self._main()
        except Exception as error:
            waiting = [one for one in (self._serving, self._up) if not one.done()]
            for one in waiting:
                one.set_exception(error)
            if not waiting:
                raise

    def is_alive(self) -> bool:
        return self._running is not None and not self._running.done()

    async def stop(self) -> None:
        if self._running is not None and self._stop is not None:
            self._stop.set()
            await asyncio.wait({self._running}, timeout=5.0)


@contextlib.contextmanager
def seams(nats: NatsNetwork, http: HttpNetwork) -> Iterator[None]:
    """Inside, the product's own classes speak to the simulated servers: the only places where it meets the world."""
    transport = http_link.factory(http)
    with (
        mock.patch("noetl_worker.remote.jetstream.connection.Client", nats_link.factory(nats)),
        mock.patch("noetl_worker.worker.worker.open_transport", transport),
        mock.patch("noetl_worker.pipeline.delivery.keepalive.open_transport", transport),
        mock.patch("noetl_worker.worker.worker.Keepalive", _Keepalive),
        mock.patch("noetl_worker.worker.worker.Outbox", SimOutbox),
    ):
        yield


class WorkerProcess:
    """One life of one worker: from its start to its exit or its death."""

    def __init__(
        self, name: str, loop: VirtualLoop, settings: Settings, trace: Trace, on_run: Callable[[Process, str], None]
    ) -> None:
        self.process = Process(name, loop)
        self.worker_id = ""
        self.worker: Worker | None = None
        self.exit: int | str | None = None
        self.ended_at = math.inf
        """Of one that was killed while it was frozen, when it last ran: it has written nothing since."""
        self._frozen_at = math.inf
        self._stops = 0
        self._loop = loop
        self._settings = settings
        self._trace = trace
        self._on_run = on_run
        self.life = self.process.main.spawn(self._live())

    @property
    def is_over(self) -> bool:
        return self.exit is not None or self.process.is_dead

    @property
    def is_stopped_hard(self) -> bool:
        return self._stops >= 2

    async def _live(self) -> None:
        registry = Registry([SimulatedTool(self._on_run)], plugins=False)
        self.worker = Worker(self._settings, registry=registry)
        self.worker_id = self.worker.identity.name_for(Dialect(self._settings.control_plane))
        self._trace.note(self.process.name, f"starts as {self.worker_id}")
        for _ in range(self._stops):  # it was told before it had begun
            self.worker.request_stop()
        try:
            self.exit = await self.worker.run()
        except NoetlWorkerError as error:
            self.exit = f"{type(error).__name__}: {error}"
        self.ended_at = self._loop.time()
        self._trace.note(self.process.name, f"exits: {self.exit}")

    def stop(self) -> None:
        """SIGTERM; never a third one, which would end the simulation with the worker."""
        if not self.is_over and self._stops < 2:
            self._stops += 1
            if self.worker is not None:
                self.worker.request_stop()

    def kill(self) -> None:
        """SIGKILL: nothing that it does from now on reaches anybody."""
        self.process.is_dead, self.ended_at = True, min(self.ended_at, self._frozen_at, self._loop.time())
        if self.worker is not None and isinstance(self.worker.outbox, SimOutbox):
            self.worker.outbox.die()
        self.thaw()
        for task in list(self.process.tasks):
            task.cancel()

    def freeze(self, *, whole: bool) -> None:
        """SIGSTOP; or only the main thread, as a tool does that blocks the loop."""
        self._frozen_at = min(self._frozen_at, self._loop.time())
        self.process.main.is_frozen = True
        self.process.keepalive.is_frozen = whole

    def thaw(self) -> None:
        self._frozen_at = math.inf
        self._loop.thaw(self.process.main)
        self._loop.thaw(self.process.keepalive)
