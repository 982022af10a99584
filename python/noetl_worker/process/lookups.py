"""DNS look-ups in thread pools of their own, so that a silent DNS resolver blocks only a part of the look-ups.

The event loop's own look-ups could all be blocked. uvloop has four threads for look-ups, so four names without an
answer take all four. The standard loop uses the same threads for look-ups and for file work.
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
_CACHED_S: Final = 30.0
"""Seconds for which found addresses are used again. `getaddrinfo` does not return the time to live of a name."""
_MOST_CACHED: Final = 64


class Lookups:
    """DNS look-ups in one thread pool, without a cache."""

    def __init__(self, pool: str, threads: int) -> None:
        self._threads = Threads(pool, threads)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of `host`, the preferred address first. If `host` is an address, return only that.

        Raises:
            OSError, UnicodeError: the name has no address, or the look-up failed.
            RuntimeError: no thread can be started.
        """
        return [host] if _is_address(host) else await self._looked_up(host, port)

    async def _looked_up(self, host: str, port: int) -> list[str]:
        within = partial(_look_up, host, port)
        return await asyncio.wrap_future(self._threads.submit_for(OWNER.get(), within))

    def forget(self, host: str) -> None:
        """Do nothing, because this class has no cache. The subclass `OwnLookups` has a cache and overrides this
        method."""

    async def connected(self, host: str, port: int, connect: Callable[[str], Awaitable[T]]) -> T:
        """Call `connect` with each address of `host`, in order, until a call raises no OSError. Return the result of
        that call.

        Raises:
            OSError, UnicodeError, RuntimeError: `addresses` failed, or every call failed: the first OSError of
                `connect` is raised.
        """
        failure: OSError | None = None
        for address in await self.addresses(host, port):
            try:
                return await connect(address)
            except OSError as error:
                failure = failure or error
        raise failure or OSError(f"{host} has no address")


class OwnLookups(Lookups):
    """DNS look-ups of names from the worker's settings, with a cache of 30 seconds. Look-ups of one name take at most a
    quarter of the threads."""

    def __init__(self, pool: str, threads: int) -> None:
        super().__init__(pool, threads)
        self._known: dict[str, tuple[list[str], float]] = {}
        """Cached addresses by host name, each with the monotonic time until which they are used."""

    async def _looked_up(self, host: str, port: int) -> list[str]:
        if (known := self._believed(host)) is not None:
            return known
        return await asyncio.wrap_future(self._threads.submit_for(host, partial(self._look_up, host, port)))

    def _look_up(self, host: str, port: int) -> list[str]:
        found = self._believed(host)  # another look-up of the name may have answered while this one waited
        if found is None:
            found = _look_up(host, port)
            self._known[host] = (found, time.monotonic() + _CACHED_S)
            while len(self._known) > _MOST_CACHED:
                self._known.pop(next(iter(self._known)), None)
        return found

    def _believed(self, host: str) -> list[str] | None:
        addresses, until_s = self._known.get(host, ([], 0.0))
        return addresses if time.monotonic() < until_s else None

    async def connected(self, host: str, port: int, connect: Callable[[str], Awaitable[T]]) -> T:
        """Call `connect` with each address of `host`, in order, until a call raises no OSError. Return its result.
        After any exception, remove `host` from the cache, so that the next call looks it up again."""
        try:
            return await super().connected(host, port, connect)
        except BaseException:  # also a cancellation by a deadline
            self.forget(host)
            raise

    def forget(self, host: str) -> None:
        """Forget the addresses of `host`, so that the next connection looks it up again."""
        self._known.pop(host, None)


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):  # ValueError if `host` has a zero byte
            continue
        return True
    return False


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


OWN: Final = OwnLookups(OWN_NAMES, 8)
"""DNS look-ups for the worker's own connections, to planes and NATS."""
TOOLS: Final = Lookups(TOOL_NAMES, 16)
"""DNS look-ups for connections of tools. One execution takes at most a quarter of the threads."""
