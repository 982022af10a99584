"""Whether NATS takes our acknowledgements: a login that may not send them works on until max_ack_pending is reached."""

from __future__ import annotations

from typing import Final

import structlog

from noetl_worker.observability.outage import Outage
from noetl_worker.remote.jetstream.connection import Connection
from noetl_worker.remote.jetstream.consumer import Durable
from noetl_worker.remote.jetstream.delivery import IN_PROGRESS
from noetl_worker.remote.jetstream.trial import refused_publish

_REASON: Final = "NATS refuses the acknowledgements of this login"
log = structlog.get_logger("noetl_worker.remote.jetstream")


class AckWatch:
    """Looks again once an acknowledgement was refused, until one is taken."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._outage = connection, Outage()

    @property
    def trouble(self) -> str | None:
        """Why no command will be acknowledged; None: nothing is known against it."""
        return _REASON if self._outage.is_on else None

    async def look(self, durable: Durable) -> None:
        """Try one that has no effect. Raises JetStreamError: the connection is gone."""
        client = self._connection.client
        if not client.is_ack_refused and not self._outage.is_on:
            return
        client.is_ack_refused = False
        subject = f"$JS.ACK.{durable.stream}.{durable.name}"
        await refused_publish(self._connection, f"{subject}.1.0.0.0.0", IN_PROGRESS)
        if not client.is_ack_refused:
            if (line := self._outage.ends()) is not None:
                log.info("acks_taken", durable=durable.name, **line)
        elif (line := self._outage.lasts(_REASON)) is not None:
            advice = (
                f"let it publish to {subject}.> (docs/operate.md#permissions-in-nats); `noetl-worker doctor` tries "
                "each permission. What ran is reported, and comes again; at max_ack_pending the whole pool stands"
            )
            log.error("acks_refused", durable=durable.name, advice=advice, **line)
