"""Commands for one side, the worker or the yardstick: published, waited for until all are acknowledged, and counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, Final

import httpx
import nats
import orjson

from noetl_worker.authoring.dev.nats_server import CommandStream
from stub_plane import EXECUTION_ID, Answers

_LOOK_S: Final = 0.02
_VOLLEY: Final = 500
_BESIDE_COMMANDS: Final = ("pool", "probe")
"""What the stub plane is asked by time and not by command."""


@dataclass(frozen=True)
class Sent:
    """One load that has come to its end."""

    commands: int
    seconds: float
    """From the first claim to the last end, as the plane saw them."""
    requests: Mapping[str, int]
    tool_starts_ms: Sequence[float]
    """From the publication to the start of the tool, where the kind tells it."""
    spans_ms: Sequence[float]
    """From the first claim of each command to its end, as the plane saw them."""

    @property
    def requests_per_command(self) -> float:
        asked = sum(number for name, number in self.requests.items() if name not in _BESIDE_COMMANDS)
        return asked / self.commands


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and the largest."""
    ordered = sorted(values)
    found = {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 90, 99)}
    return {**found, "max": ordered[-1]}


class Load:
    """Publishes to one stream, of which `durable` is the only reader."""

    _ids = count(time.time_ns() // 1_000_000 * 1_000_000)
    """Of all loads: no plane and no worker has seen such a command before."""

    def __init__(self, nats_url: str, stub_url: str, *, stream: str, subject: str, durable: str) -> None:
        self.stream: Final = stream
        self.subject: Final = subject
        self._durable: Final = durable
        self._nats_url: Final = nats_url
        self._stub_url: Final = stub_url
        self.check: Callable[[], None] = lambda: None
        """Raises when the process that works off the stream is gone."""
        self._commands = CommandStream(nats_url, stream=stream, subject=subject)
        self._stub = httpx.AsyncClient(base_url=stub_url, trust_env=False)

    async def open(self) -> None:
        await self._commands.open()
        self._connection = await nats.connect(self._nats_url)

    async def close(self) -> None:
        await self._commands.close()
        await self._connection.close()
        await self._stub.aclose()

    async def send(
        self, answers: Answers, commands: int, *, rate: float | None = None, timeout_s: float = 120.0
    ) -> Sent:
        """Send so many commands, at once or at `rate` a second.

        Raises:
            TimeoutError: they have not all ended in time; it says how far it came.
            RuntimeError: some failed, or the process is gone.
        """
        await self._stub.post("/__reset", content=orjson.dumps(asdict(answers)))
        published = await self._publish(commands, rate)  # nothing is looked at meanwhile: it takes the same cores
        deadline = time.monotonic() + timeout_s
        while (stats := await self.stats())["done"] < commands or await self._is_something_left():
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{stats['done']} of {commands} commands in {timeout_s:g} s: {stats}")
            await asyncio.sleep(_LOOK_S)
        if failed := stats["events"].get("command.failed"):
            raise RuntimeError(f"{failed} of {commands} commands failed: what they cost says nothing")
        starts = (await self._stub.get("/__starts")).json()
        waits_ms = [(starts[one] - at) * 1000 for one, at in published.items() if one in starts]
        spans_ms = [seconds * 1000 for seconds in (await self._stub.get("/__spans")).json()]
        return Sent(commands, stats["last_end_at"] - stats["first_claim_at"], stats["requests"], waits_ms, spans_ms)

    async def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self._stub.get("/__stats")).json()
        return found

    async def _publish(self, commands: int, rate: float | None) -> dict[str, float]:
        """When each was published, by its id."""
        published: dict[str, float] = {}
        begun, volley = time.monotonic(), 1 if rate else _VOLLEY
        for first in range(0, commands, volley):
            if rate:
                await asyncio.sleep(max(0.0, begun + first / rate - time.monotonic()))
            messages = []
            for _ in range(min(volley, commands - first)):
                event_id = next(self._ids)
                messages.append((self.subject, self._notification(event_id)))
                published[str(event_id)] = time.monotonic()
            if not await self._commands.publish(messages):
                raise RuntimeError("nats-server did not take the notifications")
        return published

    def _notification(self, event_id: int) -> bytes:
        return orjson.dumps(
            {
                "execution_id": EXECUTION_ID,
                "event_id": event_id,
                # a number: text is what a reaper publishes again (protocol/notification.md#message)
                "command_id": event_id,
                "step": "s",
                "server_url": self._stub_url,
            }
        )

    async def _is_something_left(self) -> bool:
        """Whether a message is not acknowledged yet: the CPU of that belongs to the command."""
        reader = await self._connection.jetstream().consumer_info(self.stream, self._durable)
        return bool(reader.num_pending or reader.num_ack_pending)
