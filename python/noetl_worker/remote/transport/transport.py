"""Interface of the HTTP transport under the control-plane client. A request returns one answer or raises one of two
errors.

`on_loop.py` sends requests on the event loop itself; `local_run.py` and tests replace `on_loop.py`. The errors say
whether the plane may have processed the request. After NotSent a request is safe to repeat. After MaybeProcessed a
request may be repeated only with the same identity (event id or Idempotency-Key).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Final, Protocol, TypeAlias

from noetl_worker.errors import DocumentError
from noetl_worker.models.fit import MAX_RESULT_BYTES
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.threads import off_loop
from noetl_worker.text import json_text

USER_AGENT = "noetl-worker"
MAX_BODY_BYTES = MAX_RESULT_BYTES
"""Largest number of bytes of an answer that the worker reads, to limit memory. The Rust plane has the same limit
(protocol/results.md#store)."""
_NOT_READ: Final = object()
Body: TypeAlias = bytes | tuple[bytes, ...]
"""Body of a request. A tuple's parts are sent one after the other and never joined, to avoid copying a large result."""
_PART_BYTES: Final = 256 * 1024
CONNECT_S: Final = 10.0
"""Seconds allowed for connecting, for a request without a time limit."""
PROBE_S: Final = 15
PROBES: Final = 4
"""Number of TCP keepalive probes to a silent peer, each after PROBE_S seconds. If no probe is answered, the connection
ends. Without probes, a request without a time limit would never end after its peer has vanished."""
SOCKET_OPTIONS: Final = tuple(
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", PROBE_S),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", PROBE_S),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", PROBES),
    )
    if hasattr(socket, name)  # not every system has all of them
)


def body_size(body: tuple[bytes, ...]) -> int:
    return sum(map(len, body))


def body_parts(body: tuple[bytes, ...]) -> Iterator[memoryview]:
    """Yield the body in views of at most 256 KiB, so that the data being written do not take much memory."""
    for part in body:
        view = memoryview(part)
        for start in range(0, len(view), _PART_BYTES):
            yield view[start : start + _PART_BYTES]


class Response:
    """HTTP answer. `headers` has names in lower case; `error` says why `json()` could not parse the body."""

    __slots__ = ("_value", "body", "error", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        self._value: JsonValue = _NOT_READ
        self.error: DocumentError | None = None

    def json(self) -> JsonValue:
        """Return the body's JSON, parsed once, or None if the body is not JSON (a proxy's HTML page)."""
        if self._value is _NOT_READ:
            try:
                self._value = json_text.loads(self.body)
            except DocumentError as error:
                self._value, self.error = None, error
        return self._value

    async def read(self) -> Response:
        """Parse a large body in a thread, since parsing would block the event loop. Return this answer."""
        await off_loop(len(self.body), self.json)
        return self


class Transport(Protocol):
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float | None
    ) -> Response:
        """Send one request and return its answer. At most MAX_BODY_BYTES of the answer are read, whatever its headers
        say.

        Args:
            timeout_s: limit for the whole request, even if the body arrives slowly. With None only connecting has a
                limit (CONNECT_S). TCP keepalive still ends a request to a vanished peer (PROBE_S).

        Raises:
            NotSent: the request did not leave.
            MaybeProcessed: the request left, and no complete answer came within the time limit.
        """

    async def close(self) -> None: ...
