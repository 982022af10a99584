"""Detection of acknowledgements that NATS refuses.

A login may lack the permission to acknowledge. JetStream then delivers finished commands again. At max_ack_pending
unacknowledged messages JetStream delivers nothing more to the whole pool of workers.
"""

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
    """Record of whether NATS refuses the acknowledgements of this worker. A refusal lasts until NATS accepts an
    acknowledgement."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._outage = connection, Outage()

    @property
    def trouble(self) -> str | None:
        """Reason why the worker cannot acknowledge any command. None if NATS has refused no acknowledgement, or accepts
        acknowledgements again."""
        return _REASON if self._outage.is_on else None

    async def check(self, durable: Durable) -> None:
        """Test whether NATS accepts acknowledgements again, if it has refused one. Log when refusals begin and end.

        The test acknowledges a message that does not exist, so it changes nothing in JetStream.

        Raises:
            JetStreamError: there is no connection.
        """
        client = self._connection.client
        if not client.is_ack_refused and not self._outage.is_on:
            return
        client.is_ack_refused = False
        subject = f"$JS.ACK.{durable.stream}.{durable.name}"
        await refused_publish(self._connection, f"{subject}.1.0.0.0.0", IN_PROGRESS)
        if not client.is_ack_refused:
            if (line := self._outage.note_success()) is not None:
                log.info("acks_accepted_again", durable=durable.name, **line)
        elif (line := self._outage.note_failure(_REASON)) is not None:
            advice = (
                f"let this login publish to {subject}.> (docs/operate.md#permissions-in-nats); `noetl-worker doctor` "
                "tries each permission. Commands that ran are reported, but delivered again, and at max_ack_pending "
                "the whole pool stops"
            )
            log.error("acks_refused", durable=durable.name, advice=advice, **line)
