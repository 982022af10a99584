"""The stream and the durable: made when missing, checked when there, never recreated in silence."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import nats
import structlog
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy, StreamConfig

from noetl_worker.errors import JetStreamError
from noetl_worker.settings import Settings

__all__ = ["Durable", "consumer_lag", "ensure_durable"]

DEFAULT_STREAM: Final = "NOETL_COMMANDS"
_MAX_AGE_S: Final = 3600
log = structlog.get_logger("noetl_worker.jetstream")


@dataclass(frozen=True, slots=True)
class Durable:
    """The durable as the server has it; `ack_wait_s` is the effective one, which sets the keepalive's pace."""

    stream: str
    name: str
    ack_wait_s: float
    max_ack_pending: int
    filters: tuple[str, ...]


async def ensure_durable(client: Client, settings: Settings) -> Durable:
    """Find or make the stream and the durable.

    Raises:
        JetStreamError: JetStream is off, or the durable filters other subjects than the settings say (then
            another pool's commands would be claimed, wire.md T-22); the text has the command that fixes it.
    """
    manager = client.jsm()
    try:
        stream = settings.nats_stream or await _stream_of_subject(manager, settings)
        await _ensure_stream(manager, stream, settings)
        info = await _ensure_consumer(manager, stream, settings)
    except nats.js.errors.ServiceUnavailableError as error:
        raise JetStreamError("JetStream is not enabled on this NATS server: start it with -js") from error
    except (nats.js.errors.APIError, nats.errors.Error, asyncio.TimeoutError) as error:
        raise JetStreamError(f"cannot set up stream and durable: {error!r}") from error
    return _check(info, stream, settings)


async def _stream_of_subject(manager: Any, settings: Settings) -> str:
    for subject in (settings.nats_subject, f"{settings.nats_subject}.>"):
        try:
            return str(await manager.find_stream_name_by_subject(subject))
        except nats.js.errors.NotFoundError:
            continue
    return DEFAULT_STREAM


async def _ensure_stream(manager: Any, stream: str, settings: Settings) -> None:
    wanted = [settings.nats_subject, f"{settings.nats_subject}.>"]
    try:
        info = await manager.stream_info(stream)
    except nats.js.errors.NotFoundError:
        # As the Python plane makes it (wire.md 1.3), so that whoever comes first makes the same stream.
        await manager.add_stream(StreamConfig(name=stream, subjects=wanted, max_age=_MAX_AGE_S))
        log.info("stream_made", stream=stream, subjects=wanted)
        return
    uncovered = [s for s in settings.filters if not _covered(s, info.config.subjects or [])]
    if uncovered:
        # Not an error: the server delivers from a subject once the stream is extended (wire.md 1.4).
        log.warning("stream_lacks_subjects", stream=stream, subjects=info.config.subjects, missing=uncovered)


def _covered(subject: str, subjects: list[str]) -> bool:
    return any(subject == have or (have.endswith(".>") and subject.startswith(have[:-1])) for have in subjects)


async def _ensure_consumer(manager: Any, stream: str, settings: Settings) -> ConsumerInfo:
    try:
        found: ConsumerInfo = await manager.consumer_info(stream, settings.nats_consumer)
        return found
    except nats.js.errors.NotFoundError:
        pass
    filters = list(settings.filters)
    config = ConsumerConfig(
        durable_name=settings.nats_consumer,
        # all, not new: a command published before the first start must not wait for a reaper (wire.md T-24)
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=settings.ack_wait_s,
        max_deliver=settings.max_deliver,
        max_ack_pending=settings.max_ack_pending,
        filter_subject=filters[0] if len(filters) == 1 else None,
        filter_subjects=filters if len(filters) > 1 else None,
    )
    made: ConsumerInfo = await manager.add_consumer(stream, config)
    log.info("durable_made", stream=stream, durable=settings.nats_consumer, filters=filters)
    return made


def _check(info: ConsumerInfo, stream: str, settings: Settings) -> Durable:
    config = info.config
    if config is None:
        raise JetStreamError(f"the server sent no config for durable {settings.nats_consumer!r}")
    have = tuple(config.filter_subjects or ([config.filter_subject] if config.filter_subject else []))
    if set(have) != set(settings.filters):
        raise JetStreamError(
            f"durable {settings.nats_consumer!r} on stream {stream!r} filters {', '.join(have) or 'nothing'}, "
            f"the settings want {', '.join(settings.filters)}. Set NATS_FILTER_SUBJECT or NATS_CONSUMER, or "
            f"change the durable: nats consumer edit {stream} {settings.nats_consumer} "
            + " ".join(f"--filter '{subject}'" for subject in settings.filters)
        )
    if config.ack_policy not in (None, AckPolicy.EXPLICIT) or config.deliver_subject:
        raise JetStreamError(
            f"durable {settings.nats_consumer!r} is not a pull consumer with explicit acks: choose another "
            "NATS_CONSUMER, it will be made"
        )
    for name, wanted in (
        ("ack_wait", settings.ack_wait_s),
        ("max_ack_pending", settings.max_ack_pending),
        ("max_deliver", settings.max_deliver),
    ):
        value = getattr(config, name)
        if value is not None and value != wanted:
            log.warning(
                "durable_differs",
                durable=settings.nats_consumer,
                field=name,
                server=value,
                settings=wanted,
                advice="the server's value is used; align them with `nats consumer edit`",
            )
    return Durable(
        stream=stream,
        name=settings.nats_consumer,
        ack_wait_s=float(config.ack_wait or 30.0),
        max_ack_pending=int(config.max_ack_pending or 1000),
        filters=have,
    )


async def consumer_lag(client: Client, durable: Durable) -> tuple[int, int]:
    """(num_pending, num_ack_pending): what KEDA adds up to the lag."""
    info = await client.jsm().consumer_info(durable.stream, durable.name)
    return int(info.num_pending or 0), int(info.num_ack_pending or 0)
