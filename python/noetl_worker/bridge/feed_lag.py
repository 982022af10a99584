"""Measurement of how many commands wait in upstream's command feed and in JetStream."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from noetl_worker.bridge import metrics
from noetl_worker.errors import ControlPlaneError, JetStreamError
from noetl_worker.observability.outage import Outage
from noetl_worker.remote.jetstream.api import ask_if_there
from noetl_worker.remote.jetstream.connection import Connection
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.remote.transport.transport import Transport
from noetl_worker.settings.settings import Settings

_SHARD_LAG: Final = "ehdb_feed_shard_lag"
_TIMEOUT_S: Final = 5.0
log = structlog.get_logger("noetl_worker.bridge")


class FeedLag:
    """Periodic measurement of how many commands wait in upstream's feed and in JetStream.

    The interval is WORKER_NATS_LAG_POLL_INTERVAL.

    Args:
        url: URL of the metrics page of upstream's writer, the program that fills the feed; "" not to measure the feed.
        stream: the stream of commands.
    """

    def __init__(self, settings: Settings, connection: Connection, url: str, stream: str) -> None:
        self._settings, self._connection, self._url, self._stream = settings, connection, url, stream
        self._outage = Outage()

    async def run(self) -> None:
        """Measure at each interval, and set the metrics, until cancelled."""
        transport = open_transport(self._settings, max_connections=1) if self._url else None
        try:
            while True:
                await self._look_at_jetstream()
                if transport is not None:
                    await self._look_at_feed(transport)
                await asyncio.sleep(self._settings.lag_poll_interval_s)
        finally:
            if transport is not None:
                await transport.close()

    async def _look_at_feed(self, transport: Transport) -> None:
        try:
            answer = await transport.send("GET", self._url, {}, None, _TIMEOUT_S)
            self._note(answer.body.decode(errors="replace"))
        except (ControlPlaneError, ValueError) as error:  # ValueError: the answer is not metrics
            self._log(str(error))

    async def _look_at_jetstream(self) -> None:
        if not self._connection.is_connected:
            return
        try:
            asked = f"CONSUMER.INFO.{self._stream}.{self._settings.nats_consumer}"
            info = await ask_if_there(self._connection.client, asked) or {}
        except JetStreamError as error:
            self._log(str(error))
            return
        metrics.JETSTREAM_LAG.set(float((info.get("num_pending") or 0) + (info.get("num_ack_pending") or 0)))

    def _note(self, text: str) -> None:
        from prometheus_client.parser import text_string_to_metric_families

        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == _SHARD_LAG:
                    metrics.FEED_LAG.labels(str(sample.labels.get("shard", "0"))).set(sample.value)
        self._outage.note_success()

    def _log(self, error: str) -> None:
        if (line := self._outage.note_failure(error)) is not None:
            log.warning(
                "bridge_lag_unknown",
                url=self._url,
                **line,
                advice="check --feed-metrics, and that this login may read NATS_CONSUMER; commands go on meanwhile",
            )
