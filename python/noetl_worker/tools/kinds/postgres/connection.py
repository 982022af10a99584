"""A connection to Postgres that ends when its server sends more than a command may bring into memory."""

from __future__ import annotations

import functools
import os
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Final

from noetl_worker.errors import ResourceShortage, ToolError
from noetl_worker.process.lookups import TOOLS
from noetl_worker.tools.kinds.postgres import types as postgres_types
from noetl_worker.tools.kinds.postgres.address import library
from noetl_worker.tools.kinds.postgres.errors import connection_failure
from noetl_worker.tools.process.shortage import before_any_effect, is_out_of_descriptors, is_shortage_text

_MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one exchange: a text, a statement with parameters, a chunk of a transfer."""
_LOOK_S: Final = 0.02
_ANY_PORT: Final = 5432
"""Addresses do not depend on it."""
_LINGER_S: Final = 5.0
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
            connection = await _bounded_class().connect(
                await _with_addresses(conninfo), autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            message = str(error)
            if (_NO_SOCKET in message and is_shortage_text(message)) or is_out_of_descriptors():
                raise ResourceShortage(f"no room for a connection: {error}") from error
            raise connection_failure(error) from error
    postgres_types.register(psycopg, connection)
    return connection


async def _with_addresses(conninfo: str) -> str:
    """Return the text with the addresses of its hosts; the library has the event loop look them up.

    Raises:
        psycopg.OperationalError: none of them has one, in the words of psycopg.
    """
    psycopg = library()
    parts = psycopg.conninfo.conninfo_to_dict(conninfo)
    hosts, ports = parts.get("host", "").split(","), str(parts.get("port") or "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if parts.get("hostaddr") or not any(map(_is_name, hosts)) or len(ports) != len(hosts):
        return conninfo
    found: list[tuple[str, str, str]] = []
    failure: Exception | None = None
    for host, port in zip(hosts, ports, strict=True):
        try:
            addresses = await TOOLS.addresses(host, _ANY_PORT) if _is_name(host) else [""]
        except (OSError, UnicodeError) as error:
            failure = failure or psycopg.OperationalError(f"failed to resolve host {host!r}: {error}")
        else:
            found += [(host, address, port) for address in addresses]
    if not found and failure is not None:
        raise failure
    parts["host"], parts["hostaddr"], listed = (",".join(one) for one in zip(*found, strict=True))
    if any(ports):
        parts["port"] = listed
    return str(psycopg.conninfo.make_conninfo(**parts))


def _is_name(host: str) -> bool:
    return bool(host) and not host.startswith(("/", "@")) and host[1:2] != ":"


def _too_much() -> ToolError:
    what = f"the server sends more than {_MOST_BYTES >> 20} MiB at once"
    return ToolError(f"{what}: select fewer or shorter rows (transfer: a smaller chunk_size)", kind="resource")


def _counted(exchange: Any, count: Callable[[Any], None]) -> Generator[Any, Any, Any]:
    """One of psycopg's generators; `count` is called with what it waited for, before it reads."""
    try:
        wanted = next(exchange)
        while True:
            ready = yield wanted
            if ready:
                count(wanted)
            wanted = exchange.send(ready)
    except StopIteration as end:
        return end.value


def _come(descriptor: int) -> int:
    """Bytes that have come on a TCP connection: Linux counts them (`tcpi_bytes_received`). Of any other 0."""
    try:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
    except OSError:  # libpq has closed it meanwhile: its server is gone
        return 0
    try:
        information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.stop)
        return int.from_bytes(information[_BYTES_RECEIVED], sys.byteorder)
    except (OSError, AttributeError):
        return 0
    finally:
        connection.detach()


class _ReadWatch:
    """A thread that cuts connections off while libpq reads: that goes on for as long as there is something, which from
    a server nearby is to the end of a value of 1 GB. It ends when there has been nothing to do for 5 s."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._most: dict[int, int] = {}
        """By descriptor, what may come of it."""
        self._thread: threading.Thread | None = None

    def set(self, descriptor: int, most: int) -> bool:
        """Whether it has been cut off."""
        with self._changed:
            if self._most.setdefault(descriptor, most) < 0:
                return True
            self._most[descriptor] = most
            self._start()
            self._changed.notify()
            return False

    def end(self, descriptor: int) -> bool:
        with self._changed:
            return self._most.pop(descriptor, 0) < 0

    def _start(self) -> None:
        if self._thread is not None:
            return
        # no thread or descriptor to be had: it is counted between two reads alone, and tried again at the next
        with suppress(RuntimeError, OSError):
            ended, other = socket.socketpair()
            other.close()
            thread = threading.Thread(target=self._look, args=(ended,), name="postgres-watch", daemon=True)
            thread.start()
            self._thread = thread

    def _look(self, ended: socket.socket) -> None:
        with ended, self._changed:
            while self._most or self._changed.wait(_LINGER_S):
                for descriptor, most in self._most.items():
                    if 0 <= most < _come(descriptor):
                        os.dup2(ended.fileno(), descriptor, inheritable=False)
                        self._most[descriptor] = -1
                self._changed.wait(_LOOK_S)
            self._thread = None


_watch: Final = _ReadWatch()


class _Exchange:
    """A text and its answers, or less."""

    __slots__ = ("_descriptor", "_reads", "_seen", "received")

    def __init__(self, descriptor: int) -> None:
        self.received = 0
        """What has come since its first read; who lets go of something takes it off again."""
        self._descriptor = descriptor
        self._seen = 0
        self._reads = 0

    def count(self, _: Any) -> None:
        """Before something is read. Raises ToolError: it is too much."""
        self._reads += 1
        if self._reads == 1:  # before it knows of a long message, libpq reads no more than it has room for
            return
        come = _come(self._descriptor)
        if self._reads > 2:
            self.received += come - self._seen
        self._seen, left = come, _MOST_BYTES - self.received
        if left < 0 or _watch.set(self._descriptor, come + left):
            raise _too_much()

    def end(self) -> bool:
        """Whether it was cut off. Before the connection is closed: its descriptor may be another's then."""
        return self._reads > 1 and _watch.end(self._descriptor)


def _count_of_connecting(wanted: Any) -> None:
    if _come(wanted[0]) > _MOST_BYTES:
        raise _too_much()


@functools.cache
def _bounded_class() -> Any:
    psycopg = library()
    from psycopg import waiting

    library_class: Any = psycopg.AsyncConnection

    class Bounded(library_class):  # type: ignore[misc]
        """libpq keeps a value, a row and a notice whole, whatever their size: what comes is counted."""

        exchange: _Exchange

        @classmethod
        def _connect_gen(cls, *arguments: Any, **options: Any) -> Generator[Any, Any, Any]:
            return _counted(super()._connect_gen(*arguments, **options), _count_of_connecting)

        async def wait(self, exchange: Any, *arguments: Any, **options: Any) -> Any:
            wait = super().wait
            return await self._bounded(exchange, lambda counted: wait(counted, *arguments, **options))

        async def read(self, exchange: Any) -> Any:
            """As `wait`, but with a cancellation it is over: the server is asked for nothing."""
            return await self._bounded(exchange, lambda counted: waiting.wait_async(counted, self.pgconn.socket, 1.0))

        async def _bounded(self, exchange: Any, drive: Callable[[Any], Any]) -> Any:
            counting = self.exchange = _Exchange(self.pgconn.socket)
            try:
                return await drive(_counted(exchange, counting.count))
            except (ToolError, psycopg.OperationalError) as error:
                if counting.end() or isinstance(error, ToolError):
                    self.pgconn.finish()
                    raise _too_much() from error
                raise
            finally:
                counting.end()

    return Bounded
