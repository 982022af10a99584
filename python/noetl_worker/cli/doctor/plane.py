"""Checks of the control plane: its answer, its version, its login, its registered workers, its clock."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Sequence
from typing import Final

from noetl_worker.cli.doctor import bridge, clock
from noetl_worker.cli.doctor.finding import Finding, fine, unknown, warning, wrong
from noetl_worker.errors import AuthRefused, ControlPlaneError
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.remote.plane.health import SERVED, PlaneHealth
from noetl_worker.remote.plane.registered_workers import RegisteredWorker, registered_workers
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.settings.settings import Settings

_REACHED: Final = "a control plane that answers /api/health"
_TIMEOUT_S: Final = 8.0
"""Time limit, in seconds, for all requests of `doctor` to the plane together. `doctor` as a whole may take 10 s."""
_SLOW_S: Final = 1.0
_MOST_NAMED: Final = 8
_MOST_SLOTS: Final = 256
"""Number of slots (commands run at once) assumed for a registered worker that reports no number.

No noetl-worker requests more commands than this at once.
"""


async def examine(settings: Settings) -> list[Finding]:
    async with ControlPlaneClient(open_transport(settings, max_connections=2), settings) as client:
        return await _examine_reached(client, settings)


async def makes_bare_stream(settings: Settings) -> bool:
    """Return True if the plane creates the stream of commands itself, with NATS_SUBJECT as its only subject.

    Return False also if the plane cannot be asked.
    """
    async with ControlPlaneClient(open_transport(settings, max_connections=1), settings) as client:
        try:
            health = await client.health(client.servers.configured, timeout_s=_TIMEOUT_S)
        except (ControlPlaneError, OSError):
            return False  # `examine` has a finding for it
        return RULES[health.dialect].makes_bare_stream


async def _examine_reached(client: ControlPlaneClient, settings: Settings) -> list[Finding]:
    url, began = client.servers.configured, time.monotonic()
    try:
        health = await client.health(url, timeout_s=_TIMEOUT_S)
    except AuthRefused as error:
        return [wrong("control plane", str(error), _REACHED, "NOETL_INTERNAL_API_TOKEN, NOETL_TLS_CLIENT_CERT")]
    except (ControlPlaneError, OSError) as error:
        return [wrong("control plane", str(error), _REACHED, "start it, or set NOETL_SERVER_URL")]
    took_s = time.monotonic() - began
    left_s = max(_TIMEOUT_S - took_s, 1.0)
    registry, clock_skew = await asyncio.gather(
        _check_registry(client, settings, left_s), _check_clock(client, url, left_s)
    )
    return [
        fine("control plane", url, _REACHED),
        _check_latency(took_s),
        _check_version(health, settings),
        *(await bridge.examine(client, settings) if health.has_no_nats else ()),
        *registry,
        clock_skew,
    ]


def _check_latency(took_s: float) -> Finding:
    """Return a finding about the plane's response time, measured at /api/health.

    This route does little work, so a slow answer means that the plane is slow.
    """
    check, found, wanted = "control plane: time", f"/api/health answers in {took_s:.2f} s", f"below {_SLOW_S:g} s"
    if took_s < _SLOW_S:
        return fine(check, found, wanted)
    fix = "check the plane, its database and the network to the plane; more workers make the plane slower"
    return warning(check, found, wanted, fix)


def _check_version(health: PlaneHealth, settings: Settings) -> Finding:
    check, wanted = "control plane version", f"a version whose commands reach NATS: {SERVED}"
    found = f"{health.dialect.value} {health.version or '(it does not report its version)'}"
    if health.has_no_nats:
        found += ", which has no NATS and needs a bridge"
    if settings.control_plane not in ("auto", health.dialect.value):
        fix = f"NOETL_CONTROL_PLANE=auto, or {health.dialect.value}"
        return wrong(check, f"{found}, and NOETL_CONTROL_PLANE={settings.control_plane}", wanted, fix)
    if health.nats == "disconnected":
        fix = "check the plane's own NATS_URL or NOETL_NATS_URL"
        return warning(check, f"{found}, which has no connection to NATS at present", wanted, fix)
    return fine(check, found, wanted)


async def _check_registry(client: ControlPlaneClient, settings: Settings, left_s: float) -> list[Finding]:
    """Check that the plane accepts our token and certificate, by reading its registry of workers.

    Check also that only our workers are registered for the durable.

    Args:
        left_s: time limit of the request, in seconds.
    """
    check, wanted = "control plane lets us in", "this token and certificate are taken"
    try:
        workers = await registered_workers(client, settings.nats_consumer, timeout_s=left_s)
    except AuthRefused as error:
        return [wrong(check, str(error), wanted, "NOETL_INTERNAL_API_TOKEN (and NOETL_TLS_CLIENT_CERT)")]
    except ControlPlaneError as error:
        return [unknown(check, str(error), wanted)]
    return [fine(check, "yes", wanted), _check_workers([one for one in workers if one.is_ready], settings)]


def _check_workers(ready: Sequence[RegisteredWorker], settings: Settings) -> Finding:
    """Check that no other program than noetl-worker has workers registered for our durable.

    Such a program would delete and recreate the durable (protocol/notification.md#durable).
    """
    check, wanted = "registered workers", "on this durable no workers of another program"
    foreign = [one for one in ready if "nats_consumer" in one.labels and "engine" not in one.labels]
    names = ", ".join(one.name for one in (foreign or ready)[:_MOST_NAMED])
    more = "" if len(foreign or ready) <= _MOST_NAMED else f" and {len(foreign or ready) - _MOST_NAMED} more"
    if foreign:
        fix = "a NATS_CONSUMER of its own for each program"
        return wrong(
            check, f"{names}{more} on {settings.nats_consumer}: that program recreates the durable", wanted, fix
        )
    return fine(check, f"{len(ready)} ready: {names}{more}" if ready else "none is ready", wanted)


async def count_pullers(settings: Settings) -> tuple[int, int] | None:
    """Return how many registered workers may pull from the durable, and how many pull requests all these workers
    together may have open.

    Return None if the control plane does not list its workers. The registry of the Python plane does not show durables,
    so all its workers are counted.

    A worker never requests more messages than it has free slots, and each new request is at least as large as its older
    open requests together. So a worker with 8 slots has at most 4 open requests: for 1, 1, 2 and 4 messages.
    """
    try:
        async with ControlPlaneClient(open_transport(settings, max_connections=1), settings) as client:
            workers = await registered_workers(client, settings.nats_consumer, timeout_s=_TIMEOUT_S)
    except (ControlPlaneError, OSError):
        return None
    ready = [one for one in workers if one.is_ready]
    return len(ready), sum((one.capacity or _MOST_SLOTS).bit_length() for one in ready)


async def _check_clock(client: ControlPlaneClient, url: str, left_s: float) -> Finding:
    """Compare this machine's clock with the `Date` header of the plane's answer.

    The header has no fractions of a second, so the plane's time is known only to within half a second.
    """
    check, before = "clock against the plane", time.time()
    try:
        answer = await client.send("GET", f"{url}/api/health", timeout_s=left_s)
    except ControlPlaneError as error:
        return unknown(check, str(error), clock.WANTED)
    after = time.time()
    try:
        server_time = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return unknown(check, "the plane's answers have no Date header", clock.WANTED)
    return clock.check_skew(check, server_time + 0.5, (before + after) / 2, (after - before) / 2 + 0.5)
