"""A publisher as the recorded control plane is one: frames, many in flight, everything unacknowledged sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.js.errors import NotFoundError

from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.bridge.address import FeedAddress
from noetl_worker.bridge.bridge import Bridge, BridgeOptions
from noetl_worker.settings.settings import load_settings
from patience import PATIENCE_S

SAMPLES = Path(__file__).parents[1] / "compat/samples/rust-plane-3.83"
_ACK_BYTES = 8


def recorded(name: str) -> list[dict[str, Any]]:
    """The lines of a recording."""
    return [json.loads(line) for line in (SAMPLES / name).read_text(encoding="utf-8").splitlines()]


def published() -> list[dict[str, Any]]:
    """The recorded publishes of server 3.83.1, each with its record, subject and acknowledgement."""
    return [line for line in recorded("publish-frames.jsonl") if line.get("event") == "publish"]


def body_of(record: dict[str, Any]) -> bytes:
    """A record as the server writes it (serde_json: no blanks)."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def command(number: int, *, pool: str | None = "shared", **more: object) -> dict[str, Any]:
    """The record of a made-up command, in the recorded form."""
    execution_id, event_id = 386250000000000000 + number // 10, 386260000000000000 + number
    notification = {
        "command_id": f"{execution_id}:start:{event_id}",
        "event_id": event_id,
        "execution_id": execution_id,
        **({"execution_pool": pool} if pool is not None else {}),
        "server_url": "http://127.0.0.1:25083",
        "step": "start",
        **more,
    }
    return record_of(notification)


def record_of(notification: dict[str, Any]) -> dict[str, Any]:
    """The record that the server makes of a notification."""
    payload = json.dumps(notification, separators=(",", ":"))
    ids = {"global_sequence": notification["event_id"], "execution_id": str(notification["execution_id"])}
    return {**ids, "transaction_id": "", "payload": payload}


@dataclass
class Publisher:
    """One control plane. `port` is asked for at each connect: the bridge may be another one by then."""

    port: Callable[[], int]
    window: int = 64
    """Records that are sent before the first of them is acknowledged."""
    lose_ack_of: set[int] = field(default_factory=set)
    """Numbers of records whose acknowledgement is lost with its connection, once each."""
    connects: int = 0
    acknowledged: list[int] = field(default_factory=list)

    async def publish(self, records: Iterable[dict[str, Any]]) -> None:
        """Send them until each is acknowledged; asserts the order and the bytes of the acknowledgements."""
        left = list(records)
        async with asyncio.timeout(PATIENCE_S):
            while left:
                with suppress(OSError, asyncio.IncompleteReadError):
                    await self._connection(left)
                await asyncio.sleep(0.02)

    async def _connection(self, left: list[dict[str, Any]]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port())
        self.connects += 1
        sent = 0
        try:
            while left:
                while sent < min(self.window, len(left)):
                    writer.write(framed(body_of(left[sent])))
                    sent += 1
                await writer.drain()
                answer = int.from_bytes(await reader.readexactly(_ACK_BYTES), "big")
                assert answer == left[0]["global_sequence"], "acknowledgements in the order of the frames"
                if answer in self.lose_ack_of:
                    self.lose_ack_of.discard(answer)
                    return
                self.acknowledged.append(answer)
                del left[0]
                sent -= 1
        finally:
            writer.transport.abort()


@asynccontextmanager
async def bridging(
    url: str, options: BridgeOptions | None = None, *, publish_port: int = 0, **variables: str
) -> AsyncIterator[Bridge]:
    """A bridge on this loop, which takes records when the block begins. Drained at its end."""
    settings = load_settings({"NATS_URL": url, "WORKER_METRICS_BIND": "127.0.0.1:0", **variables})
    bridge = Bridge(settings, options or BridgeOptions(publish=FeedAddress("127.0.0.1", publish_port)))
    running = asyncio.ensure_future(bridge.run())
    ready = asyncio.ensure_future(bridge.ready.wait())
    try:
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield bridge
    finally:
        ready.cancel()
        if not running.done():
            bridge.request_stop()
        await running


@dataclass(frozen=True)
class StoredCommand:
    subject: str
    data: bytes
    message_id: str | None


async def stored(server: NatsServer, stream: str = "NOETL_COMMANDS") -> list[StoredCommand]:
    """All that the stream of commands has."""
    client = await nats.connect(server.url)
    try:
        jetstream = client.jetstream()
        try:
            state = (await jetstream.stream_info(stream)).state
        except NotFoundError:
            return []
        if not state.messages:
            return []
        pulled = await jetstream.pull_subscribe("", stream=stream, config=nats.js.api.ConsumerConfig(ack_policy="none"))
        found = []
        while len(found) < state.messages:
            found += await pulled.fetch(min(500, state.messages - len(found)), timeout=10)
        return [StoredCommand(one.subject, one.data, (one.headers or {}).get("Nats-Msg-Id")) for one in found]
    finally:
        await client.close()


async def event_ids(server: NatsServer) -> list[int]:
    """The commands that the stream has, by the ids of their events."""
    return sorted(int(json.loads(one.data)["event_id"]) for one in await stored(server))


async def sent_raw(port: int, data: bytes, answer_bytes: int = _ACK_BYTES) -> bytes:
    """What a connection answers to these bytes until it has so many, or ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            return await reader.readexactly(answer_bytes)
    except asyncio.IncompleteReadError as ended:
        return ended.partial
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()
