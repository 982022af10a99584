"""A cache of credentials from a control plane, so that many commands cause only one request a minute per credential.

There is one cache per control-plane client, so one per worker. The key of an entry says which commands may read the
entry (`credentials.py`). Entries are stored as JSON, so that each command gets a copy and cannot change the entry.
Failures are not cached: a credential that was just registered works at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from noetl_worker.models.wire import JsonValue
from noetl_worker.text import json_text

TTL_S: Final = 60.0
"""Longest time for which a credential is used without asking the plane again. differs-from-upstream: NoETL's own
Python worker caches a credential for 300 s. For that long it would use a rotated or withdrawn credential."""
MAX_ENTRIES: Final = 256
"""Largest number of entries in the cache, as many as in NoETL's own Python worker (protocol/executions.md#credentials).
A full cache drops the least recently used entry."""

Key: TypeAlias = tuple[str | int | None, ...]


class Fetched(NamedTuple):
    """A value that a plane returned, and the time for which the value may be cached."""

    value: JsonValue
    lifetime_s: float | None
    """Seconds for which the value may be cached. None: the plane gave no expiry time. Zero or less: the value is not
    cached."""


class CredentialCache:
    """A bounded cache with a time to live. Concurrent callers with the same key share one request."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, tuple[bytes, float]] = OrderedDict()
        self._flights: dict[Key, asyncio.Task[bytes]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: Key, fetch: Callable[[], Awaitable[Fetched]]) -> JsonValue:
        """Return a fresh copy of the value under `key`. A missing value is fetched once for all concurrent callers.

        Raises:
            Exception: any exception of `fetch`, for every caller that waits for the value. Nothing is cached then.
        """
        packed = self._find(key)
        if packed is None:
            flight = self._flights.get(key)
            if flight is None or flight.done():
                flight = asyncio.ensure_future(self._fetch(key, fetch))
                self._flights[key] = flight
                flight.add_done_callback(_retrieve_exception)
            packed = await asyncio.shield(flight)  # one caller's cancellation must not cancel the request of all
        return json_text.loads(packed)

    def forget(self, keys: Iterable[Key]) -> None:
        """Drop the entries under these keys, because a service refused their credentials.

        A fetch in progress still returns its value to the waiting callers. That value is not cached.
        """
        for key in keys:
            self._entries.pop(key, None)
            self._flights.pop(key, None)

    def clear(self) -> None:
        self.forget([*self._entries, *self._flights])

    def _find(self, key: Key) -> bytes | None:
        found = self._entries.get(key)
        if found is None:
            return None
        packed, ends_at = found
        if time.monotonic() >= ends_at:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return packed

    async def _fetch(self, key: Key, fetch: Callable[[], Awaitable[Fetched]]) -> bytes:
        asked_at = time.monotonic()
        own = asyncio.current_task()
        try:
            value, lifetime_s = await fetch()
            packed = json_text.dumps(value)
            ttl_s = TTL_S if lifetime_s is None else min(TTL_S, lifetime_s)
            if ttl_s > 0 and self._flights.get(key) is own:
                self._entries[key] = (packed, asked_at + ttl_s)
                self._entries.move_to_end(key)
                while len(self._entries) > MAX_ENTRIES:
                    self._entries.popitem(last=False)
            return packed
        finally:
            if self._flights.get(key) is own:
                del self._flights[key]


def _retrieve_exception(flight: asyncio.Task[bytes]) -> None:
    """Read a failed fetch's exception, so that asyncio logs nothing if all its callers were cancelled."""
    if not flight.cancelled():
        flight.exception()
