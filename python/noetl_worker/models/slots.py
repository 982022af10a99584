"""Slots: the limit on the commands that run at the same time, and the limits for single tool kinds.

A waiting command holds no slot. It may wait for a child execution, for the plane to accept its outcome, for room in its
kind, or to run alone. `window` limits how many messages are pulled. `free` and the limits of the kinds limit how many
commands run.
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
    """A command that waits for room in its kind or to run alone, or that runs after such a wait."""

    kind: str = ""
    """Kind of the command's tool; "" for a command that has to run alone."""
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    task: asyncio.Task[Any] | None = field(default_factory=lambda: asyncio.current_task())


@dataclass(slots=True, eq=False, repr=False)
class Slots:
    """The slots of a worker."""

    size: int
    limits: Mapping[str, int] = field(default_factory=dict)
    """Largest number of commands at the same time, for each limited kind."""
    ceiling: Callable[[], int] = field(default=lambda: sys.maxsize)
    """Function that returns how many slots may be filled now, as the control plane and the machine allow. A value below
    one counts as one."""
    on_free: Callable[[], object] = field(default=lambda: None)
    """Function that is called when a slot is free again."""
    used: int = field(default=0, init=False)
    """Number of slots that are taken."""
    parked_elsewhere: int = field(default=0, init=False)
    """Number of commands that wait without a slot, not counting those that wait for room in their kind."""
    _running: Counter[str] = field(default_factory=Counter, init=False)
    _queue: list[_Waiter] = field(default_factory=list, init=False)
    _alone: list[_Waiter] = field(default_factory=list, init=False)
    """Commands that have to run alone. The first one runs now, or is the next to run."""

    @property
    def parked_for_kind(self) -> int:
        """Number of commands that wait for room in their kind."""
        return len(self._queue)

    @property
    def is_for_one(self) -> bool:
        """True if a command runs alone, or waits to run alone."""
        return bool(self._alone)

    def free(self) -> int:
        """Return the number of free slots.

        It is negative while a command runs again after a wait, and the command that took its slot still runs too.
        """
        return 0 if self._alone else self.size - self.used

    def window(self) -> int:
        """Return how many more messages may be pulled. Return 0 if too many commands wait for their kind, or if one has
        to run alone."""
        if self._alone or len(self._queue) >= self.size:
            return 0
        return min(self.size, max(1, self.ceiling())) - self.used

    def take(self) -> None:
        self.used += 1

    def release(self, slots: int = 1) -> None:
        self.used -= slots
        if self._alone and self.used <= 0 and not self._alone[0].admitted.done():
            self._alone[0].admitted.set_result(None)
        if self._queue:
            self._admit()
        self.on_free()

    @contextmanager
    def waiting(self, kind: str | None = None) -> Iterator[None]:
        """Give up the command's slot, and its place in the limit of `kind`, until the end of the block.

        At the end the command gets both back at once, even above the limits, so that it can always finish. If
        WAITING_PER_SLOT commands per slot already wait in this way, the command keeps both.

        Args:
            kind: the kind in whose limit the command counts, or None.
        """
        if self.parked_elsewhere >= self.size * WAITING_PER_SLOT:
            yield
            return
        with self._lend_slot(kind):
            yield

    @contextmanager
    def _lend_slot(self, kind: str | None = None) -> Iterator[None]:
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
        """Wait, without a slot, until no other command holds a slot. Then let no other command run until `leave_alone`.

        A command inside `waiting` may still go on at the same time, because it may be waiting for this very command.
        """
        place = _Waiter()
        self._alone.append(place)
        try:
            with self._lend_slot():
                await place.admitted
        except BaseException:
            self._leave_alone(place)
            raise

    def leave_alone(self) -> None:
        """Let other commands run again, after `enter_alone`."""
        self._leave_alone(self._alone[0])

    def _leave_alone(self, place: _Waiter) -> None:
        self._alone.remove(place)
        self.release(0)  # frees no slot, but lets other commands run

    @asynccontextmanager
    async def kind(self, kind: str) -> AsyncIterator[None]:
        """Wait, without a slot, until the kind has room. Count the command in the kind's limit until the end of the
        block."""
        if kind not in self.limits:
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
        """Let waiting commands run, in order, while slots are free, their kind has room, and no other runs alone."""
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
        """End the wait of a command, or its place in the limit of its kind. The command has its slot afterwards."""
        if place in self._queue:
            self._queue.remove(place)
            self.used += 1
            self._admit()
            return
        self._running[place.kind] -= 1
        self.release(0)  # frees no slot, but lets another command of this kind run
