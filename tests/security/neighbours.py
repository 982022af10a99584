"""A worker process under attack, and commands of others beside it: what the attack costs them.

`async with neighbourhood(directory) as street: toll = await street.run_beside([RawCommand(...), ...])`
"""

from __future__ import annotations

import asyncio
import os
import socketserver
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

import holds
from integration.house import House, house, noops
from integration.processes import PROBES, WorkerProcess, worker_process
from noetl_worker.authoring.dev.plane import RawCommand

_EVERY_S: Final = 0.1
"""A command of somebody else begins so often."""
_FIGURES: Final = "NEIGHBOURS_RECORD"
"""Variable: a file that what is measured is appended to, for the table in docs/attacks.md."""


@dataclass(frozen=True)
class Toll:
    """What an attack cost."""

    errors: list[str | None]
    """What each command of the attack failed with; None: it succeeded."""
    lag_s: float
    """The longest time that the loop of the worker did not turn."""
    wait_s: float
    """The longest time that a command of others took."""
    livez_s: float
    """The longest time until `/livez` answered 200."""
    memory_mb: float
    """The most memory of the worker's process."""

    def require(self, *, memory_mb: float) -> None:
        """The memory always, times where a run has the machine to itself."""
        assert self.memory_mb < memory_mb, self
        if holds.HOLDS_TIMES:
            assert self.lag_s < 0.5, self
            assert self.livez_s < 0.5, self
            assert self.wait_s < 5, self


@dataclass
class Street:
    home: House
    worker: WorkerProcess
    beats: Path
    port: int

    async def run_beside(self, attack: Iterable[RawCommand], name: str) -> Toll:
        """Run an attack, and a command of others every 100 ms until it is over."""
        began = time.monotonic()
        issued = await self.home.plane.create_commands(list(attack))
        attacked = asyncio.ensure_future(self.home.wait_terminal(*(one.event_id for one in issued)))
        others: list[asyncio.Task[float]] = []
        with self._livez_asked() as asked:
            while not attacked.done():
                others.append(asyncio.ensure_future(self._other()))
                await asyncio.wait({attacked}, timeout=_EVERY_S)
            waits = await asyncio.gather(*others)
            await attacked
        lags = [line.split() for line in self.beats.read_text(encoding="ascii").splitlines()]
        toll = Toll(
            [self._error(one.event_id) for one in issued],
            max((float(lag) for ended, lag in lags if float(ended) > began), default=0.0),
            max(waits),
            max(asked),
            self.worker.memory_mb()[1],
        )
        if figures := os.environ.get(_FIGURES):
            line = f"{name}|{toll.lag_s:.2f}|{toll.wait_s:.1f}|{toll.livez_s:.2f}|{toll.memory_mb:.0f}|{toll.errors[0]}"
            with await asyncio.to_thread(Path(figures).open, "a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        return toll

    async def _other(self) -> float:
        began = time.monotonic()
        [issued] = await self.home.plane.create_commands(noops(1))
        await self.home.wait_terminal(issued.event_id)
        return time.monotonic() - began

    def _error(self, event_id: int) -> str | None:
        events = self.home.plane.events_of_command(event_id, "command.failed")
        return events[0].error or str(events[0].result)[:1000] if events else None

    @contextmanager
    def _livez_asked(self) -> Iterator[list[float]]:
        """Asked by a thread of its own; in the end at least once."""
        took: list[float] = []
        is_over = threading.Event()

        def ask() -> None:
            with httpx.Client(trust_env=False, timeout=60) as client:
                while not (is_over.wait(0.05) and took):
                    began = time.monotonic()
                    assert client.get(f"http://127.0.0.1:{self.port}/livez").status_code == 200
                    took.append(time.monotonic() - began)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield took
        finally:
            is_over.set()
            thread.join()


@asynccontextmanager
async def neighbourhood(directory: Path, first: RawCommand, **variables: str) -> AsyncIterator[Street]:
    """A worker that has run commands, and loaded what `first` needs, on a plane with nothing else to do."""
    beats = directory / "beats"
    more = {"NOETL_WORKER_ENVIRONMENT_KEPT": "FAULTS_*", "FAULTS_BEAT": str(beats), **PROBES, **variables}
    async with house(worker=False) as home, worker_process(home, directory, **more) as worker:
        await home.ran(*noops(2), first)
        yield Street(home, worker, beats, (await worker.probe()).port)


@contextmanager
def answering(send: Callable[[Any], None]) -> Iterator[str]:
    """The address of a server, in threads, that reads a request and then does this with the connection."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.request.recv(65_536)
                send(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
