"""A coordinator of upstream's feed as it was recorded: it waits, assigns, and gives again after ack_wait."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from bridge.feed import body_of, framed
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.settings.nats import covers
from patience import until

_HEARTBEAT = framed(b'{"heartbeat":true}')


class Coordinator:
    """One shard. `async with` serves it; what was acknowledged is in memory alone, as in the recorded snapshot.

    Args:
        is_later: it has heartbeats, and gives each record a number of its own as `global_sequence`. The recorded
            snapshot does neither.
    """

    def __init__(self, *, ack_wait_s: float = 30.0, is_later: bool = True, shard: int = 0) -> None:
        self.port = free_port()
        self.ack_wait_s, self.is_later, self.shard = ack_wait_s, is_later, shard
        self.log: list[dict[str, Any]] = []
        self.acknowledged: set[int] = set()
        """`global_sequence` of the records, as the server published them."""
        self.requests: list[bytes] = []
        self.redelivered = 0
        self.ack_delay_s = 0.0
        self.is_hanging = False
        self._assigned: dict[int, float] = {}
        """When a record was assigned, by its place in the log."""
        self._places: dict[int, int] = {}
        self._cursor = 0
        self._appended = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add what the server publishes to the writer."""
        for record in records:
            self.log.append(record)
            self._places[self._key(len(self.log) - 1)] = len(self.log) - 1
        self._appended.set()

    async def __aenter__(self) -> Coordinator:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serve; after a stop at the same port, which another test may have taken meanwhile."""

        async def is_served() -> bool:
            with suppress(OSError):
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
                return True
            return False

        await until(is_served, f"port {self.port} of 127.0.0.1")

    async def stop(self) -> None:
        """End as a process does; everything is given out again from the first record on."""
        assert self._server is not None
        self._server.close()
        for writer, serving in list(self._connections.items()):
            writer.transport.abort()
            if serving is not None:  # else it gives a record of the next process to nobody
                serving.cancel()
        self._assigned.clear()
        self._cursor = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[writer] = asyncio.current_task()
        try:
            with suppress(OSError, asyncio.IncompleteReadError, RuntimeError):
                is_heard = not self.is_later
                while True:
                    body = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
                    self.requests.append(body)
                    await until(lambda: not self.is_hanging, "the end of the hang")
                    request = json.loads(body)
                    if "Next" in request:
                        if not is_heard:
                            writer.write(_HEARTBEAT)  # once for a connection, whether it has to wait or not
                            is_heard = True
                        await self._next(request["Next"], writer)
                    else:
                        await self._acknowledge(request["Ack"]["sort_key"], writer)
        finally:
            del self._connections[writer]
            writer.close()

    async def _acknowledge(self, key: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.ack_delay_s)
        place = self._places[key]
        self.acknowledged.add(self.log[place]["global_sequence"])
        self._assigned.pop(place, None)
        writer.write(framed(b"1"))

    async def _next(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Wait, whatever becomes of the client: what it gets then nobody has until ack_wait is over."""
        beat_s = asked["heartbeat_ms"] / 1000 if self.is_later else math.inf
        beat_at = time.monotonic() + beat_s
        while True:
            found = None if self.is_hanging else self._fitting(asked["filter"])
            if found is not None:
                place, is_again = found
                self._assigned[place] = time.monotonic()
                self.redelivered += is_again
                record = {**self.log[place], "global_sequence": self._key(place)}
                fields = {"sort_key": self._key(place), "redelivered": is_again, "record": record}
                writer.write(framed(body_of(fields)))
                return
            if not self.is_hanging and time.monotonic() >= beat_at:
                beat_at = time.monotonic() + beat_s
                writer.write(_HEARTBEAT)
            self._appended.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._appended.wait(), 0.02)

    def _key(self, place: int) -> int:
        return place + 1 if self.is_later else int(self.log[place]["global_sequence"])

    def _fitting(self, filter_: str) -> tuple[int, bool] | None:
        now = time.monotonic()
        for place, since in self._assigned.items():
            if now - since > self.ack_wait_s and self._fits(self.log[place], filter_):
                return place, True
        if self._cursor < len(self.log) and self._fits(self.log[self._cursor], filter_):  # the tests have one pool
            self._cursor += 1
            return self._cursor - 1, False
        return None

    def _fits(self, record: dict[str, Any], filter_: str) -> bool:
        pool = json.loads(record["payload"]).get("execution_pool") or "shared"
        return covers(filter_, f"commands.{pool}.shard.{self.shard}")
