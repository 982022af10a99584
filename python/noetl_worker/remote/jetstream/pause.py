"""Pause of the durable by an operator (nats-server 2.11 or later): JetStream delivers nothing until the pause is over.

The stream still drops messages older than its max_age, so a pause that is too long loses commands.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from noetl_worker.errors import JetStreamError, NoetlWorkerError
from noetl_worker.observability.terminal import duration
from noetl_worker.remote.jetstream.api import ask, moment
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.remote.jetstream.comparison import NANOSECONDS
from noetl_worker.remote.jetstream.consumer import ENSURE, Found
from noetl_worker.remote.jetstream.message_search import get

LEFT_S: Final = 15 * 60
"""Seconds that must remain between the end of a pause and the expiry of any command in the stream."""
_FIRST_VERSION: Final = (2, 11)
log = structlog.get_logger("noetl_worker.remote.jetstream")


class PauseTooLong(NoetlWorkerError):
    """Error for a pause that would lose commands. The text gives the longest possible pause."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Pause of a durable as the server reports the pause. `left_s` is the remaining time in seconds, or 0 without a
    pause."""

    until: str
    left_s: float


async def pause(client: Client, found: Found, for_s: float) -> Paused:
    """Stop deliveries to all workers of the durable for `for_s` seconds.

    Raises:
        PauseTooLong: a command that waits already, or is published now, would expire during the pause.
        JetStreamError: the server refuses, or is older than 2.11 and cannot pause.
    """
    most_s = await _longest_s(client, found)
    if most_s is not None and for_s > most_s:
        longest = f"at most --for {duration(most_s)}" if most_s >= 1 else "no pause is possible now"
        raise PauseTooLong(
            f"--for {duration(for_s)} would lose commands: stream {found.stream} drops a message at its max_age, and "
            f"the oldest command must have {duration(LEFT_S)} left after the pause: {longest}"
        )
    until = datetime.datetime.fromtimestamp(time.time() + for_s, datetime.timezone.utc)
    return await _set(client, found, {"pause_until": until.isoformat().replace("+00:00", "Z")})


async def resume(client: Client, found: Found) -> Paused:
    """End the pause, so that JetStream delivers messages again.

    Raises:
        JetStreamError: the server refuses, or is older than 2.11 and cannot pause.
    """
    return await _set(client, found, {})


async def _set(client: Client, found: Found, body: Mapping[str, Any]) -> Paused:
    version = client.connected_server_version
    if (version.major, version.minor) < _FIRST_VERSION:
        at_least = ".".join(map(str, _FIRST_VERSION))
        raise JetStreamError(f"nats-server {version.major}.{version.minor} cannot pause a durable; use {at_least}")
    if found.durable_info is None:
        raise JetStreamError(f"there is no durable {found.durable} on stream {found.stream}: {ENSURE}")
    answer = await ask(client, f"CONSUMER.PAUSE.{found.stream}.{found.durable}", body)
    return Paused(str(answer.get("pause_until") or ""), int(answer.get("pause_remaining") or 0) / NANOSECONDS)


async def _longest_s(client: Client, found: Found) -> float | None:
    """Return the longest pause in seconds that loses no command, or None if the stream drops no message by its age."""
    max_age = int(((found.stream_info or {}).get("config") or {}).get("max_age") or 0)
    if not max_age or found.durable_info is None:
        return None
    info = found.durable_info
    oldest_s = 0.0
    if info.get("num_pending") or info.get("num_ack_pending"):
        first = int(info["ack_floor"]["stream_seq"]) + 1
        oldest = await get(client, found.stream, {"seq": first, "next_by_subj": ">"})
        if oldest is not None:
            oldest_s = max(0.0, time.time() - moment(oldest.stored_at))
    return max_age / NANOSECONDS - LEFT_S - oldest_s
