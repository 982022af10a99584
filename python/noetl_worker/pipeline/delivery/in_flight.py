"""What is in flight and what is finished: a command that arrives twice runs once.

The set is looked at before the claim and before a slot is taken: duplicates of active commands once starved fresh
ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Final

from noetl_worker.models.wire import CommandId

NO_MESSAGE: Final = 0
"""In place of a stream sequence: an outcome that is reported for a process that is dead."""


class Seen(Enum):
    NEW = "new"
    REDELIVERED = "redelivered"
    """The very message that is being worked on: its ack_wait passed. Its one answer settles both deliveries."""
    PUBLISHED_AGAIN = "published_again"
    """Another message for a command in flight here (a reaper, overlapping consumers)."""
    BEING_REPORTED = "being_reported"
    """Its outcome, which a dead process left, is on its way: in a moment it is finished, or this delivery's."""
    FINISHED = "finished"


class InFlight:
    """Commands of this process by id: a number or text for the same one (protocol/notification.md#message)."""

    def __init__(self, remember_s: float = 60.0, *, clock: Callable[[], float] | None = None) -> None:
        """`remember_s`: an ack may be lost, and its message come again after ack_wait: two of them. A duplicate that is
        older costs one claim (409)."""
        self._remember_s = remember_s
        self._clock = clock or time.monotonic  # looked up here: a simulation replaces it
        self._active: dict[CommandId, list[int]] = {}
        """Stream sequences of the deliveries that are worked on; an adopted outcome can be beside one."""
        self._finished: set[CommandId] = set()
        self._finished_before: set[CommandId] = set()
        self._turned_at = self._clock()

    def __len__(self) -> int:
        return len(self._active)

    def look(self, command_id: CommandId, stream_sequence: int) -> Seen:
        key = command_id if type(command_id) is int else _key(command_id)
        if key in self._active:
            deliveries = self._active[key]
            if stream_sequence in deliveries:
                return Seen.REDELIVERED
            return Seen.BEING_REPORTED if deliveries == [NO_MESSAGE] else Seen.PUBLISHED_AGAIN
        now = self._clock()
        if now - self._turned_at >= self._remember_s:
            self._forget_old(now)
        return Seen.FINISHED if key in self._finished or key in self._finished_before else Seen.NEW

    def enter(self, command_id: CommandId, stream_sequence: int) -> None:
        """The command is worked on until `leave`."""
        key = command_id if type(command_id) is int else _key(command_id)
        if key in self._active:
            self._active[key].append(stream_sequence)
        else:
            self._active[key] = [stream_sequence]

    def leave(self, command_id: CommandId, stream_sequence: int) -> None:
        key = command_id if type(command_id) is int else _key(command_id)
        deliveries = self._active[key]
        deliveries.remove(stream_sequence)
        if not deliveries:
            del self._active[key]

    def finish(self, command_id: CommandId) -> None:
        """Its terminal events are accepted: a later delivery needs no claim."""
        now = self._clock()
        if now - self._turned_at >= self._remember_s:
            self._forget_old(now)
        self._finished.add(command_id if type(command_id) is int else _key(command_id))

    def _forget_old(self, now: float) -> None:
        """Two sets that take turns: what is in the older one goes all at once, between one and two turns old."""
        is_older = now - self._turned_at >= 2 * self._remember_s
        self._finished_before = set() if is_older else self._finished
        self._finished, self._turned_at = set(), now


def _key(command_id: CommandId) -> CommandId:
    """A number where it is one, in either form: a worker remembers all it has finished, and a text takes twice that."""
    text = str(command_id)
    return int(text) if text.isdecimal() else text
