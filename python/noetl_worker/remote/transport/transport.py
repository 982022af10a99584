"""The seam below the control-plane client: one request in, one answer or one of two errors out.

`on_loop.py` sends it on the event loop itself; `local_run.py` and tests put others in its place. Errors say whether the
request may have been processed: NotSent is safe to repeat, MaybeProcessed only with the same identity.
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
"""As the Rust plane's own limit (protocol/results.md#store). A larger answer is refused instead of filling the
memory."""
_NOT_READ: Final = object()
Body: TypeAlias = bytes | tuple[bytes, ...]
"""A tuple's parts are sent one after the other and never put together: a large result is not copied to be sent."""
_PART_BYTES: Final = 256 * 1024
CONNECT_S: Final = 10.0
"""For the connection of a request that has no limit of its own."""
PROBE_S: Final = 15
PROBES: Final = 4
"""TCP keepalive: after so long without a byte the peer's machine is asked, so many times; then the connection is over.
Nothing else would end a request without a limit to a machine that has vanished."""
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


def size_of(body: tuple[bytes, ...]) -> int:
    return sum(map(len, body))


def parts_of(body: tuple[bytes, ...]) -> Iterator[memoryview]:
    """Views of the body, small enough that what is under way does not fill the memory either."""
    for part in body:
        view = memoryview(part)
        for start in range(0, len(view), _PART_BYTES):
            yield view[start : start + _PART_BYTES]


class Response:
    """One answer. `headers`: names in lower case; `error`: why its body is no JSON, once that was read."""

    __slots__ = ("_value", "body", "error", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        self._value: JsonValue = _NOT_READ
        self.error: DocumentError | None = None

    def json(self) -> JsonValue:
        """The body's JSON, read once; None for a body that is none (an HTML page of a proxy)."""
        if self._value is _NOT_READ:
            try:
                self._value = json_text.loads(self.body)
            except DocumentError as error:
                self._value, self.error = None, error
        return self._value

    async def read(self) -> Response:
        """Read the JSON of a large body in a thread: it may have all values of an execution. Return the answer."""
        await off_loop(len(self.body), self.json)
        return self


class Transport(Protocol):
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeout_s: float | None
    ) -> Response:
        """Send one request; `timeout_s` covers all of it, a trickling body included. None: the connection is made as
        quickly as ever, and the answer may take as long as it does; a peer that is gone is noticed all the same
        (PROBE_S). Of an answer at most MAX_BODY_BYTES are read, whatever its headers say.

        Raises:
            NotSent: it did not leave.
            MaybeProcessed: it left, and no complete answer came back in time.
        """

    async def close(self) -> None: ...
