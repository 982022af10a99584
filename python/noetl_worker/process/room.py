"""The memory budget for data that commands receive from servers. Code takes memory from the budget before it parses
such data.

While the budget is used up, a command waits, at most until its deadline. The command that took memory first never
waits. So two commands that each have half of what they need cannot block each other.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Final

from noetl_worker.errors import ToolError

__all__ = ["MOST_OF_ONE", "room"]

MOST_OF_ONE: Final = 512 << 20
"""Largest memory, in bytes, that one owner, such as a running tool, can take from the worker's memory budget.
The sum of this size and the budget of all owners (`_MOST`) is below 1 GiB, the memory limit of the Helm chart."""
_MOST: Final = 256 << 20
"""Budget in bytes for all owners, such as running tools, together. Once the budget is used up, only the owner that took
memory first gets more."""
_FREE: Final = 1 << 20
"""Bytes that each owner, such as a running tool, gets without waiting. So an ordinary answer of a server does not wait
for memory that a large answer has taken."""


class Room:
    """The memory budget, as a number of bytes for each owner. An owner is, for example, a running tool. `take` runs on
    an event loop; any thread may call `release`."""

    def __init__(self) -> None:
        self._shares: dict[weakref.ref[object], int] = {}
        """Bytes of memory that each owner, such as a running tool, has taken and not released. The owner that took
        memory first is the first."""
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    @property
    def taken(self) -> int:
        return sum(self._shares.copy().values())

    async def take(self, size: int, owner: object) -> None:
        """Take `size` bytes from the memory budget for `owner`. Wait while the budget is used up.

        The memory goes back to the budget when `release` is called, or when `owner` is deleted.

        Args:
            size: number of bytes, exact or estimated.
            owner: an object that lives as long as the data, such as the `stop` of a tool's context. Its class must
                support weak references.

        Raises:
            ToolError: kind `resource`, if `owner` would have over 512 MiB.
        """
        key = weakref.ref(owner, self._gone)
        if (wanted := self._shares.get(key, 0) + size) > MOST_OF_ONE:
            took = f"data from servers takes {wanted >> 20:,} MiB of memory, over {MOST_OF_ONE >> 20} for one command"
            raise ToolError(f"{took}: ask for less, or in several steps", kind="resource")
        while not self._has_room(key, size):
            loop = asyncio.get_running_loop()
            changed = loop.create_future()
            self._waiting[changed] = loop
            try:
                await changed
            finally:
                self._waiting.pop(changed, None)
        self._shares[key] = self._shares.get(key, 0) + size

    def release(self, size: int, owner: object) -> None:
        """Give back to the memory budget `size` bytes that `owner` took. Wake commands that wait for memory."""
        key = weakref.ref(owner)
        if size and (share := self._shares.get(key, 0)):
            self._shares[key] = share - size
            if share <= size:
                del self._shares[key]
            self._tell()

    def share(self, owner: object) -> int:
        return self._shares.get(weakref.ref(owner), 0)

    def _has_room(self, key: weakref.ref[object], size: int) -> bool:
        wanted = self._shares.get(key, 0) + size
        return wanted <= _FREE or next(iter(self._shares.copy()), key) == key or self.taken + size <= _MOST

    def _gone(self, key: weakref.ref[object]) -> None:
        if self._shares.pop(key, None) is not None:
            self._tell()

    def _tell(self) -> None:
        for changed, loop in self._waiting.copy().items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, changed)


def _wake(changed: asyncio.Future[None]) -> None:
    if not changed.done():
        changed.set_result(None)


room: Final = Room()
"""The memory budget of this process."""
