"""A thread with its own event loop and NATS connection, for work that must go on while the main loop is blocked.

The thread sends `in_progress` for every unsettled delivery, so that JetStream does not redeliver the message. It also
sends the worker's heartbeats to the plane, and serves the probes. Measured with a blocked main loop: a command was
delivered 3 times when the main loop sent `in_progress`, and once when this thread did.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import nats
import structlog

from noetl_worker.errors import ControlPlaneError
from noetl_worker.models.stopping import KEEPALIVE_S
from noetl_worker.observability import metrics
from noetl_worker.observability.outage import Outage
from noetl_worker.observability.probe_server import ProbeServer
from noetl_worker.observability.probes import Health, make_pages
from noetl_worker.process import event_loop
from noetl_worker.process.handed_down import probe_ports
from noetl_worker.remote.jetstream.connection import Connection, connect
from noetl_worker.remote.jetstream.delivery import IN_PROGRESS
from noetl_worker.remote.jetstream.fleet import answer_until_cancelled
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.remote.plane.identity import Identity
from noetl_worker.remote.plane.plane_watch import HeartbeatWatch
from noetl_worker.remote.plane.registration import DEREGISTER_ADVICE, REGISTER_AGAIN_S, Registration
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.settings.settings import Settings

log = structlog.get_logger("noetl_worker.keepalive")
_NOT_EXTENDED_ADVICE: Final = "check NATS and the network to it: these deliveries may pass to other workers"
_DIED_ADVICE: Final = "report this error with the text of `exception`; the worker ends, so start it again"
_DEREGISTER_TIMEOUT_S: Final = 1.5
"""Longest wait in seconds for the plane's answer to the deregistration. The drain, the return of commands
and this wait fit into the 30 s that Kubernetes gives a stopping process."""


@dataclass(slots=True)
class _Beat:
    last_sent: float
    """Monotonic time of the delivery, or of the last in_progress that reached the server."""
    expired: bool = False
    """True once an `in_progress` or a heartbeat was late, so that another worker may have the command. The value stays
    True, even if all later messages are in time."""
    deliveries: int = 1
    """Number of open deliveries with this reply subject. Two deliveries can have the same reply subject, because a
    recreated durable numbers its deliveries from 1 again."""


class InProgress:
    """The deliveries that JetStream has no answer to yet. The main loop adds and removes deliveries. The keepalive
    thread sends `in_progress` for each, so that JetStream does not redeliver the message."""

    def __init__(self, ack_wait_s: float) -> None:
        self.ack_wait_s = ack_wait_s
        """The durable's present ack_wait, which an operator may change while the worker runs."""
        self._beats: dict[str, _Beat] = {}
        self._heard_at, self._stale_after_s = 0.0, math.inf
        self._closed, self._not_extended = Outage(), Outage()

    def track(self, reply: str, received_at: float) -> None:
        """Add a delivery. The keepalive thread then sends `in_progress` for the delivery until `untrack`."""
        if reply in self._beats:
            self._beats[reply].deliveries += 1
        else:
            self._beats[reply] = _Beat(received_at)

    def untrack(self, reply: str) -> None:
        beat = self._beats[reply]
        beat.deliveries -= 1
        if beat.deliveries == 0:
            del self._beats[reply]

    def note_contact(self, sent_at: float, stale_after_s: float) -> None:
        """Note a contact with the plane: a register request or heartbeat that the plane has accepted. `Registration`
        also calls this once before its first request.

        Args:
            sent_at: monotonic time at which the request was sent.
            stale_after_s: seconds without a heartbeat after which the plane gives this worker's claims to others. The
                plane then accepts an outcome from either worker (protocol/claim.md#races).
        """
        if time.monotonic() - self._heard_at > self._stale_after_s:
            for beat in self._beats.copy().values():
                beat.expired = True
        self._heard_at, self._stale_after_s = sent_at, stale_after_s

    def is_expired(self, reply: str, now: float) -> bool:
        """Return whether another worker may have the command by now, because an in_progress or a heartbeat was late."""
        if reply not in self._beats:
            return False
        beat = self._beats[reply]
        is_stale = now - self._heard_at > self._stale_after_s
        return beat.expired or is_stale or now - beat.last_sent > self.ack_wait_s

    async def extend_until(self, stop: asyncio.Event, connection: Connection, settings: Settings) -> None:
        """Extend each delivery by an `in_progress` before ack_wait ends, until `stop` is set."""
        while not stop.is_set():  # not `while True`: `flush` can lose a cancellation (cpython #86296)
            await asyncio.sleep(min(1.0, self.ack_wait_s / 12))
            if connection.client.is_closed:  # nats-py does not reconnect after some errors (an expired login)
                if (line := self._closed.note_failure(repr(connection.last_error))) is not None:
                    log.warning(
                        "keepalive_reconnects",
                        advice="do nothing; if this repeats, check whether the NATS login has expired",
                        **line,
                    )
                await connection.reopen(settings)
            else:
                self._closed.note_success()
            await self._extend(connection)

    async def _extend(self, connection: Connection) -> None:
        now = time.monotonic()
        due = [
            (reply, beat) for reply, beat in self._beats.copy().items() if now - beat.last_sent >= self.ack_wait_s / 3
        ]
        if not due:
            return
        if not connection.is_connected:
            metrics.IN_PROGRESS_FAILURES.inc(len(due))
            return
        try:
            for reply, _ in due:
                await connection.client.publish(reply, IN_PROGRESS)
            await connection.client.flush(timeout=2)
        except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
            metrics.IN_PROGRESS_FAILURES.inc(len(due))
            if (line := self._not_extended.note_failure(repr(error))) is not None:
                log.warning("in_progress_failed", deliveries=len(due), advice=_NOT_EXTENDED_ADVICE, **line)
            return
        self._not_extended.note_success()
        arrived = time.monotonic()  # the flush may have taken long, and ack_wait goes on until in_progress arrives
        for _, beat in due:
            beat.expired = beat.expired or arrived - beat.last_sent > self.ack_wait_s
            beat.last_sent = now


class Keepalive:
    """The keepalive thread. It serves the probes first. It then extends deliveries and sends heartbeats, from before
    the first pull until after the last ack."""

    def __init__(self, settings: Settings, health: Health, identity: Identity, own_ports: set[int]) -> None:
        """Create the keepalive thread, without starting it. When the thread's probe server (/livez and others) listens,
        its ports are added to `own_ports`. Tools may not connect to these ports (EgressRule)."""
        self._settings = settings
        self._own_ports = own_ports
        self._health = health
        self._identity = identity
        self.in_progress: Final = InProgress(settings.ack_wait_s)
        self._thread = threading.Thread(target=self._run, name="noetl-keepalive", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: Future[None] = Future()
        self._up: Future[None] = Future()
        self._over: Future[None] = Future()
        self._stop: asyncio.Event | None = None
        self._wanted = asyncio.Event()
        self._is_stopping = False
        self._registered: Registration | None = None

    # ── called from the main loop ──

    async def serve(self) -> None:
        """Start the thread and its probes. Raise SettingsError when the probes' port is taken."""
        self._thread.start()
        await _awaited(self._serving)

    async def start(self) -> None:
        """Let the thread connect to NATS, and wait for the connection. The thread then registers the worker and extends
        deliveries."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the thread has ended by itself, and `_up` has the error
                self._loop.call_soon_threadsafe(self._wanted.set)
        await _awaited(self._up)

    def is_alive(self) -> bool:
        """Return False once the thread has ended. Deliveries are then no longer extended."""
        return self._thread.is_alive()

    async def stop(self) -> None:
        """End the thread after the drain: deregister from the plane and close the connection."""
        if not self._thread.is_alive():
            return
        self._is_stopping = True
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # the thread is ending by itself, and its loop is closed
                self._loop.call_soon_threadsafe(self._stop.set)
        # Not `to_thread(join)`: tools that cannot be stopped may occupy all threads of the executor.
        over, _ = await asyncio.wait({asyncio.wrap_future(self._over)}, timeout=KEEPALIVE_S)
        if over:
            self._thread.join()

    # ── the thread ──

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # the outermost guard of this thread: no error may vanish with it
            waiting = [one for one in (self._serving, self._up) if not one.done()]
            for one in waiting:
                one.set_exception(error)
            if not waiting:
                log.exception("keepalive_died", error=str(error), advice=_DIED_ADVICE)
        finally:
            self._over.set_result(None)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._is_stopping:  # `stop` was called before the event existed
            self._stop.set()
        server = ProbeServer(make_pages(self._health), debug_token=self._settings.debug_token.reveal())
        if self._settings.metrics_bind:
            await server.open(self._settings.metrics_bind)
            self._own_ports.update((server.port, *probe_ports()))
        self._serving.set_result(None)
        stopping = asyncio.ensure_future(self._stop.wait())
        connecting = asyncio.ensure_future(self._connection())
        try:
            await asyncio.wait({stopping, connecting}, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await self._work(connecting.result(), self._stop, stopping)
        finally:
            await event_loop.end(stopping, connecting)
            if not (self._up.done() or connecting.cancelled() or connecting.exception()):
                await connecting.result().close()  # the connection was made while the task was being cancelled
            await server.close()

    async def _connection(self) -> Connection:
        await self._wanted.wait()
        name = f"noetl-worker keepalive {self._identity.unique}"
        return await connect(self._settings, name, attempts=None, is_beside=True)

    async def _work(self, connection: Connection, stop: asyncio.Event, stopping: asyncio.Future[Any]) -> None:
        client = ControlPlaneClient(open_transport(self._settings, max_connections=2), self._settings)
        registry = asyncio.create_task(self._registry(client))
        beats = asyncio.create_task(self.in_progress.extend_until(stop, connection, self._settings))
        tasks = {beats, registry}
        if self._settings.fleet == "nats":
            state = make_pages(self._health)["/debug/inflight"]
            tasks.add(asyncio.create_task(answer_until_cancelled(connection, self._settings, state)))
        self._up.set_result(None)
        try:
            await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:  # before a stop, only a bug ends a task: its error ends this thread
                if task.done():
                    task.result()
        finally:
            await event_loop.end(*tasks)
            await asyncio.gather(*tasks, return_exceptions=True)  # the first error was raised above
            if self._registered is not None and self._registered.is_registered:
                await _deregister(self._registered)
            await connection.close()
            await client.close()

    async def _registry(self, client: ControlPlaneClient) -> None:
        """Register the worker with the plane as soon as the plane answers, then send heartbeats until cancelled."""
        self._registered = await self._registration(client)
        await self._registered.run(self._settings.heartbeat_interval_s)

    async def _registration(self, client: ControlPlaneClient) -> Registration:
        settings, watch = self._settings, HeartbeatWatch(client.servers.configured, self._health)
        while True:
            try:
                plane = await client.plane(settings.server_url)
                break
            except ControlPlaneError as error:
                watch.failed(error)
                log.debug("registration_delayed", error=str(error))
                await asyncio.sleep(REGISTER_AGAIN_S)
        name = self._identity.name_for(plane.dialect)
        return Registration(plane, settings, name, watch, on_heartbeat=self.in_progress.note_contact)


async def _awaited(future: Future[None]) -> None:
    await asyncio.shield(asyncio.wrap_future(future))  # cancelling the waiter must not cancel the thread's future


async def _deregister(registration: Registration) -> None:
    try:
        await asyncio.wait_for(registration.deregister(), _DEREGISTER_TIMEOUT_S)
    except asyncio.TimeoutError:
        log.warning(
            "deregister_not_answered",
            advice=DEREGISTER_ADVICE,
        )
