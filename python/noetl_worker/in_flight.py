"""What is in flight and what is finished: a command that arrives twice runs once.

The set is looked at before the claim and before a slot is taken: duplicates of active commands once starved fresh
ones (production-lessons B13).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

from noetl_worker.models import CommandId

__all__ = ["InFlight", "Seen"]

REMEMBERED: Final = 10_000
"""Finished commands kept in mind: some minutes of a full worker; an older duplicate costs one claim (409)."""


class Seen(Enum):
    NEW = "new"
    REDELIVERED = "redelivered"
    """The very message that is being worked on: its ack_wait passed. Its one answer settles both deliveries."""
    PUBLISHED_AGAIN = "published_again"
    """Another message for a command in flight here (a reaper, overlapping consumers)."""
    FINISHED = "finished"


class InFlight:
    """Commands of this process by str(command_id): ids come as int and as text for the same command (T-2)."""

    def __init__(self) -> None:
        self._active: dict[str, list[int]] = {}
        """Stream sequences of the deliveries that are worked on; an adopted outcome can be beside one."""
        self._finished: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._active)

    def look(self, command_id: CommandId, stream_sequence: int) -> Seen:
        key = str(command_id)
        if key in self._active:
            return Seen.REDELIVERED if stream_sequence in self._active[key] else Seen.PUBLISHED_AGAIN
        return Seen.FINISHED if key in self._finished else Seen.NEW

    @contextmanager
    def entered(self, command_id: CommandId, stream_sequence: int) -> Iterator[None]:
        """The command is worked on inside this block."""
        key = str(command_id)
        self._active.setdefault(key, []).append(stream_sequence)
        try:
            yield
        finally:
            self._active[key].remove(stream_sequence)
            if not self._active[key]:
                del self._active[key]

    def finish(self, command_id: CommandId) -> None:
        """Its terminal events are accepted: a later delivery needs no claim."""
        self._finished[str(command_id)] = None
        while len(self._finished) > REMEMBERED:
            self._finished.popitem(last=False)
