"""The worker's life: connect, register, pull, drain, deregister.

A stop has levels, and is never taken back. The first signal drains: the worker stops pulling, returns unclaimed
messages and lets running commands finish. The second signal cancels them. The third one ends the process at once. The
keepalive thread works until the drain is over.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import nats
import structlog

from noetl_worker import __version__
from noetl_worker.engine import chosen as engine
from noetl_worker.errors import AuthRefused, ControlPlaneError, JetStreamError, WorkerBroken
from noetl_worker.models.slots import WAITING_PER_SLOT, Slots
from noetl_worker.models.stopping import StopLevel, Stopping
from noetl_worker.observability import metrics
from noetl_worker.observability.command_lines import CommandLines
from noetl_worker.observability.last_words import EXIT_AT_ONCE, log_end
from noetl_worker.observability.logging import flush_repeated, toggle_debug
from noetl_worker.observability.outage import Outage
from noetl_worker.observability.probes import Health
from noetl_worker.observability.terminal import duration
from noetl_worker.pipeline.command.claimed_command import WorkerServices
from noetl_worker.pipeline.command.tool_rules import log_what_is_not_confined, make_registry
from noetl_worker.pipeline.delivery.dead_letter import DeadLetters
from noetl_worker.pipeline.delivery.execution_share import ExecutionShare
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.pipeline.delivery.in_flight_view import InFlightView
from noetl_worker.pipeline.delivery.keepalive import Keepalive
from noetl_worker.pipeline.delivery.pools import Pools
from noetl_worker.pipeline.delivery.settle import settle_delivery
from noetl_worker.pipeline.executor import Executor
from noetl_worker.pipeline.outbox.directory import outbox_directory
from noetl_worker.pipeline.outbox.outbox import Outbox
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.remote.jetstream.ack_watch import AckWatch
from noetl_worker.remote.jetstream.bridge_mark import find_mark
from noetl_worker.remote.jetstream.connection import Connection
from noetl_worker.remote.jetstream.consumer import Durable, check_durable, ensure_again
from noetl_worker.remote.jetstream.dead_letter_store import DeadLetterStore
from noetl_worker.remote.jetstream.puller import Puller
from noetl_worker.remote.jetstream.start_notes import StartNotes
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.plane.gate import Gate
from noetl_worker.remote.plane.identity import Identity
from noetl_worker.remote.plane.plane_watch import PlaneWatch
from noetl_worker.remote.plane.rust.event_ids import make_event_ids
from noetl_worker.remote.plane.servers import CONNECTIONS_BESIDE_SLOTS, Servers
from noetl_worker.remote.transport.credential_ends import CREDENTIALS, credential_expiries
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.remote.transport.traced_transport import TracedTransport
from noetl_worker.settings.nats import SYSTEM_POOL
from noetl_worker.settings.settings import Settings
from noetl_worker.tools.registry import Registry
from noetl_worker.worker.deliveries import Deliveries
from noetl_worker.worker.readings import PULSE_S, Readings
from noetl_worker.worker.recovery.adoption import Adoption
from noetl_worker.worker.recovery.outcomes import outcomes_by_dialect
from noetl_worker.worker.recovery.recent_batches import RecentBatches
from noetl_worker.worker.startup import Startup

if TYPE_CHECKING:
    from noetl_worker.pipeline.command.trace import DeliveryTraces

EXIT_OK: Final = 0
EXIT_CANCELLED: Final = 4
"""Exit code if commands still ran after the drain timeout or a second signal. These commands were returned."""
_CREDENTIALS_S: Final = 600.0
"""Seconds between two readings of the expiry times of credentials. Files with credentials may be replaced while the
worker runs."""
_LAG_ADVICE: Final = "look at `error`: JetStream failed, or a permission is missing: run `noetl-worker doctor`"
_AUTH_ADVICE: Final = "check NOETL_INTERNAL_API_TOKEN (and NOETL_TLS_CLIENT_CERT)"
log = structlog.get_logger("noetl_worker")


class Worker:
    """Worker that connects to NATS and the plane, and runs commands until a stop. `run()` returns the exit code."""

    def __init__(
        self,
        settings: Settings,
        *,
        registry: Registry | None = None,
        identity: Identity | None = None,
        traces: DeliveryTraces | None = None,
    ) -> None:
        """Create the worker; `run` starts it. Without `traces`, tracing is off."""
        engine.require(settings.engine)
        self.settings = settings
        self._traces = traces
        self.identity = identity or Identity(settings)
        self.health = Health(puller_progress=self._pulled_at)
        self.in_flight = InFlight(2 * settings.ack_wait_s)
        self.registry = registry or make_registry(settings)
        self.ready = asyncio.Event()
        self.stopping = Stopping()
        self._stops_asked = 0
        self._machine = Gate(settings.max_concurrent)
        """Limit on the number of commands at one time. The limit halves when this machine has no descriptor or process
        left."""
        self._servers = Servers(settings)
        self._freed = asyncio.Event()
        self.slots = Slots(
            settings.max_concurrent,
            limits=settings.kind_limits,
            ceiling=self._ceiling,
            on_free=self._freed.set,
        )
        self.outbox = Outbox(settings.outbox, outbox_directory(settings.outbox_dir))
        self._batches = RecentBatches()
        ends = outcomes_by_dialect(make_event_ids(settings), self._batches)
        self.emitter: Final = Emitter(ends, self.outbox, self.stopping)
        self.deliveries: Final = Deliveries(
            self.slots, settings.drain_timeout_s, self.emitter, self._batches, CommandLines(settings.log_commands)
        )
        self._keepalive: Final = Keepalive(
            settings, self.health, self.identity, self.registry.settings.egress.own_ports
        )
        self._adoption: Adoption | None = None
        self.connection: Connection | None = None
        """The NATS connection; None before the worker has connected."""
        self.puller: Puller | None = None
        """The puller; None before the worker pulls."""
        self._credentials = Outage()
        self._pause_left_s = 0.0
        self._durable_trouble: str | None = None

    # ── stopping ──

    def request_stop(self) -> None:
        """Ask for the next level of the stop: drain, then cancel, then exit at once."""
        self._stops_asked += 1
        log.info("stop_requested", signals=self._stops_asked, in_flight=len(self.deliveries.tasks))
        self.stopping.reach(StopLevel.DRAIN if self._stops_asked == 1 else StopLevel.HARD)
        if self._stops_asked >= 3:
            log_end(EXIT_AT_ONCE, "stopped_at_once")
            os._exit(EXIT_AT_ONCE)

    def toggle_debug(self) -> None:
        """Switch between the setting's log level and debug."""
        toggle_debug(self.settings.log_level)
        self.deliveries.lines.read_level()

    # ── the life ──

    async def run(self) -> int:
        """Work until a stop is asked for.

        Raises:
            JetStreamError, SettingsError, ControlPlaneError: the worker cannot start; the text says what to do.
            WorkerBroken: the worker cannot go on; it has drained its commands.
        """
        settings, keepalive = self.settings, self._keepalive
        # A request in which the plane issues commands keeps its connection after its command has given up the slot.
        connections = settings.max_concurrent * (1 + WAITING_PER_SLOT) + CONNECTIONS_BESIDE_SLOTS
        transport = open_transport(settings, max_connections=connections)
        client = ControlPlaneClient(
            transport if self._traces is None else TracedTransport(transport),
            settings,
            servers=self._servers,
            on_auth_refused=self._pause_for_auth,
        )
        pulse = asyncio.ensure_future(
            self._pulse(Readings(self.slots, self.outbox, self._servers, self.deliveries.tasks))
        )
        try:
            await keepalive.serve()
            start = Startup(settings, self.health, self.stopping)
            connection = self.connection = await start.nats(f"noetl-worker {self.identity.unique}")
            durable = await start.durable(connection) if connection is not None else None
            if connection is None or durable is None:
                return EXIT_OK
            keepalive.in_progress.ack_wait_s = durable.ack_wait_s
            await self.stopping.unless_stopped(keepalive.start())
            plane = await start.plane(client, self._has_bridge)
            if plane is None:
                return EXIT_OK
            self.identity.warn_if_unstable(plane.dialect)
            self._adoption = Adoption(client, self.emitter, self.in_flight, self._batches)
            self._adoption.adopt()  # before the first pull: a reported command must not run again
            executor = self._executor(client, StartNotes(connection, self.identity.unique))
            self._warn_of_stream(durable, plane)
            puller = self.puller = self._make_puller(connection, durable, executor, plane)
            return await self._work(connection, durable, puller, plane)
        finally:
            self.health.set_ready(False, "stopped")
            if self._adoption is not None:
                await self._adoption.stop()
            await self.emitter.stop()
            self.outbox.close()
            await keepalive.stop()
            await self.registry.aclose()
            await client.close()
            if self.connection is not None:
                await self.connection.close()
            pulse.cancel()
            flush_repeated(at_once=True)
            log.info("stopped", settled=dict(self.deliveries.settled))

    def _warn_of_stream(self, durable: Durable, plane: Plane) -> Durable:
        durable.warn_of_stream(self.settings, is_made_bare=plane.rules.makes_bare_stream)
        return durable

    def _make_puller(self, connection: Connection, durable: Durable, executor: Executor, plane: Plane) -> Puller:
        store = DeadLetterStore(connection)
        settle = partial(settle_delivery, DeadLetters(store.publish, self.identity.unique))

        async def ensure() -> Durable:
            nonlocal durable
            durable = await ensure_again(connection.client, self.settings, durable)
            return self._warn_of_stream(durable, plane)

        return Puller(
            connection,
            durable,
            window=lambda: 0 if self.outbox.is_full or self.outbox.unwritten else self.slots.window(),
            deliver=partial(self.deliveries.deliver, executor=executor, settle=settle),
            ensure=ensure,
            wake=self._freed,
        )

    async def _work(self, connection: Connection, durable: Durable, puller: Puller, plane: Plane) -> int:
        metrics.BUILD_INFO.labels(__version__, engine.ENGINE).set(1)
        metrics.TOOLS.announce(self.registry.kinds())
        for kind in self.registry.kinds():
            metrics.SCHEDULE_TO_START.labels(self.settings.pool_name, kind)
        log_what_is_not_confined(self.settings)
        start = self._start_line(durable, plane)
        self.health.in_flight = InFlightView(self.deliveries.tasks, start)
        log.info("pulling", **start)
        self.health.set_ready(True, "pulling")
        self.ready.set()
        watching = self._watch(connection, durable, puller, plane)
        on_drain = partial(self.health.set_ready, False, "draining")
        try:
            was_cut_off = await self.deliveries.pull_until_stopped(puller, watching, self._keepalive, on_drain=on_drain)
        except nats.errors.Error as broken:  # raised by the puller, which noticed first
            raise WorkerBroken(connection.why_closed()) from broken
        return EXIT_CANCELLED if was_cut_off else EXIT_OK

    def _start_line(self, durable: Durable, plane: Plane) -> dict[str, object]:
        return {
            "version": __version__,
            "engine": engine.ENGINE,
            "stream": durable.stream,
            "durable": durable.name,
            "filters": durable.filters,
            "pools": sorted(pools) if (pools := self.settings.pools) is not None else f"any but {SYSTEM_POOL}",
            "slots": self.settings.max_concurrent,
            "isolation": self.settings.isolation,
            "control_plane": plane.dialect.value,
            "server_url": plane.url,
            "worker_id": self.identity.name_for(plane.dialect),
        }

    # ── the states of the worker ──

    def _ceiling(self) -> int:
        share = min(self._servers.capacity_fraction(), self._machine.capacity_fraction())
        return math.ceil(self.settings.max_concurrent * share)

    def _pulled_at(self) -> float:
        """Return the monotonic time of the pull loop's last round, or the present time before the worker pulls."""
        return self.puller.last_progress if self.puller is not None else time.monotonic()

    async def _has_bridge(self) -> bool:
        """Return whether the command stream is marked as filled by a bridge, a program that publishes the commands of a
        plane without NATS. Raise JetStreamError if JetStream does not answer."""
        return self.connection is not None and await find_mark(self.connection, self.settings) is not None

    def _pause_for_auth(self) -> None:
        """Pause pulling after a 401 or 403 of the configured plane. `_watch` resumes pulling once the plane accepts a
        heartbeat."""
        if self._credentials.is_on or self.puller is None:
            return
        metrics.AUTH_REFUSED.set(1)
        self.puller.pause(True)
        self.health.set_ready(False, "the control plane refuses the credentials")
        self._log_auth_refused("401 or 403")

    def _log_auth_refused(self, error: str) -> None:
        if (line := self._credentials.note_failure(error)) is not None:
            log.error("auth_refused", server_url=self._servers.configured, advice=_AUTH_ADVICE, **line)

    async def _watch(self, connection: Connection, durable: Durable, puller: Puller, plane: Plane) -> None:
        """Check the durable consumer's lag, the NATS connection and the worker's access to the plane every few seconds.

        Raises:
            WorkerBroken: the worker cannot repair a fault. The worker drains and ends, and has to be started again.
        """
        plane_watch, lag_trouble = PlaneWatch(plane.client, self._has_bridge), Outage()
        dead_letters = DeadLetterStore(connection)
        acks = AckWatch(connection)
        report_readiness = partial(self._report_readiness, connection, plane_watch, acks)
        for happens in (connection.on_disconnected, connection.on_reconnected):
            happens.append(report_readiness)  # not only below: a question to a silent server takes 5 s
        look_again_at, waits_from = 0.0, time.time()
        while self.stopping.level < StopLevel.DRAIN:
            if time.monotonic() >= look_again_at:
                self._look_at_credentials()
                look_again_at = time.monotonic() + _CREDENTIALS_S
            await asyncio.sleep(self.settings.lag_poll_interval_s)
            if self.stopping.level >= StopLevel.DRAIN:
                return
            if connection.client.is_closed:
                raise WorkerBroken(connection.why_closed())
            if not self._keepalive.is_alive():
                raise WorkerBroken(
                    "the keepalive thread has ended, so other workers would get the commands that run here: start the "
                    "worker again, and report the log line `keepalive_died`",
                    reason="keepalive",
                )
            if self._credentials.is_on and await self._let_in(plane):
                if self.stopping.level >= StopLevel.DRAIN:  # a draining worker never pulls again
                    return
                metrics.AUTH_REFUSED.set(0)
                puller.pause(False)
            await plane_watch.check()
            report_readiness()
            self.outbox.log_fullness()
            if self._adoption is not None:
                self._adoption.adopt()
            try:
                await acks.check(durable)
                seen = await check_durable(connection.client, durable, self.settings)
            except (JetStreamError, nats.errors.Error, asyncio.TimeoutError) as error:
                if connection.is_connected and (line := lag_trouble.note_failure(repr(error))) is not None:
                    log.warning("lag_unknown", advice=_LAG_ADVICE, **line)
                continue
            lag_trouble.note_success()
            await dead_letters.measure()
            # `nats ensure --apply` may change ack_wait at any time
            self._keepalive.in_progress.ack_wait_s = seen.durable.ack_wait_s
            self._pause_left_s, self._durable_trouble = seen.pause_left_s, seen.trouble
            report_readiness()
            waits_from = max(waits_from if seen.pending else time.time(), puller.newest_published_at)
            oldest_s = max(0.0, time.time() - waits_from) if seen.pending else 0.0
            metrics.OLDEST_WAITING.labels(durable.stream, durable.name).set(oldest_s)
            metrics.PENDING.labels(durable.stream, durable.name).set(seen.pending)
            metrics.ACK_PENDING.labels(durable.stream, durable.name).set(seen.ack_pending)

    def _report_readiness(self, connection: Connection, plane_watch: PlaneWatch, acks: AckWatch) -> None:
        if self._credentials.is_on or self.stopping.level >= StopLevel.DRAIN:
            return  # the worker stays not ready, for these reasons, whatever is connected
        why = "NATS is not connected" if not connection.is_connected else plane_watch.trouble
        why = why or acks.trouble or self._durable_trouble or self.outbox.trouble
        is_paused = f"paused by an operator for {duration(self._pause_left_s)} more" if self._pause_left_s else ""
        self.health.set_ready(why is None, why or is_paused or "pulling")

    def _look_at_credentials(self) -> None:
        ends = credential_expiries(self.settings)
        for name in CREDENTIALS:
            metrics.CREDENTIAL_ENDS.labels(name).set(ends.get(name, 0.0))

    async def _let_in(self, plane: Plane) -> bool:
        try:
            await plane.heartbeat(self.identity.name_for(plane.dialect))
        except AuthRefused as error:
            self._log_auth_refused(str(error))
            return False
        except ControlPlaneError as error:
            log.debug("auth_probe_failed", error=str(error))  # `plane_down` is logged for the same error
            return False
        log.info("auth_accepted_again", **(self._credentials.note_success() or {}))
        return True

    async def _pulse(self, readings: Readings) -> None:
        while True:
            readings.take()
            flush_repeated()
            self.health.pulse = time.monotonic() + PULSE_S
            await asyncio.sleep(PULSE_S)

    def _executor(self, client: ControlPlaneClient, starts: StartNotes) -> Executor:
        services = WorkerServices(
            self.settings,
            self.identity,
            self.registry,
            self.in_flight,
            self._keepalive.in_progress,
            self.emitter,
            self.slots,
            machine=self._machine,
            starts=starts,
        )
        slots, part = self.settings.max_concurrent, self.settings.execution_share
        share = ExecutionShare(slots, part) if 0 < part < 1 else None
        return Executor(client, services, Pools(self.settings), share, self._traces)
