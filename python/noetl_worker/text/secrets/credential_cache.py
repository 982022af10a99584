"""Secrets a control plane gave, kept for a minute: a loop of a thousand commands asks once, not a thousand times.

One per control-plane client, so one per worker. The key says who may see an entry (`credentials.py`); what is kept is
packed, so that no command can change what the next one gets. Failures are never kept: a credential that was just
registered works at once.
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
"""Longest time a secret is used without asking again. differs-from-upstream: the Python worker keeps it for 300 s; a
rotated or withdrawn credential would be used for that long."""
MAX_ENTRIES: Final = 256
"""As the Python worker's (protocol/executions.md#credentials); the entry that was not used for longest goes first."""

Key: TypeAlias = tuple[str | int | None, ...]


class Fetched(NamedTuple):
    """A plane's answer and how long it is good for."""

    value: JsonValue
    lifetime_s: float | None
    """None: the plane named no end. Zero or less: use it once, never keep it."""


class CredentialCache:
    """Bounded, with a time to live, which an entry's own lifetime shortens, and one request for many askers."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, tuple[bytes, float]] = OrderedDict()
        self._flights: dict[Key, asyncio.Task[bytes]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: Key, fetch: Callable[[], Awaitable[Fetched]]) -> JsonValue:
        """The value under `key`, a fresh copy; fetched when it is not there, once for all who ask meanwhile.

        Raises:
            Whatever `fetch` raises, to everybody who waits for it; nothing is kept then.
        """
        packed = self._kept(key)
        if packed is None:
            flight = self._flights.get(key)
            if flight is None or flight.done():
                flight = asyncio.ensure_future(self._fetch(key, fetch))
                self._flights[key] = flight
                flight.add_done_callback(_taken_note_of)
            packed = await asyncio.shield(flight)  # one asker's cancellation is not the others'
        return json_text.loads(packed)

    def forget(self, keys: Iterable[Key]) -> None:
        """Drop entries that turned out to be wrong. An answer that is under way now is used, but not kept."""
        for key in keys:
            self._entries.pop(key, None)
            self._flights.pop(key, None)

    def clear(self) -> None:
        self.forget([*self._entries, *self._flights])

    def _kept(self, key: Key) -> bytes | None:
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
            keep_s = TTL_S if lifetime_s is None else min(TTL_S, lifetime_s)
            if keep_s > 0 and self._flights.get(key) is own:
                self._entries[key] = (packed, asked_at + keep_s)
                self._entries.move_to_end(key)
                while len(self._entries) > MAX_ENTRIES:
                    self._entries.popitem(last=False)
            return packed
        finally:
            if self._flights.get(key) is own:
                del self._flights[key]


def _taken_note_of(flight: asyncio.Task[bytes]) -> None:
    """An error that nobody waits for any more (all askers were cancelled) is not one to complain about."""
    if not flight.cancelled():
        flight.exception()
