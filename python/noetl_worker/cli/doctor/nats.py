"""Checks of NATS: the login and its permissions, stream and durable field by field, other durables, the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from noetl_worker.cli.doctor import clock, login, permissions, plane, system_pool
from noetl_worker.cli.doctor.finding import Finding, State, fine, unknown, warning, wrong
from noetl_worker.errors import JetStreamError, SettingsError
from noetl_worker.observability.terminal import duration
from noetl_worker.remote.jetstream.api import ask, moment, owning_stream
from noetl_worker.remote.jetstream.comparison import (
    IN_PLACE,
    ComparedField,
    config_filters,
    dead_letter_rows,
    durable_rows,
    pause_left_s,
    stream_rows,
)
from noetl_worker.remote.jetstream.connection import Connection, connect
from noetl_worker.remote.jetstream.consumer import (
    DEFAULT_STREAM,
    ENSURE,
    Found,
    find,
    other_owner_text,
    use_stream_text,
)
from noetl_worker.remote.jetstream.dead_letter_store import DEAD_LETTER_STREAM
from noetl_worker.remote.jetstream.trial import server_version
from noetl_worker.settings.nats import DEAD_LETTER_SUBJECT, covers
from noetl_worker.settings.settings import Settings

_REACHED: Final = "a server that takes this login"
_OTHER_POOL: Final = (
    "set NATS_FILTER_SUBJECT to the filters that were found, or NATS_CONSUMER to the durable of this pool: the durable "
    "that was found may belong to another pool"
)
"""Advice for a durable whose filters are not ours. It does not say `nats ensure`: this command would overwrite
the durable's filters, and the pool to which the durable belongs would get no commands."""


async def examine(
    settings: Settings, now: Callable[[], float] = lambda: time.time(), *, is_made_bare: bool = False
) -> list[Finding]:
    """Connect to NATS, and return findings about its permissions, stream, durables, dead letters and clock.

    Args:
        now: reads this machine's clock, in seconds since 1970.
        is_made_bare: True if the plane creates the stream itself, with NATS_SUBJECT as its only subject.
    """
    where = ", ".join(settings.nats_servers)
    try:
        connection = await connect(settings, "noetl-worker doctor", attempts=1)
    except (JetStreamError, SettingsError) as error:
        return [wrong("NATS", str(error), _REACHED, "start it, or set NATS_URL and the login (noetl-worker config)")]
    except OSError as error:  # certificates that cannot be read
        return [wrong("NATS", f"{where}: {error}", _REACHED, "NATS_CA, NATS_CERT and NATS_KEY: PEM files")]
    try:
        reached = fine("NATS", f"{where}, version {server_version(connection)}", _REACHED)
        return [reached, *await _examine_jetstream(connection, settings, now, is_made_bare=is_made_bare)]
    except JetStreamError as error:
        return [
            reached,
            wrong(
                "JetStream", str(error), "JetStream for this account", "enable JetStream for the account of this login"
            ),
        ]
    finally:
        await connection.close()


async def _examine_jetstream(
    connection: Connection, settings: Settings, now: Callable[[], float], *, is_made_bare: bool
) -> list[Finding]:
    client, subject = connection.client, settings.nats_subject
    stream, kept_in = settings.nats_stream, ""
    allowed = await permissions.try_first(connection)
    if not any(finding.state is State.WRONG for finding in allowed):
        stream = stream or await owning_stream(client, subject, f"{subject}.>") or ""
        kept_in = await owning_stream(client, DEAD_LETTER_SUBJECT) or ""
    streams = stream or DEFAULT_STREAM, kept_in or DEAD_LETTER_STREAM
    allowed += await permissions.try_rest(connection, settings, *streams)
    allowed += await login.examine(connection, settings)
    if any(finding.check in permissions.LOOKS and finding.state is State.WRONG for finding in allowed):
        return allowed
    found = await find(client, settings)
    owner = await owning_stream(client, subject, f"{subject}.>") if found.stream_info is None else None
    has = {"has_stream": found.stream_info is not None, "has_durable": found.durable_info is not None}
    return [
        *(permissions.mark_if_fatal(finding, **has) for finding in allowed),
        *_check_stream(found, settings, owner, is_made_bare=is_made_bare),
        *_check_durable(found, settings),
        *_check_dead_letters(found, settings),
        *await _check_other_durables(connection, found, settings),
        await _check_clock(connection, found, now),
    ]


# ── stream and durable, field by field ──────────────────────────────────────────────────────────


def _check_stream(found: Found, settings: Settings, owner: str | None, *, is_made_bare: bool) -> list[Finding]:
    """Check that the stream of commands exists, and compare its configuration with the settings.

    Args:
        owner: the stream that has our subject, if the stream that the settings name does not exist; else None.
    """
    wanted = "the stream of commands (a worker's start makes it)"
    if found.stream_info is None and owner is not None:
        return [wrong("stream", other_owner_text(found.stream, owner, settings), wanted, use_stream_text(owner))]
    if found.stream_info is None:
        return [warning("stream", f"there is no stream {found.stream}", wanted, ENSURE)]
    rows = stream_rows(found.stream_info["config"], settings, is_made_bare=is_made_bare)
    return [fine("stream", found.stream, wanted), *(_row_finding("stream", row) for row in rows)]


def _check_durable(found: Found, settings: Settings) -> list[Finding]:
    wanted = "the pool's durable (a worker's start makes it)"
    if found.durable_info is None:
        return [warning("durable", f"there is no durable {found.durable}", wanted, ENSURE)]
    fixes = {"filters": _OTHER_POOL} if _is_of_others(found.durable_info, settings) else {}
    rows = durable_rows(found.durable_info, settings)
    shown = [_row_finding("durable", row, fixes.get(row.field, "")) for row in rows]
    return [fine("durable", found.durable, wanted), *shown, *_check_pause(found)]


def _check_pause(found: Found) -> list[Finding]:
    if not (left_s := pause_left_s(found.durable_info)):
        return []
    text = f"by an operator, for {duration(left_s)} more: no worker of the pool gets a command"
    return [warning("durable: paused", text, "a durable that delivers", "wait, or noetl-worker nats resume")]


def _check_dead_letters(found: Found, settings: Settings) -> list[Finding]:
    wanted = "a stream that loses no dead letter (the first one makes it)"
    if found.dead_letters_unknown:
        return [unknown("dead letters", found.dead_letters_unknown, wanted)]
    if found.dead_letters is None:
        return [fine("dead letters", "no dead letter was ever kept", wanted)]
    rows = dead_letter_rows(found.dead_letters)
    return [
        fine("dead letters", found.dead_letters["name"], wanted),
        *(_row_finding("dead letters", row) for row in rows),
    ]


def _is_of_others(info: Mapping[str, Any], settings: Settings) -> bool:
    """Return True if the durable consumer has filters that the worker's settings lack, or has no filter.

    Such a durable consumer may belong to another pool of workers.
    """
    theirs = set(config_filters(info["config"]))
    return not theirs or not theirs <= set(settings.filters)


def _row_finding(what: str, row: ComparedField, fix: str = "") -> Finding:
    check, have = f"{what}: {row.field}", row.have or "-"
    if row.agrees:
        return fine(check, have, row.wanted)
    if not fix:
        fix = ENSURE if row.change == IN_PLACE else "noetl-worker nats ensure shows what it takes"
    found = f"{have}: {row.matters}"
    return wrong(check, found, row.wanted, fix) if row.is_fatal else warning(check, found, row.wanted, fix)


# ── who else is there ───────────────────────────────────────────────────────────────────────────


async def _check_other_durables(connection: Connection, found: Found, settings: Settings) -> list[Finding]:
    """Check that only this pool pulls from the durable, and that no other durable gets the same commands.

    Check also that a durable serves the pool `system`.
    """
    if found.stream_info is None:
        return []
    findings = []
    if found.durable_info is not None:
        findings.append(await _check_pullers(found.durable_info, settings))
    check, wanted = "stream: other durables", "none for the same subjects"
    try:
        consumers = await _consumers(connection, found.stream)
    except JetStreamError as error:
        return [*findings, unknown(check, str(error), wanted, f'publish to "$JS.API.CONSUMER.LIST.{found.stream}"')]
    others = [consumer for consumer in consumers if consumer.get("name") != found.durable]
    findings.append(await system_pool.examine(connection.client, found.stream, others, settings))
    same = [_shown(consumer) for consumer in others if _overlaps(consumer, settings)]
    if not same:
        return [*findings, fine(check, "none", wanted)]
    fix = "one durable a pool: set the same NATS_CONSUMER, or filters that do not overlap, or delete the unused durable"
    found_text = f"{'; '.join(same)}: each gets every command, and their workers race for the claims"
    return [*findings, warning(check, found_text, wanted, fix)]


async def _check_pullers(info: Mapping[str, Any], settings: Settings) -> Finding:
    """Check that only the pool's workers pull from the durable.

    JetStream does not tell who pulls. But if more pull requests are open than the registered workers can have, another
    program pulls too.
    """
    check, wanted = "durable: pulled by", "the workers of this pool alone"
    counts = {"pull requests waiting": "num_waiting", "messages waiting": "num_pending", "in flight": "num_ack_pending"}
    numbers = ", ".join(f"{name}: {info.get(key) or 0}" for name, key in counts.items())
    waiting = int(info.get("num_waiting") or 0)
    pullers = await plane.count_pullers(settings) if waiting else None
    if pullers is None or waiting <= pullers[1]:
        return fine(check, numbers, wanted)
    found = f"{numbers}; the control plane has {pullers[0]} workers registered that may pull from it"
    fix = "find the other program (nats server report connections), and give it a NATS_CONSUMER of its own"
    return warning(check, found, wanted, fix)


async def _consumers(connection: Connection, stream: str) -> Sequence[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    while True:
        page = await ask(connection.client, f"CONSUMER.LIST.{stream}", {"offset": len(found)})
        rows = page.get("consumers") or []
        found += rows
        if not rows or len(found) >= int(page.get("total") or 0):
            return found


def _overlaps(consumer: Mapping[str, Any], settings: Settings) -> bool:
    if not settings.has_system_pool and system_pool.serves_system_pool_alone(consumer, settings.nats_subject):
        return False  # it gets what is passed over here
    theirs = config_filters(consumer.get("config") or {})
    return not theirs or any(covers(a, b) or covers(b, a) for a in theirs for b in settings.filters)


def _shown(consumer: Mapping[str, Any]) -> str:
    return f"{consumer.get('name')} ({consumer.get('num_waiting', 0)} pull requests wait)"


async def _check_clock(connection: Connection, found: Found, now: Callable[[], float]) -> Finding:
    check = "clock against NATS"
    if found.stream_info is None:
        return unknown(check, "NATS tells its time with a stream, and there is no stream yet", clock.WANTED)
    before = now()
    timestamp = (await ask(connection.client, f"STREAM.INFO.{found.stream}")).get("ts")
    after = now()
    if not isinstance(timestamp, str):
        return unknown(check, "this server does not report its time (before 2.10)", clock.WANTED)
    return clock.check_skew(check, moment(timestamp), (before + after) / 2, (after - before) / 2)
