"""A connection to Postgres that is closed when its server sends more than a command may load into memory."""

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
"""Maximum bytes that the server may send in answer to one request. A request is a text of SQL, a statement with
parameters, or the fetch of one chunk of a transfer."""
_LOOK_S: Final = 0.02
_ANY_PORT: Final = 5432
"""Any port number, as an argument for looking up the addresses of a host. The addresses do not depend on the port."""
_LINGER_S: Final = 5.0
_BYTES_RECEIVED: Final = slice(128, 136)
"""Byte range of the field `tcpi_bytes_received` in Linux's `struct tcp_info`."""
_NO_SOCKET: Final = "could not create socket"
"""Part of libpq's error when this machine cannot create a socket. An error from the Postgres server lacks this text.
libpq may also give no text, so `connect` looks for free file descriptors too."""


async def connect(conninfo: str) -> Any:
    """Return a new connection with autocommit, and with our loaders for Postgres values (`types.register`). The
    connection prepares no statements on the server.

    Raises:
        ResourceShortage: this machine is out of file descriptors.
        ToolError: auth, not_found or connection (retryable), with the server's message.
    """
    with before_any_effect("to connect"):
        psycopg = library()
        try:
            connection = await _bounded_class().connect(
                await _with_addresses(conninfo), autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            message = str(error)
            if (_NO_SOCKET in message and is_shortage_text(message)) or is_out_of_descriptors():
                raise ResourceShortage(f"the worker lacks resources to connect: {error}") from error
            raise connection_failure(error) from error
    postgres_types.register(psycopg, connection)
    return connection


async def _with_addresses(conninfo: str) -> str:
    """Return the conninfo (libpq's connection string) with the IP addresses of its hosts added. psycopg would look up
    the addresses on the event loop.

    Raises:
        psycopg.OperationalError: no host has an address; the text is psycopg's.
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
    """Drive a psycopg generator, and call `count` before each read from the server, so that received bytes can be
    counted. The argument of `count` is the value that the generator yielded last."""
    try:
        wanted = next(exchange)
        while True:
            ready = yield wanted
            if ready:
                count(wanted)
            wanted = exchange.send(ready)
    except StopIteration as end:
        return end.value


def _received_bytes(descriptor: int) -> int:
    """Return the bytes received on a TCP connection (Linux's `tcpi_bytes_received`), or 0 for any other connection."""
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
    """A thread that cuts off a connection when the server sends more bytes than the connection may receive.

    libpq reads as long as data arrives. A fast server could send a value of 1 GB during one read. The worker's own code
    can count bytes only between two reads. The thread ends after 5 s without a connection to watch.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._most: dict[int, int] = {}
        """Descriptor -> maximum bytes that the connection may receive in all; -1: the connection was cut off."""
        self._thread: threading.Thread | None = None

    def set(self, descriptor: int, most: int) -> bool:
        """Set the total number of bytes that a connection may receive. Return True if the connection was already cut
        off."""
        with self._changed:
            if self._most.setdefault(descriptor, most) < 0:
                return True
            self._most[descriptor] = most
            self._start()
            self._changed.notify()
            return False

    def end(self, descriptor: int) -> bool:
        """Stop watching how much a connection receives. Return True if the connection was cut off, because it had
        received more than its maximum."""
        with self._changed:
            return self._most.pop(descriptor, 0) < 0

    def _start(self) -> None:
        if self._thread is not None:
            return
        # without a thread or descriptor, bytes are counted only between reads; the next call tries again
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
                    if 0 <= most < _received_bytes(descriptor):
                        os.dup2(ended.fileno(), descriptor, inheritable=False)
                        self._most[descriptor] = -1
                self._changed.wait(_LOOK_S)
            self._thread = None


_watch: Final = _ReadWatch()


class _Exchange:
    """Counts the bytes that the server sends during one call of `Bounded.wait` or `Bounded.read`. Such a call reads all
    or some of the server's answers to one SQL text."""

    __slots__ = ("_descriptor", "_reads", "_seen", "received")

    def __init__(self, descriptor: int) -> None:
        self.received = 0
        """Bytes received since the first read of this call. The limit `_MOST_BYTES` applies to this number. Code that
        drops rows subtracts the bytes of these rows, because they no longer use memory."""
        self._descriptor = descriptor
        self._seen = 0
        self._reads = 0

    def count(self, _: Any) -> None:
        """Count the bytes that have arrived so far, and limit the bytes of the next read. Called before each read.
        Raises ToolError if the server has sent too many bytes."""
        self._reads += 1
        if self._reads == 1:  # libpq reads no more than its buffer holds before it knows of a long message
            return
        received = _received_bytes(self._descriptor)
        if self._reads > 2:
            self.received += received - self._seen
        self._seen, left = received, _MOST_BYTES - self.received
        if left < 0 or _watch.set(self._descriptor, received + left):
            raise _too_much()

    def end(self) -> bool:
        """Stop watching how much the connection receives. Return True if the connection was cut off. Call this before
        the connection is closed and its descriptor reused."""
        return self._reads > 1 and _watch.end(self._descriptor)


def _count_of_connecting(wanted: Any) -> None:
    if _received_bytes(wanted[0]) > _MOST_BYTES:
        raise _too_much()


@functools.cache
def _bounded_class() -> Any:
    psycopg = library()
    from psycopg import waiting

    library_class: Any = psycopg.AsyncConnection

    class Bounded(library_class):  # type: ignore[misc]
        """A psycopg connection that limits the bytes the server may send in answer to one request. Without a limit, a
        huge value could exhaust the memory, because libpq holds a whole value, row or notice in memory."""

        exchange: _Exchange

        @classmethod
        def _connect_gen(cls, *arguments: Any, **options: Any) -> Generator[Any, Any, Any]:
            return _counted(super()._connect_gen(*arguments, **options), _count_of_connecting)

        async def wait(self, exchange: Any, *arguments: Any, **options: Any) -> Any:
            wait = super().wait
            return await self._bounded(exchange, lambda counted: wait(counted, *arguments, **options))

        async def read(self, exchange: Any) -> Any:
            """Run a psycopg generator that talks to the server, like psycopg's `wait`, and return its result. If this
            task is cancelled, the statement goes on at the server; `wait` would cancel the statement."""
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
