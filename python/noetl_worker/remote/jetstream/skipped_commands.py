"""Counts of the commands that a durable never delivers, because of changed filters or a late start sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from noetl_worker.remote.jetstream.api import ask
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.remote.jetstream.comparison import NANOSECONDS, config_filters, filter_fields, patched
from noetl_worker.remote.jetstream.consumer import Found
from noetl_worker.settings.nats import covers

_COUNTED_S: Final = 5
"""Seconds after which JetStream deletes an unused consumer that was made only to count messages. Needed if the worker's
own deletion fails."""


@dataclass(frozen=True, slots=True)
class SkippedCommands:
    """Counts of messages in the stream that a durable will never deliver. They include messages of finished commands
    that are still in the stream."""

    behind: int
    """Number of messages before the durable's position (`place`) that match its present filters but were never
    delivered. The durable had other filters when it passed these messages, or it starts after them."""
    place: int
    """Position of the durable: the stream sequence up to which the durable has delivered or skipped all messages."""
    first: int
    """Stream sequence of the oldest message in the stream."""
    unwanted: int = 0
    """Number of messages after the durable's position that only its old filters match. The new filters do not deliver
    them."""


async def count_skipped(client: Client, before: Found, after: Found) -> SkippedCommands | None:
    """Count the messages that the durable does not deliver because of its new filters or its start sequence. Return
    None if there are no such messages.

    Args:
        before: stream and durable before the change.
        after: stream and durable now.

    Raises:
        JetStreamError: the count failed. The change of the filters stays.
    """
    if after.durable_info is None or after.stream_info is None:
        return None
    config = after.durable_info["config"]
    first, new = int(after.stream_info["state"]["first_seq"]), config_filters(config)
    if before.durable_info is None:
        place = int(config.get("opt_start_seq") or 1) - 1
        behind = await _count_before(client, after.stream, new, place)
        return SkippedCommands(behind, place, first) if behind else None
    old = config_filters(before.durable_info["config"])
    if set(old) == set(new):
        return None
    place = int(after.durable_info["delivered"]["stream_seq"])
    either = [*old, *new] if old and new else []
    behind = await _count_before(client, after.stream, either, place)
    behind -= await _count_before(client, after.stream, old, place)
    unwanted = await _count(client, after.stream, either, place + 1)
    unwanted -= await _count(client, after.stream, new, place + 1)
    return SkippedCommands(behind, place, first, unwanted) if behind or unwanted else None


async def _count_before(client: Client, stream: str, filters: Sequence[str], place: int) -> int:
    return await _count(client, stream, filters, 1) - await _count(client, stream, filters, place + 1)


async def _count(client: Client, stream: str, filters: Sequence[str], first: int) -> int:
    """Return the number of messages that match the filters, from stream sequence `first` on. Without filters, count
    all."""
    config = {
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": first,
        "ack_policy": "none",
        "inactive_threshold": _COUNTED_S * NANOSECONDS,
        "mem_storage": True,
        "num_replicas": 1,
    }
    whole = patched(config, filter_fields(_without_covered(filters))) if filters else config
    made = await ask(client, f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": whole})
    await ask(client, f"CONSUMER.DELETE.{stream}.{made['name']}")
    return int(made.get("num_pending") or 0)


def _without_covered(filters: Sequence[str]) -> list[str]:
    """Drop each filter that another filter covers, because JetStream refuses overlapping filters."""
    distinct = list(dict.fromkeys(filters))
    return [one for one in distinct if not any(other != one and covers(other, one) for other in distinct)]
