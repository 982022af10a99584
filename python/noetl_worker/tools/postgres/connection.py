"""A connection to Postgres that ends when its server sends more than a command may bring into memory."""

from __future__ import annotations

import functools
import socket
import sys
from collections.abc import Callable, Generator
from typing import Any, Final

from noetl_worker.errors import ResourceShortage, ToolError
from noetl_worker.tools.postgres import types as postgres_types
from noetl_worker.tools.postgres.address import library
from noetl_worker.tools.postgres.errors import connection_failure
from noetl_worker.tools.process.shortage import before_any_effect, is_out_of_descriptors, is_shortage_text

__all__ = ["connect"]

_MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one exchange: a text, a statement with parameters, a chunk of a transfer."""
_BYTES_RECEIVED: Final = slice(128, 136)
"""Where it is in Linux's `struct tcp_info`."""
_NO_SOCKET: Final = "could not create socket"
"""libpq's words for what happens here (it may also give none); a server without descriptors says the same of itself."""


async def connect(conninfo: str) -> Any:
    """A new connection: autocommit, our readers of values, nothing prepared on the server.

    Raises:
        ResourceShortage: this machine has no descriptor for it.
        ToolError: auth, not_found or connection (retryable), with the server's words.
    """
    with before_any_effect("no room for a connection"):
        psycopg = library()
        try:
            connection = await _bounded_class().connect(conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            message = str(error)
            if (_NO_SOCKET in message and is_shortage_text(message)) or is_out_of_descriptors():
                raise ResourceShortage(f"no room for a connection: {error}") from error
            raise connection_failure(error) from error
    postgres_types.register(psycopg, connection)
    return connection


def _too_much() -> ToolError:
    what = f"the server sends more than {_MOST_BYTES >> 20} MiB at once"
    return ToolError(f"{what}: select fewer or shorter rows (transfer: a smaller chunk_size)", kind="resource")


def _come(descriptor: int) -> int:
    """Bytes that have come on a TCP connection: Linux counts them (`tcpi_bytes_received`). Of any other 0.

    Not what waits to be read: libpq reads on while there is something, or less, for want of room.
    """
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
    try:
        information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.stop)
        return int.from_bytes(information[_BYTES_RECEIVED], sys.byteorder)
    except (OSError, AttributeError):
        return 0
    finally:
        connection.detach()


def _counted(exchange: Any, count: Callable[[Any], None]) -> Generator[Any, Any, Any]:
    """One of psycopg's generators; `count` is called with what it waited for, before it reads."""
    try:
        wanted = next(exchange)
        while True:
            ready = yield wanted
            count(wanted)
            wanted = exchange.send(ready)
    except StopIteration as end:
        return end.value


@functools.cache
def _bounded_class() -> Any:
    class Bounded(library().AsyncConnection):  # type: ignore[misc]
        """libpq keeps a value, a row and a notice whole, whatever their size: what is to be read is counted before."""

        received = 0
        """What has come of the exchange so far; who lets go of it takes it off again."""
        _seen = 0

        @classmethod
        def _connect_gen(cls, *arguments: Any, **options: Any) -> Generator[Any, Any, Any]:
            def count(wanted: Any) -> None:
                if _come(wanted[0]) > _MOST_BYTES:
                    raise _too_much()

            return _counted(super()._connect_gen(*arguments, **options), count)

        async def wait(self, exchange: Any, *arguments: Any, **options: Any) -> Any:
            self.begin()
            return await super().wait(_counted(exchange, lambda _: self.count()), *arguments, **options)

        def begin(self) -> None:
            self.received, self._seen = 0, _come(self.pgconn.socket)

        def count(self) -> None:
            """Before something is read. Raises ToolError when it is too much; the connection is closed then."""
            come = _come(self.pgconn.socket)
            self.received, self._seen = self.received + come - self._seen, come
            if self.received > _MOST_BYTES:
                self.pgconn.finish()
                raise _too_much()

    return Bounded
