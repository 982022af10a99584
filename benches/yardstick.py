"""The least that a Python worker can do, as a yardstick of the machine: pull, claim, one batch of five events, ack.

usage: yardstick.py NATS_URL STUB_URL STREAM SUBJECT SLOTS [LOOP]     LOOP: uvloop (default) or asyncio

No checks, no tool, no keepalive, no metrics, no retry; HTTP/1.1 on the loop's own protocol.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final
from urllib.parse import urlsplit

import httptools
import nats
import orjson
import uvloop

DURABLE: Final = "bare"
_EVENTS: Final = ("command.started", "step.enter", "call.done", "step.exit", "command.completed")
_PULL: Final = 100


class Connection(asyncio.Protocol):
    def __init__(self, idle: list[Connection]) -> None:
        self.idle = idle
        self.waiting: asyncio.Future[bytes] | None = None
        self.parts: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def on_message_complete(self) -> None:
        waiting, self.waiting, body = self.waiting, None, b"".join(self.parts)
        self.parts = []
        self.parser = httptools.HttpResponseParser(self)
        self.idle.append(self)
        if waiting and not waiting.done():
            waiting.set_result(body)

    def connection_lost(self, error: Exception | None) -> None:
        if self.waiting and not self.waiting.done():
            self.waiting.set_exception(ConnectionError(str(error)))


class Client:
    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        self.host, self.port = split.hostname, split.port
        self.name = split.netloc.encode()
        self.idle: list[Connection] = []

    async def post(self, path: bytes, body: bytes, more: bytes = b"") -> bytes:
        loop = asyncio.get_running_loop()
        if self.idle:
            connection = self.idle.pop()
        else:
            connection = (await loop.create_connection(lambda: Connection(self.idle), self.host, self.port))[1]
        connection.waiting = answer = loop.create_future()
        head = b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
        connection.transport.write(head % (path, self.name, len(body), more) + body)
        return await answer


async def do(client: Client, notification: Any) -> None:
    """What every command takes: a claim, and its five events."""
    path = b"/api/commands/%d/claim" % int(notification["event_id"])
    claim = orjson.loads(await client.post(path, orjson.dumps({"worker_id": "yardstick"})))
    result = {"bench_started_at": time.monotonic()} if claim["action"] == "clock" else None
    command_id = notification["command_id"]
    events = [
        {
            "step": "s",
            "name": name,
            "payload": {"command_id": command_id},
            "actionable": name == "call.done",
            "informative": True,
        }
        for name in _EVENTS
    ]
    if result is not None:
        events[2]["payload"]["response"] = result
    batch = {"execution_id": str(notification["execution_id"]), "events": events, "worker_id": "yardstick"}
    await client.post(b"/api/events/batch", orjson.dumps(batch), b"idempotency-key: %d-1\r\n" % command_id)


async def run_one(client: Client, message: Any, slots: asyncio.Semaphore) -> None:
    try:
        await do(client, orjson.loads(message.data))
        await message.ack()
    finally:
        slots.release()


async def main(nats_url: str, stub_url: str, stream: str, subject: str, slot_count: int) -> None:
    connection = await nats.connect(nats_url)
    pulls = await connection.jetstream().pull_subscribe(subject, durable=DURABLE, stream=stream)
    client, slots = Client(stub_url), asyncio.Semaphore(slot_count)
    running: set[asyncio.Task[None]] = set()
    while True:
        await slots.acquire()
        count = 1
        while count < _PULL and not slots.locked():
            await slots.acquire()
            count += 1
        try:
            messages = await pulls.fetch(count, timeout=1)
        except asyncio.TimeoutError:  # nothing there; nats.errors.TimeoutError is one
            messages = []
        for _ in range(count - len(messages)):
            slots.release()
        for message in messages:
            task = asyncio.create_task(run_one(client, message, slots))
            running.add(task)
            task.add_done_callback(running.discard)


if __name__ == "__main__":
    work = main(*sys.argv[1:5], int(sys.argv[5]))
    (asyncio.run if sys.argv[6:] == ["asyncio"] else uvloop.run)(work)
