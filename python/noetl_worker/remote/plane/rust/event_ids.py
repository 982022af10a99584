"""Ids of terminal events. The Rust plane takes these ids from the worker: 41 bits of milliseconds, 10 bits of node, 12
bits of sequence (protocol/events.md#ids).

The plane reads its history in the order of the ids. The plane ignores an event whose id is below an id already read,
unless the event is terminal. If a terminal event's id is below its command's other ids, the execution stays RUNNING for
ever (protocol/events.md#ids).

An id ahead of the plane's clock hides later results. On server 3.54.0, the worker's clock was 50 ms ahead. Each step
then got null as the result of the step before. No step failed.

So the worker's clock is not used. The plane makes and returns the ids of a command's other events. The terminal event
gets the millisecond after these ids.
"""

from __future__ import annotations

import random
from typing import Final

from noetl_worker.settings.settings import Settings

_NODE_BITS: Final = 10
_SEQUENCE_BITS: Final = 12
_MAX_SEQUENCE: Final = (1 << _SEQUENCE_BITS) - 1


class EventIds:
    """Generator of event ids for one worker.

    Two workers with the same node number can make the same id. The plane then refuses the second id as a duplicate key.
    This is rare, because sequences begin at random.
    """

    def __init__(self, node: int) -> None:
        self._node = node & ((1 << _NODE_BITS) - 1)
        self._sequence = random.getrandbits(_SEQUENCE_BITS)

    def next_above(self, event_id: int) -> int:
        """Return a new id in the millisecond after the millisecond of `event_id`."""
        self._sequence = (self._sequence + 1) & _MAX_SEQUENCE
        millisecond = (event_id >> (_NODE_BITS + _SEQUENCE_BITS)) + 1
        return (((millisecond << _NODE_BITS) | self._node) << _SEQUENCE_BITS) | self._sequence


def make_event_ids(settings: Settings) -> EventIds:
    """Return the generator of event ids for a worker. Without NOETL_SNOWFLAKE_NODE_ID the node number is random."""
    node = settings.snowflake_node_id
    return EventIds(random.getrandbits(_NODE_BITS) if node is None else node)
