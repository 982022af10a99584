"""The stream of commands and its durable consumer.

The worker makes a missing stream or durable, and compares an existing stream or durable with the settings. The worker
logs when it makes a deleted stream or durable again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from noetl_worker.errors import JetStreamError
from noetl_worker.observability import metrics
from noetl_worker.observability.outage import Outage
from noetl_worker.remote.jetstream import comparison
from noetl_worker.remote.jetstream.api import ALREADY_THERE, ApiRefused, ask, ask_if_there, owning_stream
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.remote.jetstream.comparison import NANOSECONDS, ComparedField
from noetl_worker.remote.jetstream.start_notes import BUCKET, ensure_bucket
from noetl_worker.settings.nats import DEAD_LETTER_SUBJECT
from noetl_worker.settings.settings import Settings

DEFAULT_STREAM: Final = "NOETL_COMMANDS"
ENSURE: Final = "noetl-worker nats ensure --apply"
UNUSABLE_ADVICE: Final = "do what `error` says: no command of this pool runs until the durable is corrected"
_CHANGED_ADVICE: Final = "find who changed the durable; `noetl-worker nats ensure` compares it with the settings"
_DEFAULT_ACK_WAIT_S: Final = 30.0
_DEFAULT_MAX_ACK_PENDING: Final = 1000
log = structlog.get_logger("noetl_worker.remote.jetstream")


class _Logged(set[str]):
    """Names of conditions that are true now and were already logged. So a condition is logged only when it begins."""

    def begins(self, what: str, holds: bool) -> bool:
        """Return whether the condition named `what` is true now and was false at the last call."""
        is_new = holds and what not in self
        if holds:
            self.add(what)
        else:
            self.discard(what)
        return is_new


@dataclass(frozen=True, slots=True)
class Durable:
    """A durable consumer as the server describes it. `ack_wait_s` decides how often the worker extends a delivery."""

    stream: str
    name: str
    ack_wait_s: float
    max_ack_pending: int
    filters: tuple[str, ...]
    stream_config: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """Configuration of the stream, or None if this worker has just made the stream."""
    stream_created: str = field(default="", compare=False, repr=False)
    """Creation time of the stream, as the server writes the time. A stream that was deleted and made again has another
    time, and has lost its messages."""
    logged: _Logged = field(default_factory=_Logged, compare=False, repr=False)
    unusable: Outage = field(default_factory=Outage, compare=False, repr=False)

    def warn_of_stream(self, settings: Settings, *, is_made_bare: bool) -> None:
        """Warn of each field of the stream that differs from the settings.

        Args:
            is_made_bare: accept a stream whose only subject is NATS_SUBJECT, as the Python plane makes the stream.
        """
        if self.stream_config is None:
            return
        rows = comparison.stream_rows(self.stream_config, settings, is_made_bare=is_made_bare)
        _warn("stream_differs", self.stream, rows)


@dataclass(frozen=True, slots=True)
class Found:
    """The server's descriptions of the stream and the durable. A description is None if the object does not exist."""

    stream: str
    durable: str
    stream_info: Mapping[str, Any] | None
    durable_info: Mapping[str, Any] | None
    dead_letters: Mapping[str, Any] | None = None
    """Configuration of the stream of dead letters. None if the stream could not be read, or does not exist yet."""
    dead_letters_unknown: str = ""
    """Reason why the stream of dead letters could not be read."""


@dataclass(frozen=True, slots=True)
class DurableState:
    """State of a durable, as the function `look` last found it."""

    pending: int
    """Number of the durable's messages that no worker has received yet."""
    ack_pending: int
    """Number of messages that were delivered to any worker of the pool and not acknowledged yet. Messages returned with
    a delay count too."""
    durable: Durable
    """The durable with its current configuration."""
    pause_left_s: float = 0.0
    """Remaining seconds of an operator's pause, in which JetStream delivers nothing. 0 without a pause."""
    trouble: str | None = None
    """Reason why workers should not use the durable: it delivers nothing, or commands of another worker pool. None if
    they can use it."""


# ── at the start ────────────────────────────────────────────────────────────────────────────────


async def ensure_durable(client: Client, settings: Settings) -> Durable:
    """Find or make the stream and the durable.

    Raises:
        NatsUnavailable: JetStream is off, or does not answer.
        JetStreamError: a worker must not use the durable, and the text says how to repair the durable. The filters
            differ from the settings (the worker would claim another pool's commands, protocol/notification.md#durable),
            the durable is no pull consumer, or the durable refuses the worker's pull requests.
    """
    found = await _find_commands(client, settings)
    stream_info = found.stream_info or await _make_stream(client, found.stream, settings)
    info = found.durable_info
    if info is None:
        info = await _make_durable(client, found, settings)
    rows = comparison.durable_rows(info, settings)
    fatal = [row for row in rows if row.is_fatal and not row.agrees]
    if fatal:
        raise JetStreamError(_refusal(found, fatal[0], settings))
    _warn("durable_differs", found.durable, rows)
    _warn_of_dead_letters(await _with_dead_letters(client, found))
    config = found.stream_info["config"] if found.stream_info is not None else None
    created = str(stream_info.get("created") or "")
    return replace(_durable(found.stream, info), stream_config=config, stream_created=created)


async def ensure_again(client: Client, settings: Settings, before: Durable) -> Durable:
    """Make a deleted durable again. If its stream was deleted too, log how many commands were lost."""
    now = await ensure_durable(client, settings)
    if before.stream_created != now.stream_created:
        _report_lost(before)
    return now


def _report_lost(durable: Durable) -> None:
    """Log how many commands waited in a deleted stream at the last check. Each deleted stream is logged once."""
    if not durable.logged.begins(f"lost {durable.stream_created}", holds=True):
        return
    waited = int(metrics.PENDING.labels(durable.stream, durable.name).value)
    metrics.COMMANDS_LOST.inc(waited)
    log.error(
        "stream_lost",
        stream=durable.stream,
        waited=waited,
        advice="start the stalled executions again: somebody deleted the stream, and the commands that waited are "
        "lost. The worker makes the stream again; running commands are still reported",
    )


async def ensure_stream(client: Client, settings: Settings) -> tuple[str, Mapping[str, Any]]:
    """Find or make the stream of commands, and return its name and configuration. Warn of fields that differ.

    Raises:
        JetStreamError: the stream cannot be read or made.
    """
    stream, info = await find_stream(client, settings)
    if info is None:
        await _make_stream(client, stream, settings)
        info = await ask(client, f"STREAM.INFO.{stream}")
    _warn("stream_differs", stream, comparison.stream_rows(info["config"], settings))
    return stream, info["config"]


def _warn_of_dead_letters(found: Found) -> None:
    if found.dead_letters_unknown:
        error = found.dead_letters_unknown
        log.warning(
            "dead_letter_stream_unknown",
            subject=DEAD_LETTER_SUBJECT,
            error=error,
            advice="run `noetl-worker doctor`, which checks the permission: it is not known whether the stream can "
            "lose dead letters",
        )
    elif found.dead_letters is not None:
        rows = comparison.dead_letter_rows(found.dead_letters)
        _warn("dead_letter_stream_differs", found.dead_letters["name"], rows)


async def find(client: Client, settings: Settings) -> Found:
    """Find the stream of commands, its durable and the stream of dead letters. Make nothing.

    The stream of commands is NATS_STREAM, else the stream that owns NATS_SUBJECT.
    """
    return await _with_dead_letters(client, await _find_commands(client, settings))


async def _with_dead_letters(client: Client, found: Found) -> Found:
    """Return a copy of `found` (descriptions of the command stream and its durable) with the dead letter stream's
    configuration. If reading fails, the copy has the error text instead, because a worker rarely needs this stream."""
    try:
        stream = await owning_stream(client, DEAD_LETTER_SUBJECT)
        info = await ask_if_there(client, f"STREAM.INFO.{stream}") if stream is not None else None
    except JetStreamError as error:
        return replace(found, dead_letters_unknown=str(error))
    return found if info is None else replace(found, dead_letters=info["config"])


async def find_stream(client: Client, settings: Settings) -> tuple[str, dict[str, Any] | None]:
    """Return the name of the stream of commands, and the server's description or None if the stream does not exist."""
    subject = settings.nats_subject
    stream = settings.nats_stream or await owning_stream(client, subject, f"{subject}.>") or DEFAULT_STREAM
    return stream, await ask_if_there(client, f"STREAM.INFO.{stream}")


async def _find_commands(client: Client, settings: Settings) -> Found:
    stream, stream_info = await find_stream(client, settings)
    durable_info = None
    if stream_info is not None:
        durable_info = await ask_if_there(client, f"CONSUMER.INFO.{stream}.{settings.nats_consumer}")
    return Found(stream, settings.nats_consumer, stream_info, durable_info)


def other_owner_text(name: str, owner: str, settings: Settings) -> str:
    return f"there is no stream {name}, and none can be made: the stream {owner} owns {settings.nats_subject}"


def use_stream_text(owner: str) -> str:
    return f"set NATS_STREAM={owner}, or leave NATS_STREAM out"


async def _make_stream(client: Client, name: str, settings: Settings) -> dict[str, Any]:
    config = comparison.new_stream(name, settings)
    try:
        made = await ask(client, f"STREAM.CREATE.{name}", config)
    except ApiRefused as refused:
        if refused.err_code in ALREADY_THERE:  # the plane has just made it, with its own configuration
            return await ask(client, f"STREAM.INFO.{name}")
        owner = await owning_stream(client, settings.nats_subject, f"{settings.nats_subject}.>")
        if owner is None:
            raise
        raise JetStreamError(f"{other_owner_text(name, owner, settings)}: {use_stream_text(owner)}") from refused
    log.info("stream_made", stream=name, subjects=config["subjects"])
    return made


async def _make_durable(client: Client, found: Found, settings: Settings, first: int | None = None) -> dict[str, Any]:
    try:
        made = await _put_durable(client, found, comparison.new_durable(settings, first), "create")
    except ApiRefused as refused:
        if refused.err_code not in ALREADY_THERE:  # else another worker has just made it, with other settings
            raise
        return await ask(client, f"CONSUMER.INFO.{found.stream}.{found.durable}")
    log.info("durable_made", stream=found.stream, durable=found.durable, filters=settings.filters)
    return made


async def _put_durable(client: Client, found: Found, config: Mapping[str, Any], action: str) -> dict[str, Any]:
    """Create or update the durable: `action` is "create" or "update"."""
    body = {"stream_name": found.stream, "config": config, "action": action}
    return await ask(client, f"CONSUMER.CREATE.{found.stream}.{found.durable}", body)


def _warn(event: str, name: str, rows: Sequence[ComparedField]) -> None:
    """Log a warning for each configuration field in which the server's value differs from the settings."""
    for row in rows:
        if not row.agrees:
            log.warning(
                event,
                name=name,
                field=row.field,
                server=row.have,
                settings=row.wanted,
                matters=row.matters,
                change=row.change,
                advice=f"run `{ENSURE}` if `change` is in place; until then the worker uses the server's value",
            )


def _refusal(found: Found, row: ComparedField, settings: Settings) -> str:
    start = f"durable {found.durable!r} on stream {found.stream!r}"
    if row.field == "filters":
        flags = " ".join(f"--filter '{subject}'" for subject in settings.filters)
        return (
            f"{start} filters {row.have}, the settings want {row.wanted}. Set NATS_FILTER_SUBJECT or NATS_CONSUMER, "
            f"or change the durable: {ENSURE} (or: nats consumer edit {found.stream} {found.durable} {flags})"
        )
    return (
        f"{start} cannot serve a worker: {row.have} ({row.matters}). Choose another NATS_CONSUMER (it will be made), "
        f"or run {ENSURE}, which says how to go on"
    )


def _durable(stream: str, info: Mapping[str, Any]) -> Durable:
    config = info["config"]
    ack_wait = int(config.get("ack_wait") or 0)
    return Durable(
        stream=stream,
        name=str(info.get("name") or config.get("durable_name")),
        ack_wait_s=ack_wait / NANOSECONDS if ack_wait else _DEFAULT_ACK_WAIT_S,
        max_ack_pending=int(config.get("max_ack_pending") or _DEFAULT_MAX_ACK_PENDING),
        filters=comparison.config_filters(config),
    )


# ── for an operator ─────────────────────────────────────────────────────────────────────────────


async def apply(client: Client, found: Found, settings: Settings, first: int | None = None) -> list[str]:
    """Make the stream, the durable and the key-value bucket for notes of command starts (start_notes.py) if missing. In
    an existing stream or durable, correct the fields that JetStream can change in place.

    A change of the durable affects every worker that pulls from the durable. Return one line of text for each change.

    Args:
        first: stream sequence at which a new durable begins, or None for the oldest message.

    Raises:
        JetStreamError: JetStream refused a change. Earlier changes stay.
    """
    done: list[str] = []
    if found.stream_info is None:
        await _make_stream(client, found.stream, settings)
        done.append(f"stream {found.stream} made")
    elif changes := _changes(comparison.stream_rows(found.stream_info["config"], settings)):
        config = comparison.patched(found.stream_info["config"], _together(changes))
        await ask(client, f"STREAM.UPDATE.{found.stream}", config)
        done += [f"stream {found.stream}: {_row_text(row)}" for row in changes]
    if found.durable_info is None:
        await _make_durable(client, found, settings, first)
        done.append(f"durable {found.durable} made")
    elif changes := _changes(comparison.durable_rows(found.durable_info, settings)):
        config = comparison.patched(found.durable_info["config"], _together(changes))
        await _put_durable(client, found, config, "update")
        done += [f"durable {found.durable}: {_row_text(row)}" for row in changes]
    if await ensure_bucket(client):
        done.append(f"bucket {BUCKET} made")
    return done


def _changes(rows: Sequence[ComparedField]) -> list[ComparedField]:
    """Return the fields of a stream or durable that differ from the worker's settings and that `apply` can correct.
    Return an empty list if a fatal difference remains for an operator to correct.

    Args:
        rows: all compared fields, also those that agree with the settings.
    """
    differing = [row for row in rows if not row.agrees]
    if any(row.is_fatal and row.patch is None for row in differing):
        return []
    return [row for row in differing if row.patch is not None]


def _together(rows: Sequence[ComparedField]) -> dict[str, Any]:
    return {name: value for row in rows for name, value in (row.patch or {}).items()}


def _row_text(row: ComparedField) -> str:
    return f"{row.field} {row.have} -> {row.wanted}"


# ── in use ──────────────────────────────────────────────────────────────────────────────────────


async def check_durable(client: Client, durable: Durable, settings: Settings) -> DurableState:
    """Return the current state of the durable. Log each change of the durable once, and set the gauges.

    A durable that no worker can use is logged every minute.

    Raises:
        JetStreamError: JetStream did not answer, or the durable was deleted. The puller makes a deleted durable again.
    """
    info = await ask_if_there(client, f"CONSUMER.INFO.{durable.stream}.{durable.name}")
    is_stream_gone = info is None and await ask_if_there(client, f"STREAM.INFO.{durable.stream}") is None
    if is_stream_gone:
        _report_lost(durable)
    if durable.logged.begins("gone", info is None) and not is_stream_gone:
        log.error(
            "durable_gone",
            stream=durable.stream,
            durable=durable.name,
            advice="find out who deleted the durable (NATS's advisories, other deployments). The worker makes it "
            "again, and JetStream delivers all messages again; finished commands are dropped at their claim",
        )
    if info is None:
        metrics.DURABLE_USABLE.labels(durable.stream, durable.name).set(0)
        raise JetStreamError(
            f"durable {durable.name!r} on stream {durable.stream!r} is gone; the worker makes it again at its next pull"
        )
    seen = DurableState(
        int(info.get("num_pending") or 0),
        int(info.get("num_ack_pending") or 0),
        _durable(durable.stream, info),
        comparison.pause_left_s(info),
        _watch_use(durable, info, settings),
    )
    _log_changes(durable, seen)
    _watch_pause(durable, seen)
    _watch_limit(durable, seen, is_ack_refused=client.is_ack_refused)
    return seen


def _watch_use(durable: Durable, info: Mapping[str, Any], settings: Settings) -> str | None:
    """Return the reason why no worker of this pool should use the durable, or None. Log when the durable becomes
    unusable or usable again."""
    wrong = next((row for row in comparison.durable_rows(info, settings) if row.is_fatal and not row.agrees), None)
    metrics.DURABLE_USABLE.labels(durable.stream, durable.name).set(wrong is None)
    if wrong is None:
        if (line := durable.unusable.note_success()) is not None:
            log.info("durable_usable", durable=durable.name, **line)
        return None
    reason = _refusal(Found(durable.stream, durable.name, None, info), wrong, settings)
    if (line := durable.unusable.note_failure(reason)) is not None:
        log.error("durable_unusable", durable=durable.name, field=wrong.field, **line, advice=UNUSABLE_ADVICE)
    return f"the durable has changed: {wrong.field} {wrong.have}, the settings want {wrong.wanted}"


def _log_changes(before: Durable, seen: DurableState) -> None:
    now = seen.durable
    for name in ("ack_wait_s", "max_ack_pending"):
        old, new = getattr(before, name), getattr(now, name)
        if before.logged.begins(f"{name} {new}", old != new):
            log.warning("durable_changed", durable=now.name, field=name, before=old, now=new, advice=_CHANGED_ADVICE)


def _watch_pause(durable: Durable, seen: DurableState) -> None:
    metrics.PAUSED.labels(durable.stream, durable.name).set(seen.pause_left_s)
    if durable.logged.begins("paused", seen.pause_left_s > 0):
        log.warning(
            "durable_paused",
            durable=durable.name,
            left_s=round(seen.pause_left_s),
            waiting=seen.pending,
            advice="wait for the end of the pause, which an operator asked for, or run `noetl-worker nats resume`; "
            "running commands go on",
        )


def _watch_limit(durable: Durable, seen: DurableState, *, is_ack_refused: bool) -> None:
    """Warn when the durable reaches max_ack_pending, since JetStream then delivers to nobody.

    If all workers that have these unacknowledged messages have died, the limit holds until ack_wait is over
    (protocol/jetstream.md#limit).
    """
    limit = seen.durable.max_ack_pending
    is_full = 0 < limit <= seen.ack_pending
    labels = (durable.stream, durable.name)
    metrics.MAX_ACK_PENDING.labels(*labels).set(limit)
    metrics.ACK_PENDING_FULL.labels(*labels).set(is_full)
    if durable.logged.begins("full", is_full):
        log.warning(
            "max_ack_pending_reached",
            durable=durable.name,
            ack_pending=seen.ack_pending,
            max_ack_pending=limit,
            waiting=seen.pending,
            advice="this login may not acknowledge: see `acks_refused`"
            if is_ack_refused
            else "raise NOETL_WORKER_MAX_ACK_PENDING above the slots of all workers together and run "
            f"`{ENSURE}`. Until a message is acknowledged, or a dead worker's ack_wait "
            f"({seen.durable.ack_wait_s:g} s) is over, no worker of this pool gets a command",
        )
