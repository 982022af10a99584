"""A stand-in for a Python control plane, as fast as one process can be, so that a worker is what is measured.

It answers claims, batches and heartbeats, and counts them. `POST /__reset` takes Answers as JSON and forgets the
counts, `GET /__stats` gives them, `GET /__starts` the tool starts that results carry, `GET /__spans` how long each
command took. Its first line of output is its port.

A command is done when its command.completed or command.failed was accepted. The answers have the fields that recordings
of the real plane have; nothing is checked, so no test of behaviour may use it: `noetl_worker.authoring.dev` has a
plane for that.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import httptools
import orjson
import uvloop

EXECUTION_ID: Final = 900000000000000001
STARTED_AT: Final = "bench_started_at"
"""Key of a tool's result: time.monotonic() at its start, which all processes of a machine share."""
_CLAIM: Final = re.compile(rb"^/api/commands/(\d+)/claim$")
_STARTED_AT: Final = re.compile(rb'"%b":\s*([0-9.]+)' % STARTED_AT.encode())
_WORKER: Final = re.compile(rb'"worker_id":\s*"([^"]*)"')
_NAMES: Final = {b"/api/events/batch": "batch", b"/api/events": "event"}
_RECORDED: Final = Path(__file__).parents[1] / "tests/compat/samples/python-control-plane.jsonl"
_ID: Final = "the event"
_REASONS: Final = {200: b"OK", 202: b"Accepted", 404: b"Not Found", 409: b"Conflict"}
_FINISHED: Final = b'{"detail":{"code":"already_terminal","message":"command already reached a terminal state"}}'
_STATUS: Final = b'{"pool_min":2,"pool_max":32,"pool_size":2,"pool_available":2,"requests_waiting":0,"utilization":0.0,"slots_available":32,"status":"ok"}'  # noqa: E501


@cache
def recorded_claims() -> list[bytes]:
    """Claims of a real Python plane, each with a noop in place of its tool, to be filled with the event's id.

    Not those with a context that is in the result store: a request more is another command.
    """
    found = []
    for line in map(json.loads, _RECORDED.read_text(encoding="utf-8").splitlines()):
        if not line["path"].endswith("/claim") or line["status"] != 200 or '_ref"' in json.dumps(line["resp"]):
            continue
        claim, context = line["resp"], line["resp"]["context"]
        kept = {name: context[name] for name in context if name not in ("case", "cases")}
        claim.update(execution_id=EXECUTION_ID, action="noop", context={**kept, "tool_config": {"kind": "noop"}})
        claim.update(event_id=_ID, meta={**(claim.get("meta") or {}), "command_id": _ID})
        found.append(orjson.dumps(claim).replace(b"%", b"%%").replace(b'"%b"' % _ID.encode(), b"%d"))
    return found


@cache
def text_of(chars: int) -> bytes:
    """What a server answers to a request of a step: one text of JSON."""
    return orjson.dumps({"text": "word " * (chars // 5)})


@dataclass
class Answers:
    """What a claim is answered with, and how late."""

    delay_ms: float = 0.0
    kind: str = "noop"
    """`recorded`: see `recorded_claims`."""
    config: dict[str, Any] = field(default_factory=dict)
    context_bytes: int = 0

    def claim(self, event_id: int) -> bytes:
        if self.kind == "recorded":
            claims = recorded_claims()
            return claims[event_id % len(claims)] % (event_id, event_id)
        render_context = {
            "workload": {"n": event_id},
            "pad": "x" * self.context_bytes,
            "execution_id": str(EXECUTION_ID),
        }
        tool_config = {"kind": self.kind, **self.config}
        return orjson.dumps(
            {
                "status": "ok",
                "event_id": event_id,
                "execution_id": EXECUTION_ID,
                "node_id": "s",
                "node_name": "s",
                "action": self.kind,
                "context": {"tool_config": tool_config, "args": {}, "input": {}, "render_context": render_context},
                "meta": {"command_id": event_id, "attempt": 1, "attempts": 1, "max_attempts": 3},
            }
        )


class Plane:
    """The answers, and what was asked so far."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.requests: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        """Of requests and answers with their heads, by the names of `requests`."""
        self.workers: Counter[str] = Counter()
        """Commands given to each."""
        self.events: Counter[str] = Counter()
        self.done: set[str] = set()
        self.done_twice = 0
        self.keys: set[bytes] = set()
        self.tool_starts: dict[str, float] = {}
        self.claimed_at: dict[str, float] = {}
        self.spans: list[float] = []
        """Seconds from the first claim of each command to its end."""
        self.first_claim_at: float | None = None
        self.last_end_at: float | None = None

    def stats(self) -> bytes:
        return orjson.dumps(
            {
                "done": len(self.done),
                "done_twice": self.done_twice,
                "requests": dict(self.requests),
                "bytes": dict(self.bytes),
                "workers": dict(self.workers),
                "events": dict(self.events),
                "first_claim_at": self.first_claim_at,
                "last_end_at": self.last_end_at,
            }
        )

    def answer(self, path: bytes, body: bytes, key: bytes | None) -> tuple[str, int, bytes]:
        """What it was, the status and the body."""
        name = "claim" if _CLAIM.match(path) else _NAMES.get(path, "probe")
        if path.startswith(b"/api/worker/pool/"):
            name = "pool"
        self.requests[name] += 1
        return name, *self._answer(name, path, body, key)

    def _answer(self, name: str, path: bytes, body: bytes, key: bytes | None) -> tuple[int, bytes]:
        if name == "claim":
            return self._claim(path.split(b"/")[3], body)
        if name == "batch":
            return self._batch(body, key)
        if name == "event":
            self._record(orjson.loads(body))
            return 200, b'{"status":"ok","event_id":1,"commands_generated":0}'
        if name == "pool":
            return 200, b'{"status":"ok","name":"w","runtime":"python","runtime_id":"1"}'
        if path == b"/api/pool/status":
            return 200, _STATUS
        if path.startswith(b"/text/"):
            return 200, text_of(int(path.split(b"/")[2]))
        if path.startswith(b"/api/result/"):
            return 200, b'{"ref":"noetl://execution/1/result/s/1","store":"kv","scope":"execution"}'
        if path.startswith(b"/api/events/batch/"):
            return 200, b'{"state":"completed"}'
        return 200, b'{"status":"ok"}' if path.endswith(b"/health") else b"{}"

    def _claim(self, event_id: bytes, body: bytes) -> tuple[int, bytes]:
        if event_id.decode() in self.done:
            return 409, _FINISHED
        if worker := _WORKER.search(body):
            self.workers[worker.group(1).decode()] += 1
        now = self.claimed_at.setdefault(event_id.decode(), time.monotonic())
        self.first_claim_at = self.first_claim_at or now
        return 200, self.answers.claim(int(event_id))

    def _batch(self, body: bytes, key: bytes | None) -> tuple[int, bytes]:
        if key is not None and key in self.keys:
            return 202, b'{"status":"accepted","request_id":"1","event_ids":[1],"duplicate":true}'
        if key is not None:
            self.keys.add(key)
        events = orjson.loads(body)["events"]
        for event in events:
            self._record(event)
        if started := _STARTED_AT.search(body):
            self.tool_starts[_command_id(events[-1])] = float(started.group(1))
        return 202, b'{"status":"accepted","request_id":"1","event_ids":[1]}'

    def _record(self, event: dict[str, Any]) -> None:
        name = event.get("event_type") or event.get("name") or "?"
        self.events[name] += 1
        if name in ("command.completed", "command.failed"):
            command_id = _command_id(event)
            self.done_twice += command_id in self.done
            self.done.add(command_id)
            self.last_end_at = time.monotonic()
            if command_id in self.claimed_at:
                self.spans.append(self.last_end_at - self.claimed_at.pop(command_id))


def _command_id(event: dict[str, Any]) -> str:
    for part in (event.get("payload"), event.get("context"), event.get("meta"), event.get("result")):
        if isinstance(part, dict) and part.get("command_id") is not None:
            return str(part["command_id"])
    return str(event.get("command_id"))


class Connection(asyncio.Protocol):
    """HTTP/1.1 without pipelining, which no worker does."""

    plane = Plane(Answers())

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.parts: list[bytes] = []
        self.received = 0

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_url(self, url: bytes) -> None:
        self.path, self.key, self.parts = url.partition(b"?")[0], None, []

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"idempotency-key", b"x-idempotency-key"):
            self.key: bytes | None = value

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def on_message_complete(self) -> None:
        path, body, key = self.path, b"".join(self.parts), self.key
        delay_ms = self.plane.answers.delay_ms
        if path.startswith(b"/__"):
            self.send(200, self.control(path, body))
        elif delay_ms:
            asyncio.get_running_loop().call_later(delay_ms / 1000, self.answer, path, body, key)
        else:
            self.answer(path, body, key)

    def control(self, path: bytes, body: bytes) -> bytes:
        if path == b"/__reset":
            Connection.plane = Plane(Answers(**orjson.loads(body)))
            return b"{}"
        if path == b"/__spans":
            return orjson.dumps(self.plane.spans)
        return orjson.dumps(self.plane.tool_starts) if path == b"/__starts" else self.plane.stats()

    def answer(self, path: bytes, body: bytes, key: bytes | None) -> None:
        name, status, answer = self.plane.answer(path, body, key)
        self.plane.bytes[name] += self.received + self.send(status, answer)
        self.received = 0

    def send(self, status: int, body: bytes) -> int:
        """How many bytes it sent."""
        if self.transport.is_closing():
            return 0
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        whole = head % (status, _REASONS[status], len(body)) + body
        self.transport.write(whole)
        return len(whole)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
