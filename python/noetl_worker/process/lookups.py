"""Addresses of names, looked up in threads of their own: one resolver that does not answer holds up no other look-up.

The event loop's own look-ups are not used: uvloop has four threads for them, the standard loop those of all files, and
whoever asks for four silent names has them.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from noetl_worker.process.threads import OWN_NAMES, OWNER, TOOL_NAMES, Threads

T = TypeVar("T")
_KEPT_S: Final = 30.0
"""`getaddrinfo` does not tell the time to live of a record."""
_MOST_KEPT: Final = 64


class Lookups:
    """Look-ups by one pool of threads."""

    def __init__(self, pool: str, threads: int) -> None:
        self._threads = Threads(pool, threads)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of `host`, the most wanted first; an address is its own.

        Raises:
            OSError, UnicodeError: it has none, or nobody knows.
            RuntimeError: no thread is to be had.
        """
        return [host] if _is_address(host) else await self._looked_up(host, port)

    async def _looked_up(self, host: str, port: int) -> list[str]:
        within = partial(_look_up, host, port)
        return await asyncio.wrap_future(self._threads.submit_for(OWNER.get(), within))

    def forget(self, host: str) -> None:
        """Look the name up again for the next connection."""

    async def connected(self, host: str, port: int, connect: Callable[[str], Awaitable[T]]) -> T:
        """Return what `connect` gives for the first address that it does not raise OSError for.

        Raises:
            OSError, UnicodeError, RuntimeError: see `addresses`, or the first of those of `connect`.
        """
        failure: OSError | None = None
        for address in await self.addresses(host, port):
            try:
                return await connect(address)
            except OSError as error:
                failure = failure or error
        raise failure or OSError(f"{host} has no address")


class OwnLookups(Lookups):
    """Look-ups of the names that the settings have: each has a quarter of the threads, and is known for 30 seconds."""

    def __init__(self, pool: str, threads: int) -> None:
        super().__init__(pool, threads)
        self._known: dict[str, tuple[list[str], float]] = {}
        """By name, its addresses and until when they are believed."""

    async def _looked_up(self, host: str, port: int) -> list[str]:
        if (known := self._believed(host)) is not None:
            return known
        return await asyncio.wrap_future(self._threads.submit_for(host, partial(self._look_up, host, port)))

    def _look_up(self, host: str, port: int) -> list[str]:
        found = self._believed(host)  # by a look-up that this one has waited for
        if found is None:
            found = _look_up(host, port)
            self._known[host] = (found, time.monotonic() + _KEPT_S)
            while len(self._known) > _MOST_KEPT:
                self._known.pop(next(iter(self._known)), None)
        return found

    def _believed(self, host: str) -> list[str] | None:
        addresses, until_s = self._known.get(host, ([], 0.0))
        return addresses if time.monotonic() < until_s else None

    async def connected(self, host: str, port: int, connect: Callable[[str], Awaitable[T]]) -> T:
        """See `Lookups.connected`. A server that cannot be reached is looked up again by the next attempt."""
        try:
            return await super().connected(host, port, connect)
        except BaseException:  # a deadline too
            self.forget(host)
            raise

    def forget(self, host: str) -> None:
        """See `Lookups.forget`."""
        self._known.pop(host, None)


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):  # a ValueError where it has a zero byte
            continue
        return True
    return False


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


OWN: Final = OwnLookups(OWN_NAMES, 8)
"""For connections to planes and NATS."""
TOOLS: Final = Lookups(TOOL_NAMES, 16)
"""For connections of tools, by execution."""
