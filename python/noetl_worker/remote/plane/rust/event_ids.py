"""Ids of terminal events, which the Rust plane takes from the worker: 41 bits of milliseconds, 10 bits of node, 12 bits
of sequence (protocol/events.md#ids).

The plane reads its history in id order, and ignores events below an id that it has seen, except terminal events. A
terminal event with an id below the other events of its command leaves the execution RUNNING for ever
(protocol/events.md#ids). An id above the plane's time hides later results: on server 3.54.0, with the worker's clock
50 ms ahead, each step got null as the result of the step before, and no step failed. So the worker's clock is not used:
a terminal event gets the millisecond after the events of its command, whose ids the plane has made and returned.
"""

from __future__ import annotations

import random
from typing import Final

from noetl_worker.settings.settings import Settings

_NODE_BITS: Final = 10
_SEQUENCE_BITS: Final = 12
_MAX_SEQUENCE: Final = (1 << _SEQUENCE_BITS) - 1


class EventIds:
    """Ids of one worker. Two workers with one node number can make the same id, which the plane refuses as a duplicate
    key; sequences begin at random, so this is rare."""

    def __init__(self, node: int) -> None:
        self._node = node & ((1 << _NODE_BITS) - 1)
        self._sequence = random.getrandbits(_SEQUENCE_BITS)

    def next_above(self, event_id: int) -> int:
        """Return an id in the millisecond after this id."""
        self._sequence = (self._sequence + 1) & _MAX_SEQUENCE
        millisecond = (event_id >> (_NODE_BITS + _SEQUENCE_BITS)) + 1
        return (((millisecond << _NODE_BITS) | self._node) << _SEQUENCE_BITS) | self._sequence


def make_event_ids(settings: Settings) -> EventIds:
    """Return the ids of a worker. Without NOETL_SNOWFLAKE_NODE_ID its node number is random."""
    node = settings.snowflake_node_id
    return EventIds(random.getrandbits(_NODE_BITS) if node is None else node)
