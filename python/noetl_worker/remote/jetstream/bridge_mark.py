"""A bridge's mark in the metadata of the stream of commands. The mark tells workers that a bridge publishes to this
stream.

A bridge is a process that brings the commands of a plane without NATS into this stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from noetl_worker.errors import JetStreamError
from noetl_worker.models.wire import fields_of
from noetl_worker.remote.jetstream.api import ask
from noetl_worker.remote.jetstream.connection import Connection
from noetl_worker.remote.jetstream.consumer import ensure_stream, find_stream
from noetl_worker.remote.jetstream.trial import server_version
from noetl_worker.settings.settings import Settings

_VERSION: Final = "noetl-bridge"
_HEALTH: Final = "noetl-bridge-health"
_LEAST_MINOR: Final = 10
"""Minor version of nats-server 2.10, the first that stores a stream's metadata."""
log = structlog.get_logger("noetl_worker.remote.jetstream")


@dataclass(frozen=True, slots=True)
class BridgeMark:
    """Version and health address of a bridge, a process that brings a plane's commands into a NATS stream. A bridge
    writes this mark into the stream's metadata."""

    version: str
    health_url: str = ""
    """Address at which other machines reach the bridge's health probes. Empty if no address was configured for the
    bridge."""


def read_mark(config: Mapping[str, Any]) -> BridgeMark | None:
    """Return the version and health address of the bridge that fills a stream, from the stream's metadata. Return None
    if no bridge has written them there."""
    metadata = fields_of(config.get("metadata"))
    version = metadata.get(_VERSION)
    return BridgeMark(str(version), str(metadata.get(_HEALTH) or "")) if version else None


async def find_mark(connection: Connection, settings: Settings) -> BridgeMark | None:
    """Return the version and health address that a bridge wrote into the metadata of the stream of commands. Return
    None if the stream does not exist, or if no bridge wrote there.

    Raises:
        JetStreamError: the stream cannot be read.
    """
    _, info = await find_stream(connection.client, settings)
    return read_mark(info["config"]) if info is not None else None


async def put_mark(connection: Connection, settings: Settings, mark: BridgeMark) -> str:
    """Write a bridge's version and health address into the metadata of the stream of commands. Return the stream's
    name. Make the stream if it is missing.

    Raises:
        JetStreamError: the server is too old for metadata, or refuses the change.
    """
    version = connection.client.connected_server_version
    if (version.major, version.minor) < (2, _LEAST_MINOR):
        raise JetStreamError(
            f"nats-server {server_version(connection)} does not store a stream's metadata, by which workers find the "
            f"bridge: update the server to 2.{_LEAST_MINOR} or later"
        )
    stream, config = await ensure_stream(connection.client, settings)
    metadata = {_VERSION: mark.version, **({_HEALTH: mark.health_url} if mark.health_url else {})}
    there = fields_of(config.get("metadata"))
    if any(there.get(name) != value for name, value in metadata.items()):
        await ask(connection.client, f"STREAM.UPDATE.{stream}", {**config, "metadata": {**there, **metadata}})
        log.info("bridge_recorded_in_stream", stream=stream, bridge=mark.version, health=mark.health_url)
    return stream
