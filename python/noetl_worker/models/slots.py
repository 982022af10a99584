"""How many commands run at the same time: slots, and what a kind may take of them.

Whoever waits holds no slot: a parent that waits for its child, a set that waits for its plane, a claimed command
whose kind is full or that is to run alone. What is pulled is bounded by `window`; what runs by `free` and the kinds.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

WAITING_PER_SLOT: Final = 10


@dataclass(slots=True, eq=False)
class _Waiter:
    """A command that waits for its kind, or to be alone, or that runs after that."""

    kind: str = ""
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    task: asyncio.Task[Any] | None = field(default_factory=lambda: asyncio.current_task())


@dataclass(slots=True, eq=False, repr=False)
class Slots:
    """The slots of a worker."""

    size: int
    limits: Mapping[str, int] = field(default_factory=dict)
    """Kind -> most commands of it at the same time."""
    ceiling: Callable[[], int] = field(default=lambda: sys.maxsize)
    """How many slots the control plane lets us fill (its gate); never below one."""
    on_free: Callable[[], object] = field(default=lambda: None)
    """Called when one is free again."""
    used: int = field(default=0, init=False)
    parked_elsewhere: int = field(default=0, init=False)
    _running: Counter[str] = field(default_factory=Counter, init=False)
    _queue: list[_Waiter] = field(default_factory=list, init=False)
    _alone: list[_Waiter] = field(default_factory=list, init=False)
    """Commands that are to run alone: the first one runs so, or is the next."""

    @property
    def parked_for_kind(self) -> int:
        return len(self._queue)

    @property
    def is_for_one(self) -> bool:
        """Whether a command runs alone, or waits until it does."""
        return bool(self._alone)

    def free(self) -> int:
        """Below zero while a command that waited goes on beside the one that took its slot."""
        return 0 if self._alone else self.size - self.used

    def window(self) -> int:
        """How many more may be pulled: none while too many wait for a kind, or one is to run alone."""
        if self._alone or len(self._queue) >= self.size:
            return 0
        return min(self.size, max(1, self.ceiling())) - self.used

    def take(self) -> None:
        self.used += 1

    def release(self, slots: int = 1) -> None:
        self.used -= slots
        if self._alone:
            self._admit_alone()
        if self._queue:
            self._admit()
        self.on_free()

    @contextmanager
    def waiting(self, kind: str | None = None) -> Iterator[None]:
        """Inside, the command holds nothing: not its slot and, of `kind`, not its place among those that may run.

        Afterwards it has all of it back at once, above the limits if need be: a command that has begun must be able
        to end. Bounded: with WAITING_PER_SLOT waiting for each slot, another one keeps what it has.

        Args:
            kind: the kind within which the command runs; None for one outside of its kind.
        """
        if self.parked_elsewhere >= self.size * WAITING_PER_SLOT:
            yield
            return
        with self._outside(kind):
            yield

    @contextmanager
    def _outside(self, kind: str | None = None) -> Iterator[None]:
        self.parked_elsewhere += 1
        if kind is not None:
            self._running[kind] -= 1
        self.release()
        try:
            yield
        finally:
            self.parked_elsewhere -= 1
            self.used += 1
            if kind is not None:
                self._running[kind] += 1

    async def enter_alone(self) -> None:
        """Wait, outside of the slot, until no other command holds one. None is let in from now until `leave_alone`.

        Whoever waits for something else goes on beside it all the same: what it waits for may be this command.
        """
        place = _Waiter()
        self._alone.append(place)
        try:
            with self._outside():
                await place.admitted
        except BaseException:
            self._leave_alone(place)
            raise

    def leave_alone(self) -> None:
        self._leave_alone(self._alone[0])

    def _leave_alone(self, place: _Waiter) -> None:
        self._alone.remove(place)
        self.release(0)  # its slot stays taken; others may run

    def _admit_alone(self) -> None:
        first = self._alone[0].admitted
        if self.used <= 0 and not first.done():
            first.set_result(None)

    def is_limited(self, kind: str) -> bool:
        """Whether a command of this kind may have to wait for others of it."""
        return kind in self.limits

    @asynccontextmanager
    async def kind(self, kind: str) -> AsyncIterator[None]:
        """Inside, a command of this kind runs within its limit; before, it waits for it outside of its slot."""
        if not self.is_limited(kind):
            yield
            return
        place = _Waiter(kind)
        self.used -= 1
        self._queue.append(place)
        self._admit()
        try:
            if not place.admitted.done():
                self.on_free()
                await place.admitted
        except asyncio.CancelledError:
            self._leave(place)
            raise
        try:
            yield
        finally:
            self._leave(place)

    def _admit(self) -> None:
        """Admit, in their order, those whose kind has room, while there are slots; beside one that is alone, none."""
        for place in list(self._queue):
            if self.used >= self.size:
                return
            if self._alone and place.task is not self._alone[0].task:
                continue
            if self._running[place.kind] >= self.limits[place.kind] or place.admitted.cancelled():
                continue
            self._queue.remove(place)
            self.used += 1
            self._running[place.kind] += 1
            place.admitted.set_result(None)

    def _leave(self, place: _Waiter) -> None:
        """Back to the slot that the delivery holds."""
        if place in self._queue:
            self._queue.remove(place)
            self.used += 1
            self._admit()
            return
        self._running[place.kind] -= 1
        self.release(0)  # its slot stays taken; another of its kind may run
