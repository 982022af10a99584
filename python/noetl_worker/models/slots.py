"""Slots: the limit on the commands that run at the same time, and further limits for single tool kinds.

A waiting command usually holds no slot. A command may wait for a child execution, for the plane to accept its outcome,
for the limit of its tool kind, or until no other command runs. `Slots.window` limits how many messages the worker
pulls. `Slots.free` and the limits of the kinds decide how many commands run.
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
    """An entry for a command that waits: until the limit of its tool kind lets it run, or until it may run alone."""

    kind: str = ""
    """Kind of the command's tool; "" for a command that has to run alone."""
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    task: asyncio.Task[Any] | None = field(default_factory=lambda: asyncio.current_task())


@dataclass(slots=True, eq=False, repr=False)
class Slots:
    """The slots of one worker. A running command holds a slot. A waiting command gives its slot to another command."""

    size: int
    limits: Mapping[str, int] = field(default_factory=dict)
    """Largest number of commands that may run at the same time, by tool kind. A kind without an entry has no limit of
    its own."""
    ceiling: Callable[[], int] = field(default=lambda: sys.maxsize)
    """Function that returns how many slots may be filled now. An overloaded control plane or machine lowers the number.
    A returned number below one counts as one."""
    on_free: Callable[[], object] = field(default=lambda: None)
    """Function that is called when a slot is free again."""
    used: int = field(default=0, init=False)
    """Number of slots that are taken."""
    parked_elsewhere: int = field(default=0, init=False)
    """Number of commands that wait without a slot, except the commands that `parked_for_kind` counts."""
    _running: Counter[str] = field(default_factory=Counter, init=False)
    _queue: list[_Waiter] = field(default_factory=list, init=False)
    _alone: list[_Waiter] = field(default_factory=list, init=False)
    """Commands that have to run alone, in the order of their arrival. The first command runs now, or runs next."""

    @property
    def parked_for_kind(self) -> int:
        """Number of commands that wait until the limit of their tool kind lets them run."""
        return len(self._queue)

    @property
    def is_exclusive(self) -> bool:
        """True if a command runs alone, or waits to run alone."""
        return bool(self._alone)

    def free(self) -> int:
        """Return the number of free slots. Return 0 if a command runs alone, or waits to run alone.

        The number is negative while more commands hold a slot than the worker has slots. The reason is `waiting`: a
        command gives up its slot while it waits. After the wait it takes a slot at once, even if no slot is free.
        """
        return 0 if self._alone else self.size - self.used

    def window(self) -> int:
        """Return how many more messages the worker may pull. Return 0 if a command has to run alone, or
        if too many commands wait (`parked_for_kind`)."""
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
        """Give up the command's slot while the `with` block runs. The command also stops counting in the limit of
        `kind`.

        At the end of the block the command gets its slot back at once, even above the limits. So the command can always
        finish. If WAITING_PER_SLOT commands for each slot already wait in this way, the command keeps its slot.

        Args:
            kind: tool kind whose limit counts the command, or None if no limit counts the command.
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

    async def start_exclusive(self) -> None:
        """Wait, without a slot, until no other command holds a slot. Then let no other command start until
        `end_exclusive`.

        A command inside `waiting` may still go on at the same time. It may be the parent playbook that waits for this
        command.
        """
        place = _Waiter()
        self._alone.append(place)
        try:
            with self._lend_slot():
                await place.admitted
        except BaseException:
            self._leave_alone(place)
            raise

    def end_exclusive(self) -> None:
        """End the time in which one command runs alone (`start_exclusive`). Other commands may then start again."""
        self._leave_alone(self._alone[0])

    def _leave_alone(self, place: _Waiter) -> None:
        self._alone.remove(place)
        self.release(0)  # frees no slot, but lets other commands run

    @asynccontextmanager
    async def kind(self, kind: str) -> AsyncIterator[None]:
        """Wait, without a slot, until the limit of the tool kind allows one more running command. Count the command in
        that limit until the end of the `with` block."""
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
            self._leave_kind(place)
            raise
        try:
            yield
        finally:
            self._leave_kind(place)

    def _admit(self) -> None:
        """Let the commands in `_queue` run, in order, as long as slots are free and the limits of their kinds allow.
        While a command has to run alone, let only this command run."""
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

    def _leave_kind(self, place: _Waiter) -> None:
        """Stop counting a command in the limit of its tool kind. The context manager `kind` calls this at its end.

        A command that was cancelled while it waited in `kind` holds no slot. Give this command a slot, even if no slot
        is free, because a command must hold a slot after `kind` as before.
        """
        if place in self._queue:
            self._queue.remove(place)
            self.used += 1
            self._admit()
            return
        self._running[place.kind] -= 1
        self.release(0)  # frees no slot, but lets another command of this kind run
