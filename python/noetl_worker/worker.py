"""The worker's life: connect, register, pull, drain, deregister.

A stop is a level: it is asked for once and stays. First: drain (stop pulling, give back what is not claimed, let
what runs finish). Second: cancel. Third: exit at once. Heartbeat and keepalive outlive the drain.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import nats
import structlog

from noetl_worker import __version__, acknowledge, engine, event_loop
from noetl_worker.adoption import Adoption
from noetl_worker.claimed_command import Workplace
from noetl_worker.control_plane.client import CONNECTIONS_BESIDE_SLOTS, ControlPlaneClient, Plane
from noetl_worker.control_plane.transport import open_transport
from noetl_worker.dead_letter import DeadLetters, settle_delivery
from noetl_worker.emitter import Emitter
from noetl_worker.errors import AuthRefused, ControlPlaneError, JetStreamError, ServerRefused, WorkerBroken
from noetl_worker.execution import Execution
from noetl_worker.identity import Identity
from noetl_worker.in_flight import InFlight
from noetl_worker.jetstream.connection import Connection, connect, describe
from noetl_worker.jetstream.consumer import Durable, ensure_durable, look
from noetl_worker.jetstream.dead_letter_store import DeadLetterStore
from noetl_worker.jetstream.delivery import Delivery
from noetl_worker.jetstream.puller import Puller
from noetl_worker.keepalive import Keepalive
from noetl_worker.models import Outcome
from noetl_worker.observability import metrics
from noetl_worker.observability.probes import Health
from noetl_worker.outbox import Outbox, default_directory
from noetl_worker.settings import Settings
from noetl_worker.slots import Slots
from noetl_worker.snowflake import Snowflake, node_of
from noetl_worker.tools.registry import Registry

__all__ = ["EXIT_CANCELLED", "EXIT_OK", "Worker"]

EXIT_OK: Final = 0
EXIT_CANCELLED: Final = 4
"""Commands were still running when the drain timeout was over (or a second signal came); they were given back."""
EXIT_AT_ONCE: Final = 130

T = TypeVar("T")
Settle: TypeAlias = Callable[[Delivery, Outcome], Awaitable[str | None]]
CANCEL_TIMEOUT_S: Final = 8.0
PULSE_S: Final = 0.5
log = structlog.get_logger("noetl_worker")


class Worker:
    """One worker process. `run()` returns its exit code."""

    def __init__(self, settings: Settings, *, registry: Registry | None = None) -> None:
        self.settings = settings
        self.identity = Identity(settings)
        self.health = Health()
        self.in_flight = InFlight()
        self.registry = registry or Registry(strict=settings.unknown_fields == "error")
        self.ready = asyncio.Event()
        self._stop_level = 0
        self._stop = asyncio.Event()
        self._cancel = asyncio.Event()
        self.slots = Slots(
            settings.max_concurrent,
            limits=settings.kind_limits,
            costs=settings.slot_costs,
            rate=settings.rate_limit,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering: set[asyncio.Task[Any] | None] = set()
        """Those of them that know their outcome."""
        self.outbox = Outbox(
            settings.outbox,
            Path(settings.outbox_dir) if settings.outbox_dir else default_directory(),
            max_rows=settings.outbox_max_rows,
            max_bytes=settings.outbox_max_bytes,
        )
        self._adoption: Adoption | None = None
        self._puller: Puller | None = None
        self._auth_refused = False
        self.settled: dict[str, int] = {}
        """How many notifications ended in which way: for the summary line and for tests."""

    # ── stopping ──

    def request_stop(self) -> None:
        """Ask for the next level: drain, cancel, exit."""
        self._stop_level += 1
        log.info("stop_requested", level=self._stop_level, in_flight=len(self._tasks))
        self._stop.set()
        if self._stop_level >= 2:
            self._cancel.set()
        if self._stop_level >= 3:
            os._exit(EXIT_AT_ONCE)

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT ask for a stop. Call it on the loop that runs the worker."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)

    # ── the life ──

    async def run(self) -> int:
        """Work until a stop is asked for.

        Raises:
            JetStreamError, SettingsError, ControlPlaneError: it cannot start; the text says what to do.
            WorkerBroken: it had started, and cannot go on; it has drained.
        """
        settings, pulse = self.settings, asyncio.ensure_future(self._pulse())
        keepalive = Keepalive(settings, self.health, self.identity, version=__version__, engine=engine.ENGINE)
        connections = settings.max_concurrent + CONNECTIONS_BESIDE_SLOTS
        client = ControlPlaneClient(open_transport(settings, max_connections=connections), settings)
        self.slots.ceiling = lambda: math.ceil(settings.max_concurrent * client.open_share())
        connection: Connection | None = None
        try:
            connection = await self._unless_stopped(
                connect(settings, f"noetl-worker {self.identity.unique}", attempts=5)
            )
            if connection is None:
                return EXIT_OK
            durable = await ensure_durable(connection.client, settings)
            keepalive.set_ack_wait(durable.ack_wait_s)
            await keepalive.start()
            plane = await self._reach_control_plane(client)
            if plane is None:
                return EXIT_OK
            self.identity.warn_if_unstable(plane.dialect)
            emitter = Emitter(self._ids(), self.outbox, on_auth_refused=self._pause_for_auth)
            self._adoption = Adoption(client, emitter, self.in_flight)
            self._adoption.look()  # before the first pull: what is told already must not run again
            execution = self._execution(client, keepalive, emitter)
            puller = self._puller = self._make_puller(connection, durable, execution)
            self.slots.on_free = puller.wake
            return await self._work(connection, durable, puller, plane, keepalive)
        finally:
            self.health.set_ready(False, "stopped")
            if self._adoption is not None:
                await self._adoption.stop()
            self.outbox.close()
            await keepalive.stop()
            await self.registry.aclose()
            await client.close()
            if connection is not None:
                await connection.close()
            pulse.cancel()
            log.info("stopped", settled=self.settled)

    def _make_puller(self, connection: Connection, durable: Durable, execution: Execution) -> Puller:
        store = DeadLetterStore(connection, self.settings.dead_letter_subject)
        settle = partial(
            settle_delivery, DeadLetters(store.publish, self.settings.dead_letter_subject, self.identity.unique)
        )

        async def ensure() -> Durable:
            return await ensure_durable(connection.client, self.settings)

        return Puller(
            connection,
            durable,
            window=lambda: 0 if self.outbox.is_full else self.slots.window(),
            deliver=lambda delivery: self._deliver(delivery, execution, settle),
            ensure=ensure,
        )

    async def _work(
        self, connection: Connection, durable: Durable, puller: Puller, plane: Plane, keepalive: Keepalive
    ) -> int:
        pulling = asyncio.ensure_future(puller.run())
        watching = asyncio.ensure_future(self._watch(connection, durable, puller, plane, keepalive))
        stopped = asyncio.ensure_future(self._stop.wait())
        self.health.puller_progress = lambda: puller.last_progress
        metrics.BUILD_INFO.labels(__version__, engine.ENGINE).set(1)
        metrics.announce_kinds(self.registry.kinds())
        log.info("pulling", **self._start_line(durable, plane))
        self.health.set_ready(True, "pulling")
        self.ready.set()
        try:
            await asyncio.wait({pulling, watching, stopped}, return_when=asyncio.FIRST_COMPLETED)
            broken = next((task.exception() for task in (pulling, watching) if task.done()), None)
            self.health.set_ready(False, "draining")
            self._stop.set()
            code = await self._drain(puller)
            if isinstance(broken, nats.errors.Error):  # from the puller, which was quicker to notice
                raise _closed_for_good(connection) from broken
            if broken is not None:
                raise broken
            return code
        finally:
            self._stop.set()  # cancelled, too: what the puller still brings on its way out is given back
            await event_loop.end(pulling, watching, stopped)
            await asyncio.gather(pulling, watching, stopped, return_exceptions=True)

    def _start_line(self, durable: Durable, plane: Plane) -> dict[str, object]:
        return {
            "version": __version__,
            "engine": engine.ENGINE,
            "http": plane.client.transport.name,
            "stream": durable.stream,
            "durable": durable.name,
            "filters": durable.filters,
            "slots": self.settings.max_concurrent,
            "control_plane": plane.dialect.value,
            "server_url": plane.url,
            "worker_id": self.identity.name_for(plane.dialect),
        }

    async def _drain(self, puller: Puller) -> int:
        """Let what runs finish, for as long as it may; then stop it and give it back."""
        puller.pause(True)  # the subscription stays: what an open pull still brings is given back at once
        log.info("draining", in_flight=len(self._tasks), timeout_s=self.settings.drain_timeout_s)
        deadline = time.monotonic() + self.settings.drain_timeout_s
        cancelled = asyncio.ensure_future(self._cancel.wait())
        while (running := self._running()) and not cancelled.done() and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait({cancelled, *running}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        cancelled.cancel()
        tasks = self._running()
        if not tasks:
            return EXIT_OK
        log.warning("cancelling", in_flight=len(tasks))
        await asyncio.sleep(0)  # a task that is cancelled before its first step answers nobody
        for task in tasks - self._answering:  # half an answer, a letter stored and not terminated, would come again
            task.cancel()
        await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT_S)
        return EXIT_CANCELLED

    def _running(self) -> set[asyncio.Task[None]]:
        return {task for task in self._tasks if not task.done()}

    # ── one delivery ──

    def _deliver(self, delivery: Delivery, execution: Execution, settle: Settle) -> None:
        """A message is here: work on it, or give it back when we are stopping or full."""
        if self._stop.is_set():
            task = asyncio.ensure_future(self._settled(settle(delivery, acknowledge.given_back())))
        elif self.slots.free() <= 0:
            task = asyncio.ensure_future(self._settled(settle(delivery, acknowledge.no_free_slot())))
        else:
            execution.workplace.keepalive.track(delivery.reply, delivery.received_at)
            task = asyncio.ensure_future(self._handle(delivery, execution, settle))
        self._tasks.add(task)
        self.slots.take()
        metrics.CONCURRENT.set(len(self._tasks))
        task.add_done_callback(self._ended)

    async def _handle(self, delivery: Delivery, execution: Execution, settle: Settle) -> None:
        try:
            outcome = await execution.run(delivery)
        except asyncio.CancelledError:  # before the claim: another worker takes it now
            outcome = acknowledge.given_back()
        except Exception as error:  # the last guard: a delivery is always answered
            log.exception("delivery_failed", stream_sequence=delivery.stream_sequence)
            outcome = acknowledge.internal_error(delivery.num_delivered, f"{type(error).__name__}: {error}")
        try:
            if outcome is None:
                metrics.DUPLICATES.inc()
                return
            if outcome.reason == acknowledge.AUTH_REFUSED:
                self._pause_for_auth()
            self._answering.add(asyncio.current_task())
            await self._settled(settle(delivery, outcome))
        finally:
            execution.workplace.keepalive.untrack(delivery.reply)

    async def _settled(self, settling: Awaitable[str | None]) -> None:
        ended = await settling
        if ended is not None:
            self.settled[ended] = self.settled.get(ended, 0) + 1

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._answering.discard(task)
        metrics.CONCURRENT.set(len(self._tasks))
        self.slots.give_back()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("delivery_failed", error=f"{type(error).__name__}: {error}", exc_info=error)

    # ── around it ──

    async def _unless_stopped(self, starting: Coroutine[Any, Any, T]) -> T | None:
        """Its result; None when a stop comes first: a start that waits for a server must not outlast a SIGTERM."""
        task, stopped = asyncio.ensure_future(starting), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)
        # What was made in the very step of the stop is the caller's, to be closed.
        return None if task.cancelled() or task.exception() is not None else task.result()

    async def _reach_control_plane(self, client: ControlPlaneClient) -> Plane | None:
        """Wait until the configured plane answers; None when a stop comes first.

        Raises:
            ControlPlaneError: something answers that is no control plane.
        """
        tries = 0
        while not self._stop.is_set():
            try:
                return await client.plane(self.settings.server_url)
            except ControlPlaneError as error:
                if not error.is_retryable and not isinstance(error, ServerRefused):
                    raise
                tries += 1
                log.warning(
                    "control_plane_unreachable",
                    server_url=self.settings.server_url,
                    error=str(error),
                    advice="is NOETL_SERVER_URL right? Nothing is pulled until it answers",
                )
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(5.0, 0.25 * 2.0 ** min(tries, 5)))
        return None

    def _pause_for_auth(self) -> None:
        """401 or 403: stop pulling, not ready, one line; pull again when the plane lets us in (ARCHITECTURE 4)."""
        if self._auth_refused or self._puller is None:
            return
        self._auth_refused = True
        self._puller.pause(True)
        self.health.set_ready(False, "the control plane refuses the credentials")
        log.error("auth_refused", advice="check NOETL_INTERNAL_API_TOKEN (and NOETL_TLS_CLIENT_CERT)")

    async def _watch(
        self, connection: Connection, durable: Durable, puller: Puller, plane: Plane, keepalive: Keepalive
    ) -> None:
        """Every few seconds: the durable's lag, whether NATS is there, whether we are let in again.

        Raises:
            WorkerBroken: what cannot mend itself; the worker drains and ends, for its supervisor to start it again.
        """
        for happens in (connection.on_disconnected, connection.on_reconnected):
            happens.append(partial(self._tell_readiness, connection))  # a look into a black hole takes its 5 s
        while not self._stop.is_set():
            await asyncio.sleep(self.settings.lag_poll_interval_s)
            if self._stop.is_set():
                return
            if connection.client.is_closed:
                raise _closed_for_good(connection)
            if not keepalive.is_alive():
                raise WorkerBroken(
                    "the keepalive thread has ended: deliveries would pass to other workers while they run here. "
                    "Please report the log's keepalive_died"
                )
            if self._auth_refused and await self._let_in(plane):
                if self._stop.is_set():  # meanwhile: who drains never pulls again
                    return
                self._auth_refused = False
                puller.pause(False)
            self._tell_readiness(connection)
            if self._adoption is not None:
                self._adoption.look()
            metrics.SLOTS_LIMIT.set(min(self.slots.size, self.slots.ceiling()))
            try:
                seen = await look(connection.client, durable)
            except (JetStreamError, nats.errors.Error, asyncio.TimeoutError) as error:
                log.warning("lag_unknown", error=repr(error))
                continue
            keepalive.set_ack_wait(seen.durable.ack_wait_s)  # `nats ensure --apply` changes it while we run
            metrics.PENDING.labels(durable.stream, durable.name).set(seen.pending)
            metrics.ACK_PENDING.labels(durable.stream, durable.name).set(seen.ack_pending)

    def _tell_readiness(self, connection: Connection) -> None:
        if self._auth_refused or self._stop.is_set():
            return  # those reasons outlast a connection
        connected, full = connection.is_connected, self.outbox.is_full
        why = "NATS is not connected" if not connected else "the outbox is full" if full else "pulling"
        self.health.set_ready(connected and not full, why)

    async def _let_in(self, plane: Plane) -> bool:
        try:
            await plane.heartbeat(self.identity.name_for(plane.dialect))
        except AuthRefused:
            return False
        except ControlPlaneError as error:
            log.warning("auth_probe_failed", error=str(error))
            return False
        log.info("auth_accepted")
        return True

    async def _pulse(self) -> None:
        while True:
            self.health.pulse = time.monotonic()
            await asyncio.sleep(PULSE_S)

    def _ids(self) -> Snowflake:
        node = self.settings.snowflake_node_id
        return Snowflake(
            node_of(self.identity.unique) if node is None else node, epoch_ms=self.settings.snowflake_epoch_ms
        )

    def _execution(self, client: ControlPlaneClient, keepalive: Keepalive, emitter: Emitter) -> Execution:
        workplace = Workplace(
            self.settings, self.identity, self.registry, self.in_flight, keepalive, emitter, self.slots
        )
        return Execution(client, workplace)


def _closed_for_good(connection: Connection) -> WorkerBroken:
    """nats-py reconnects for ever, but for some errors (a login that has expired, or is refused twice)."""
    error = connection.client.last_error or connection.last_error  # what the server says last is not reported to us
    return WorkerBroken(f"NATS closed the connection for good ({describe(error) if error else 'no reason given'})")
