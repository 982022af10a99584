"""Checks for a control plane without NATS: its settings, and the bridge that brings its commands to JetStream."""

from __future__ import annotations

from typing import Final

from noetl_worker.cli.doctor.finding import Finding, fine, unknown, warning, wrong
from noetl_worker.cli.nats_connection import connected
from noetl_worker.errors import ControlPlaneError, JetStreamError, SettingsError
from noetl_worker.remote.jetstream.bridge_mark import BridgeMark, find_mark
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.remote.plane.health import START_BRIDGE
from noetl_worker.settings.settings import Settings

_MARKED: Final = "a stream whose metadata names a bridge"
_TIMEOUT_S: Final = 5.0
_PAGE: Final = "docs/todays-server.md"
_SERVER_SETTINGS: Final = (
    "NOETL_ORPHAN_SWEEP_ENABLED, NOETL_EVENT_INGEST_PUBLISH_ONLY and NOETL_ORCHESTRATE_PLUGIN_DRIVE off: the first "
    "fails an execution whose worker restarts, the second issues the step after a loop twice, the third needs a worker "
    "of the system pool that runs wasm"
)


async def examine(client: ControlPlaneClient, settings: Settings) -> list[Finding]:
    """Return findings about the bridge, which brings commands from a plane without NATS into the command stream.

    The findings say whether the stream's metadata name a bridge, and whether this bridge is ready.

    If the stream names a bridge, the last finding is a warning with plane settings that only an operator can check.
    """
    try:
        async with connected(settings, "noetl-worker doctor") as connection:
            mark = await find_mark(connection, settings)
    except (JetStreamError, SettingsError, OSError) as error:
        return [unknown("bridge", f"NATS: {error}", _MARKED)]
    if mark is None:
        fix = f"{START_BRIDGE} ({_PAGE})"
        return [wrong("bridge", "the stream names no bridge, so no command arrives here", _MARKED, fix)]
    cannot_be_seen = "this command cannot read the server's settings"
    return [
        fine("bridge", f"version {mark.version}", _MARKED),
        await _check_health(client, mark),
        warning("settings of the server", cannot_be_seen, _SERVER_SETTINGS, _PAGE),
    ]


async def _check_health(client: ControlPlaneClient, mark: BridgeMark) -> Finding:
    check, wanted = "bridge is ready", "200 at /readyz of the bridge"
    if not mark.health_url:
        return unknown(check, "the stream lacks the bridge's address", wanted, "NOETL_BRIDGE_HEALTH of the bridge")
    url = f"{mark.health_url}/readyz"
    try:
        answer = await client.send("GET", url, timeout_s=_TIMEOUT_S)
    except ControlPlaneError as error:
        return wrong(check, f"{url}: {error}", wanted, "start the bridge, or check the network to it")
    if answer.status != 200:
        return wrong(
            check, f"{url} answers {answer.status} {answer.body[:200]!r}", wanted, "look at the log of the bridge"
        )
    return fine(check, url, wanted)
