"""Commands in flight or just finished, so that a command that arrives twice runs once.

The executor calls `classify` before it claims a command. Without this check, duplicates of running commands once used
up all slots.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from typing import Final

from noetl_worker.models.wire import CommandId

NO_MESSAGE: Final = 0
"""Value of `stream_sequence` for a command without a message: this worker only reports the outcome that a dead process
left in the outbox."""


class Seen(Enum):
    NEW = "new"
    REDELIVERED = "redelivered"
    """The same message, redelivered after ack_wait while its command is in flight here. One answer to JetStream settles
    both deliveries."""
    PUBLISHED_AGAIN = "published_again"
    """Another message for a command in flight here (the plane published it twice, or two durables overlap)."""
    BEING_REPORTED = "being_reported"
    """A dead process left an outcome of this command, and this worker is sending that outcome. If the plane does not
    accept the outcome, a later delivery may run the command."""
    FINISHED = "finished"


class InFlight:
    """Commands that this process runs or has just finished, by command id. The id of one command may arrive both as a
    number and as a string (protocol/notification.md#message).

    Args:
        remember_s: shortest time in seconds for which a finished command is remembered. Two ack_waits are enough: after
            a lost ack, the message is redelivered after one ack_wait. A later duplicate costs one claim request, which
            the plane refuses (409).
    """

    def __init__(self, remember_s: float = 60.0, *, clock: Callable[[], float] | None = None) -> None:
        self._remember_s = remember_s
        self._clock = clock or time.monotonic  # looked up here: a simulation replaces the clock
        self._active: dict[CommandId, list[int]] = {}
        """Stream sequences of the messages in progress, by command. NO_MESSAGE stands for an outcome that a dead
        process left in the outbox and that this worker sends."""
        self._finished: set[CommandId] = set()
        self._finished_before: set[CommandId] = set()
        self._turned_at = self._clock()

    def classify(self, command_id: CommandId, stream_sequence: int) -> Seen:
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
        """Mark a command as in flight until `leave` is called with the same arguments."""
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
        """Mark the command as finished, so that a later delivery is acknowledged without a claim."""
        now = self._clock()
        if now - self._turned_at >= self._remember_s:
            self._forget_old(now)
        self._finished.add(command_id if type(command_id) is int else _key(command_id))

    def _forget_old(self, now: float) -> None:
        """Begin a new set of finished commands. Keep the present set as `_finished_before` if some of its commands may
        have finished less than `remember_s` ago."""
        is_older = now - self._turned_at >= 2 * self._remember_s
        self._finished_before = set() if is_older else self._finished
        self._finished, self._turned_at = set(), now


def _key(command_id: CommandId) -> CommandId:
    """Return a decimal id as a number, any other id as a string: `7` and `"7"` are the same command. A number also
    takes half the memory of a string, and many finished ids are remembered."""
    text = str(command_id)
    return int(text) if text.isdecimal() else text
