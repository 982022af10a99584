"""Checks whether the worker's NATS login, or a client without a login, has permissions that no worker needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from noetl_worker.cli.doctor.finding import Finding, fine, warning
from noetl_worker.cli.nats_connection import connected
from noetl_worker.errors import JetStreamError
from noetl_worker.remote.jetstream.connection import Connection, nats_login
from noetl_worker.remote.jetstream.trial import refused_publish
from noetl_worker.settings.settings import Settings
from noetl_worker.settings.values import Secret

_NOTHING: Final = "noetl-worker-doctor"
"""Stream name used to test permissions. No stream has this name, so a permitted request changes nothing.

A malformed request would not be a safe test instead: JetStream executes a malformed purge.
"""
_UNNEEDED: Final = {
    "delete streams": f"$JS.API.STREAM.DELETE.{_NOTHING}",
    "empty streams": f"$JS.API.STREAM.PURGE.{_NOTHING}",
    "change streams": f"$JS.API.STREAM.UPDATE.{_NOTHING}",
    "delete messages": f"$JS.API.STREAM.MSG.DELETE.{_NOTHING}",
    "delete durables": f"$JS.API.CONSUMER.DELETE.{_NOTHING}.{_NOTHING}",
    "publish to any subject": _NOTHING,
}
"""Actions that NATS should refuse, because no worker needs these actions. `doctor` publishes to the subject of each
action to find out whether NATS permits the action."""
_FIX: Final = (
    "give the worker a login with the permissions of docs/operate.md#permissions-in-nats, and nobody else these "
    "permissions"
)
_NOBODY: Final = Secret("")


async def examine(connection: Connection, settings: Settings) -> list[Finding]:
    """Return findings about NATS permissions that are not needed: those of a client that connects without a login, and
    those of the worker's own login."""
    found = [await _check_without_login(settings)]
    if _has_login(settings):
        more = await _list_allowed(connection)
        check, wanted = "NATS: this login", "no more than a worker does"
        found.append(warning(check, f"it may {', '.join(more)}", wanted, _FIX) if more else fine(check, wanted, wanted))
    return found


async def _check_without_login(settings: Settings) -> Finding:
    check, wanted = "NATS: without a login", "no permission at all"
    servers = Secret(",".join(settings.nats_servers))
    logins = {"nats_user": "", "nats_creds": "", "nats_nkey": "", "nats_cert": "", "tls_client_cert": ""}
    secrets = {"nats_password": _NOBODY, "nats_token": _NOBODY, "nats_seed": _NOBODY, "nats_jwt": _NOBODY}
    anybody = replace(settings, nats_url=servers, **logins, **secrets)  # type: ignore[arg-type]
    try:
        async with connected(anybody, "noetl-worker doctor") as connection:
            more = await _list_allowed(connection)
    except (JetStreamError, OSError):  # this login was taken a moment ago: the server wants one
        return fine(check, "refused", wanted)
    if not more:
        return fine(check, "connected, and refused all that was tried", wanted)
    found = f"anybody who reaches it, a playbook's `nats` step too, may {', '.join(more)}"
    return warning(check, found, wanted, f"make NATS ask for a login; {_FIX}")


def _has_login(settings: Settings) -> bool:
    return bool(nats_login(settings) or settings.nats_tls.cert)


async def _list_allowed(connection: Connection) -> list[str]:
    return [what for what, subject in _UNNEEDED.items() if await refused_publish(connection, subject) is None]
