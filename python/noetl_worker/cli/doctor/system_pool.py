"""The check of `doctor` that commands of the pool `system` in the stream are delivered by some durable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from noetl_worker.cli.doctor.finding import Finding, fine, unknown, warning
from noetl_worker.envelope import decode_notification
from noetl_worker.errors import JetStreamError, NotificationError
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.remote.jetstream.comparison import config_filters
from noetl_worker.remote.jetstream.message_search import StoredMessage, last_message
from noetl_worker.settings.nats import SYSTEM_POOL, read_pool
from noetl_worker.settings.settings import Settings

_DRIVE: Final = "__orchestrate__"
"""Step name of a Rust plane's own commands (by default from version 3.54.0). Every execution stays RUNNING after its
first step if no worker of the pool `system` runs these commands."""
_OF_THE_PLANE: Final = "NOETL_ORCHESTRATE_PLUGIN_DRIVE=false on the Rust plane"


async def examine(client: Client, stream: str, others: Sequence[Mapping[str, Any]], settings: Settings) -> Finding:
    """Check that a durable serves the pool `system`, if the stream has commands of this pool.

    Args:
        others: durables of the stream, except our own, as JetStream lists them.
    """
    check, base = "stream: pool system", settings.nats_subject
    wanted = "no command of it, or workers of its own that run wasm"
    try:
        last = await last_message(client, stream, f"{base}.{SYSTEM_POOL}.>")
    except JetStreamError as error:
        return unknown(check, str(error), wanted, f'publish to "$JS.API.STREAM.MSG.GET.{stream}"')
    if last is None:
        return fine(check, "no command of it is in the stream", wanted)
    is_drive = _step(last) == _DRIVE
    found = f"the last command of it ({_step(last)}) was published at {last.stored_at}"
    if settings.has_system_pool:
        if not is_drive:
            return fine(check, f"{found}; the settings name it, so it runs here", wanted)
        fix = f"{_OF_THE_PLANE}, or take the pool {SYSTEM_POOL} out of the settings"
        return warning(check, f"{found}; the settings name it, and here its wasm fails the execution", wanted, fix)
    served = ", ".join(str(other.get("name")) for other in others if serves_system_pool_alone(other, base))
    if served:
        return fine(check, f"{found}; it is left to durable {served}", wanted)
    if is_drive:
        fix = f"{_OF_THE_PLANE}, or a system pool with wasm (NATS_FILTER_SUBJECT={base}.{SYSTEM_POOL}.> of its worker)"
        return warning(
            check,
            f"{found}; no durable is for this pool alone, and without its commands no execution goes on",
            wanted,
            fix,
        )
    fix = f"a worker with NOETL_WORKER_POOL_SEGMENTS={SYSTEM_POOL} and a NATS_CONSUMER of its own"
    return warning(check, f"{found}; no durable is for this pool alone", wanted, fix)


def serves_system_pool_alone(consumer: Mapping[str, Any], base: str) -> bool:
    """Return True if a durable gets commands of the `system` pool and of no other."""
    filters = config_filters(consumer.get("config") or {})
    return {read_pool(subject, base) for subject in filters} == {SYSTEM_POOL}


def _step(message: StoredMessage) -> str:
    try:
        return decode_notification(message.data).step
    except NotificationError:
        return "no notification"
