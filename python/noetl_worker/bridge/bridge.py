"""The main program of a bridge, from its connection to NATS to its drain at the end.

The bridge writes its version into the stream's metadata, so that workers know of it. Then it takes command records from
the feed, the TCP queue of a control plane without NATS. It puts them into JetStream.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from noetl_worker import __version__
from noetl_worker.bridge import metrics
from noetl_worker.bridge.address import FeedAddress
from noetl_worker.bridge.feed_claims import FeedClaims
from noetl_worker.bridge.feed_lag import FeedLag
from noetl_worker.bridge.feed_server import FeedServer
from noetl_worker.bridge.frames import framed
from noetl_worker.bridge.held_records import HeldRecord, HeldRecords
from noetl_worker.bridge.ordered_requests import OrderedRequests
from noetl_worker.bridge.peer import Peer
from noetl_worker.bridge.record import FeedRecord
from noetl_worker.bridge.stream_publisher import StreamPublisher
from noetl_worker.errors import WorkerBroken
from noetl_worker.models.stopping import StopLevel, Stopping
from noetl_worker.observability.last_words import EXIT_AT_ONCE, log_end, log_errors_of_threads, log_failure
from noetl_worker.observability.logging import configure_logging, toggle_debug
from noetl_worker.observability.probe_server import Page, ProbeServer
from noetl_worker.observability.probes import Health, make_pages
from noetl_worker.process import event_loop
from noetl_worker.remote.jetstream.bridge_mark import BridgeMark, put_mark
from noetl_worker.remote.jetstream.connection import Connection, connect
from noetl_worker.settings.settings import Settings

EXIT_OK: Final = 0
EXIT_NOT_DRAINED: Final = 4
"""Exit code if the bridge stops with unacknowledged command records. The control plane sends these records again."""
_PULSE_S: Final = 0.5
_ACK_BYTES: Final = 8
log = structlog.get_logger("noetl_worker.bridge")


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """Values of the flags of `noetl-worker bridge`."""

    publish: FeedAddress | None = None
    """Address at which the bridge listens for control planes that send commands; None: the bridge does not listen."""
    forward: FeedAddress | None = None
    """Address of upstream's writer, the program that fills the feed of a control plane without NATS.

    The bridge sends it only the commands of the pool `system`, which upstream's own worker runs. None: these commands
    go to JetStream, as all others do."""
    claims: tuple[FeedAddress, ...] = ()
    """Addresses of the coordinators, upstream's programs from which the bridge takes commands. Each serves one shard of
    upstream's command feed."""
    filters: tuple[str, ...] = ()
    """Subject filters of the commands to take, such as `commands.shared.>`. Every coordinator gets all filters."""
    feed_metrics: str = ""
    """URL of the metrics of upstream's writer, which tell how many commands wait in the feed; "" to read none."""


def run_bridge(settings: Settings, options: BridgeOptions) -> int:
    """Run a bridge as this process until it is stopped. Return its exit code."""

    async def run() -> int:
        bridge = Bridge(settings, options)
        event_loop.handle_signals(bridge.request_stop, partial(toggle_debug, settings.log_level))
        return await bridge.run()

    configure_logging(settings.log_level, "auto")
    log_errors_of_threads()
    try:
        return event_loop.run(run())
    except (Exception, KeyboardInterrupt) as error:
        return log_failure(error)


class Bridge:
    """The bridge process: puts the commands of a control plane without NATS into JetStream. `run()` returns its exit
    code."""

    def __init__(self, settings: Settings, options: BridgeOptions) -> None:
        self.settings, self.options = settings, options
        self.health: Final = Health()
        self.held: Final = HeldRecords()
        self.stopping: Final = Stopping()
        self.ready: Final = asyncio.Event()
        self.port = 0
        """Port on which publishers connect. 0 until the bridge listens."""
        self.probes_port = 0
        self._stops_asked = 0
        self._claims: list[FeedClaims] = []
        self._writer = OrderedRequests(Peer("writer", options.forward), _read_ack) if options.forward else None

    # ── stopping ──

    def request_stop(self) -> None:
        """Stop the bridge. The first call starts a drain, the second ends the drain early, the third exits at once."""
        self._stops_asked += 1
        log.info("stop_requested", signals=self._stops_asked, held_records=len(self.held))
        self.stopping.reach(StopLevel.DRAIN if self._stops_asked == 1 else StopLevel.HARD)
        if self._stops_asked >= 3:
            log_end(EXIT_AT_ONCE, "stopped_at_once")
            os._exit(EXIT_AT_ONCE)

    # ── the life ──

    async def run(self) -> int:
        """Move commands from the control plane's command feed into JetStream until a stop is requested. Return the exit
        code.

        Raises:
            JetStreamError, SettingsError: the bridge cannot start; the text says what to do.
            WorkerBroken: the bridge had started and cannot go on.
        """
        metrics.BUILD_INFO.labels(__version__).set(1)
        probes = ProbeServer(self._pages(), answered_within_s=5.0)
        connection: Connection | None = None
        tasks: list[asyncio.Future[None]] = []
        try:
            if self.settings.metrics_bind:
                await probes.open(self.settings.metrics_bind)
                self.probes_port = probes.port
            tasks.append(asyncio.ensure_future(self._pulse()))
            connection = await self.stopping.unless_stopped(connect(self.settings, "noetl-worker bridge"))
            if connection is None:
                return EXIT_OK
            return await self._work(connection, tasks)
        finally:
            self.health.set_ready(False, "stopped")
            await event_loop.end(*tasks)
            if connection is not None:
                await connection.close()
            await probes.close()
            log.info("stopped", held_records=len(self.held))

    async def _work(self, connection: Connection, tasks: list[asyncio.Future[None]]) -> int:
        mark = BridgeMark(__version__, self.settings.bridge_health)

        async def ensure() -> str:
            return await put_mark(connection, self.settings, mark)

        stream = await ensure()
        publisher = StreamPublisher(connection, self.held, self.settings.nats_subject, ensure)
        await publisher.open()

        def deliver(held: HeldRecord) -> None:
            if self._writer is not None and held.record.is_for_system_pool:
                passed_on = partial(self.held.note_passed_on, held, metrics.FORWARDED)
                self._writer.put(framed(held.record.body), passed_on)
            else:
                publisher.put(held)

        def refusal(record: FeedRecord) -> str | None:
            size, most = len(record.payload), publisher.most_bytes
            return f"a notification of {size:,} bytes; NATS takes at most {most:,}" if size > most else None

        tasks.append(asyncio.ensure_future(publisher.run()))
        if self._writer is not None:
            tasks.append(asyncio.ensure_future(self._writer.run()))
        tasks.append(asyncio.ensure_future(self._watch(connection)))
        tasks.append(asyncio.ensure_future(FeedLag(self.settings, connection, self.options.feed_metrics, stream).run()))
        self._claims = [
            FeedClaims(address, self.options.filters, self.held, publisher.put, refusal)
            for address in self.options.claims
        ]
        tasks += [asyncio.ensure_future(claims.run()) for claims in self._claims]
        server = FeedServer(self.held, deliver, refusal)
        try:
            if self.options.publish is not None:
                await server.open(*self.options.publish)
                self.port = server.port
            log.info("bridge_started", stream=stream, subject=self.settings.nats_subject, **self._shown())
            self.ready.set()
            await self._until_stopped(tasks)
            return await self._drain(server)
        finally:
            await server.close()

    def _shown(self) -> dict[str, object]:
        chosen = self.options
        return {
            "version": __version__,
            "forward": str(chosen.forward) if chosen.forward is not None else "",
            "claims": [str(address) for address in chosen.claims],
            "filters": chosen.filters,
        }

    async def _until_stopped(self, tasks: list[asyncio.Future[None]]) -> None:
        """Wait until a stop is requested. If a background task fails earlier, raise its error."""
        stop = asyncio.ensure_future(self.stopping.reached(StopLevel.DRAIN))
        try:
            done, _ = await asyncio.wait({stop, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        for ended in done - {stop}:
            ended.result()

    async def _drain(self, server: FeedServer) -> int:
        """Take no more command records, and wait until all records in memory are passed on to JetStream or upstream's
        writer, and acknowledged.

        The wait is limited by the drain timeout. Return the exit code of the process.
        """
        self.health.set_ready(False, "draining")
        server.stop()
        log.info("draining", held_records=len(self.held))
        drained = asyncio.ensure_future(self._drained())
        await self.stopping.sleep(self.settings.drain_timeout_s, drained, until=StopLevel.HARD)
        drained.cancel()
        if not len(self.held) and all(claims.is_done for claims in self._claims):
            return EXIT_OK
        log.warning(
            "bridge_not_drained",
            held_records=len(self.held),
            advice="see why JetStream refuses the records. Nothing is lost: unacknowledged records are sent again",
        )
        return EXIT_NOT_DRAINED

    async def _drained(self) -> None:
        """Wait until all command records assigned to this bridge have arrived, and all records in memory are passed on
        to JetStream or upstream's writer, and acknowledged.
        """
        await asyncio.gather(*(claims.stop() for claims in self._claims))
        await self.held.wait_until_empty()
        await asyncio.gather(*(claims.acknowledged() for claims in self._claims))

    # ── around it ──

    async def _pulse(self) -> None:
        while True:
            self.health.pulse = time.monotonic()
            self.held.measure()
            await asyncio.sleep(_PULSE_S)

    async def _watch(self, connection: Connection) -> None:
        """Set the bridge ready while NATS is connected. Raise WorkerBroken once the connection is closed for good."""

        def report() -> None:
            is_connected = connection.is_connected
            metrics.NATS_CONNECTED.set(is_connected)
            if not self.stopping.is_draining:
                self.health.set_ready(is_connected, "taking records" if is_connected else "NATS is not connected")

        for happens in (connection.on_disconnected, connection.on_reconnected):
            happens.append(report)
        while not connection.client.is_closed:
            report()
            await asyncio.sleep(_PULSE_S)
        raise WorkerBroken(connection.why_closed())

    def _pages(self) -> dict[str, Page]:
        async def metrics_text() -> tuple[int, bytes]:
            self.held.measure()
            metrics.READY.set(self.health.readiness()[0] and self.health.trouble() is None)
            return 200, metrics.exposition()

        pages = {path: page for path, page in make_pages(self.health).items() if path in ("/livez", "/readyz")}
        return {**pages, "/metrics": metrics_text}


async def _read_ack(reader: asyncio.StreamReader) -> None:
    """Read the acknowledgement of upstream's writer for one forwarded record. The number in it is ignored."""
    await reader.readexactly(_ACK_BYTES)
