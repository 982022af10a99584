"""A coordinator of upstream's feed as it was recorded: it waits, assigns, and gives again after ack_wait."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from bridge.feed import body_of, framed
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.settings.nats import covers
from patience import until


class Coordinator:
    """One shard. `async with` serves it; what was acknowledged is in memory alone, as in the recorded snapshot."""

    def __init__(self, *, ack_wait_s: float = 30.0, has_heartbeats: bool = True, shard: int = 0) -> None:
        self.port = free_port()
        self.ack_wait_s, self.has_heartbeats, self.shard = ack_wait_s, has_heartbeats, shard
        self.log: list[dict[str, Any]] = []
        self.acknowledged: set[int] = set()
        self.requests: list[bytes] = []
        self.redelivered = 0
        self.ack_delay_s = 0.0
        self.is_hanging = False
        self._assigned: dict[int, float] = {}
        self._cursor = 0
        self._appended = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add what the server publishes to the writer."""
        self.log += records
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
        for writer in list(self._writers):
            writer.transport.abort()
        self._assigned.clear()
        self._cursor = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, RuntimeError):
                while True:
                    body = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
                    self.requests.append(body)
                    request = json.loads(body)
                    if "Next" in request:
                        await self._next(request["Next"], writer)
                    else:
                        await self._acknowledge(request["Ack"]["sort_key"], writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _acknowledge(self, key: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.ack_delay_s)
        self.acknowledged.add(key)
        self._assigned.pop(key, None)
        writer.write(framed(b"1"))

    async def _next(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Wait, whatever becomes of the client: what it gets then nobody has until ack_wait is over."""
        beats_s = asked.get("heartbeat_ms", 0) / 1000 if self.has_heartbeats else 0.0
        beat_at = 0.0
        while True:
            found = None if self.is_hanging else self._fitting(asked["filter"])
            if found is not None:
                record, is_again = found
                self._assigned[record["global_sequence"]] = time.monotonic()
                self.redelivered += is_again
                fields = {"sort_key": record["global_sequence"], "redelivered": is_again, "record": record}
                writer.write(framed(body_of(fields)))
                return
            if beats_s and not self.is_hanging and time.monotonic() >= beat_at:
                beat_at = time.monotonic() + beats_s
                writer.write(framed(b'{"heartbeat":true}'))
            self._appended.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._appended.wait(), 0.02)

    def _fitting(self, filter_: str) -> tuple[dict[str, Any], bool] | None:
        now = time.monotonic()
        late = [key for key, since in self._assigned.items() if now - since > self.ack_wait_s]
        by_key = {record["global_sequence"]: record for record in self.log} if late else {}
        for key in late:
            if self._fits(by_key[key], filter_):
                return by_key[key], True
        while self._cursor < len(self.log):
            record = self.log[self._cursor]
            if not self._fits(record, filter_):
                return None  # the tests have one pool
            self._cursor += 1
            return record, False
        return None

    def _fits(self, record: dict[str, Any], filter_: str) -> bool:
        pool = json.loads(record["payload"]).get("execution_pool") or "shared"
        return covers(filter_, f"commands.{pool}.shard.{self.shard}")
