"""Pull loop as NATS's ADR-37 describes it, on a plain subscription with a callback.

nats-py's `fetch()` is not used: `fetch()` stalls while a message waits, and hides the deletion of a consumer. `fetch()`
also loses its pull request when the server restarts (protocol/jetstream.md#pulling).

The loop here sends the next pull request when half of the requested messages have arrived. The loop requests at most as
many messages as the worker has free slots. So no worker holds a message that the worker cannot run.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import nats
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from noetl_worker.errors import JetStreamError, describe
from noetl_worker.models import backoff
from noetl_worker.remote.jetstream.comparison import MAX_PULL_BATCH, NANOSECONDS, PULL_EXPIRES_S
from noetl_worker.remote.jetstream.connection import Connection
from noetl_worker.remote.jetstream.consumer import UNUSABLE_ADVICE, Durable
from noetl_worker.remote.jetstream.delivery import Delivery

HEARTBEAT_S: Final = 5.0
MISSED_BEATS: Final = 2
_FIRST_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 5.0
_FRESH_S: Final = 10.0
_FRESH_BACKOFF_S: Final = 0.5
"""Longest back-off, in seconds, just after a reconnect. A restarted server answers "no responders" while the server
loads its streams, mostly for about a second. A longer back-off would only delay the commands."""
_CHECK_S: Final = 1.0
"""Seconds allowed for the check of a durable that the server reported missing. After a longer back-off, the check may
last as long as the back-off."""
_END_S: Final = 1.0
"""Longest wait, in seconds, for a server that does not answer when pulling ends."""
_REFUSED_ADVICE: Final = (
    "the worker pulls again; if this lasts, compare the durable with the settings: `noetl-worker nats ensure`"
)
_LATE_MESSAGES: Final = "do nothing: a message that still comes here is delivered again after ack_wait"
_PULLS_AGAIN: Final = "do nothing: the worker pulls again by itself; if this lasts, check the NATS server"
log = structlog.get_logger("noetl_worker.remote.jetstream")

# How the loop goes on after each status that ends a pull request. After any other status it backs off.
PULL_AGAIN, BACK_OFF, CHECK_DURABLE = "pull_again", "back_off", "check_durable"
STATUS_TABLE: Final[tuple[tuple[str, str, str], ...]] = (
    ("404", "", PULL_AGAIN),  # no messages (only for no_wait pulls)
    ("408", "", PULL_AGAIN),  # expired: request timeout, interest expired
    ("409", "batch completed", PULL_AGAIN),
    ("409", "message size exceeds maxbytes", PULL_AGAIN),
    ("409", "leadership change", BACK_OFF),
    ("409", "server shutdown", BACK_OFF),
    ("409", "exceeded max", BACK_OFF),  # MaxAckPending, MaxWaiting, MaxRequestBatch, MaxRequestExpires
    ("409", "consumer deleted", CHECK_DURABLE),
    ("409", "consumer is push based", CHECK_DURABLE),
    ("400", "", BACK_OFF),
    ("423", "", PULL_AGAIN),  # wrong pin id
    ("503", "", CHECK_DURABLE),  # no responders: the consumer, the stream or JetStream is gone
)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await `work`, the drain of a subscription. If this task is cancelled, still wait for `work`, for at most _END_S
    seconds.

    If the drain were cut off, messages that the server has already sent would wait for ack_wait.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_END_S)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody awaits it any more
        raise


def reaction(status: str, text: str) -> str:
    for code, part, how in STATUS_TABLE:
        if code == status and part in text.lower():
            return how
    return BACK_OFF  # an unknown status must not cause a hot loop


@dataclass(eq=False, repr=False)
class Puller:
    """Loop that pulls as many messages as there are free slots."""

    connection: Connection
    durable: Durable
    window: Callable[[], int]
    """Callable that returns the number of free slots."""
    deliver: Callable[[Delivery], None]
    """Callback for each delivery. The callback runs on the event loop and must not block."""
    ensure: Callable[[], Awaitable[Durable]]
    """Callable that checks a durable that the server reported missing, and makes it again if it does not exist."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Event that wakes the loop, for example when a slot becomes free."""

    def __post_init__(self) -> None:
        self._pulls: dict[str, int] = {}
        """Open pull requests: the number of messages that each request may still bring. The key is the request's reply
        subject."""
        self._counter = 0
        self._inbox = self.connection.client.new_inbox()
        self._received_at = time.monotonic()
        """Monotonic time of the last message or heartbeat from the server."""
        self._wall_offset_s = time.time() - time.monotonic()
        self._broken: str | None = None
        self._mendings = 0
        self._reconnected_at = float("-inf")
        self._paused = False
        self.newest_published_at = 0.0
        """Time in epoch seconds at which the stream stored the newest message received as a first delivery. Messages
        not yet delivered are newer."""
        self.last_progress = time.monotonic()
        self.connection.on_reconnected.append(self._start_afresh)

    @property
    def outstanding(self) -> int:
        """Number of messages that the worker has requested and not received yet."""
        return sum(self._pulls.values())

    def pause(self, paused: bool) -> None:
        """Stop pulling if `paused` is true (for a drain or a refused login), else resume pulling."""
        self._paused = paused
        self.wake.set()

    async def run(self) -> None:
        """Pull until cancelled. While pulling is paused, the worker has no open pull request. Messages that the server
        has already sent still go to `deliver`."""
        subscription: Subscription | None = None
        try:
            while True:
                self.wake.clear()
                self.last_progress = time.monotonic()
                if self._paused:
                    withdrawn, subscription = subscription, None  # a cancellation must not withdraw it twice
                    await self._withdraw(withdrawn)
                else:
                    if subscription is None:
                        subscription = await self.connection.client.receive(f"{self._inbox}.*", self._received)
                    if self._broken is not None:
                        await self._mend()
                    await self._refill()
                await self._sleep()
                if time.monotonic() - self.last_progress > HEARTBEAT_S:
                    self._received_at = time.monotonic()  # this loop was blocked: heartbeats may wait unread
                if self._has_missed_beats() and self.connection.is_connected:
                    silent, subscription = subscription, None
                    await self._withdraw(silent)
        finally:  # otherwise messages that the open pull still brings would wait for ack_wait
            await asyncio.wait({asyncio.ensure_future(self._withdraw(subscription))}, timeout=_END_S)

    async def _withdraw(self, subscription: Subscription | None) -> None:
        """Withdraw the open pull requests by ending the subscription to their answers.

        If a request stayed open, the server would answer it with a message that this stopping worker has just returned.
        The last returned message would then wait for ack_wait, instead of going to another worker at once.
        """
        self._pulls.clear()
        client = self.connection.client
        if subscription is None or client.is_closed:
            return
        try:
            if self.connection.is_connected:
                await _to_its_end(subscription.drain())  # type: ignore[no-untyped-call]
            else:  # the server has forgotten us and our pulls already
                await subscription.unsubscribe()
        except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
            log.warning("pulls_not_withdrawn", error=describe(error), advice=_LATE_MESSAGES)
            client.forget(subscription)

    async def _sleep(self) -> None:
        # Not asyncio.wait_for: before 3.12 it swallows a cancellation that meets the wake-up, and the drain then
        # waits for this loop for ever (seen; cpython #86296).
        with anyio.move_on_after(HEARTBEAT_S / 2):
            await self.wake.wait()

    async def _refill(self) -> None:
        if self._paused or not self.connection.is_connected:
            return
        wanted = self.window()
        missing = min(wanted - self.outstanding, MAX_PULL_BATCH)
        if missing <= 0 or (self.outstanding and missing * 2 < wanted):
            return
        self._counter += 1
        reply = f"{self._inbox}.{self._counter}"
        request = {
            "batch": missing,
            # JetStream serves the request that has waited longest. If all requests lived equally long, a worker that
            # asks right after another would be first for only a moment every 30 s, and get almost nothing from a quiet
            # stream.
            "expires": int(random.uniform(0.5, 1.0) * PULL_EXPIRES_S * NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.durable.stream}.{self.durable.name}"
        if not self._pulls:
            self._received_at = time.monotonic()
        self._pulls[reply] = missing
        try:
            await self.connection.client.publish(subject, json.dumps(request).encode(), reply=reply)
        except (nats.errors.Error, OSError) as error:
            self._pulls.pop(reply, None)  # a reconnect may have removed it
            log.warning("pull_failed", error=describe(error), advice=_PULLS_AGAIN)

    def _has_missed_beats(self) -> bool:
        """Return whether the server has not sent two heartbeats that were due for an open pull request. If so, forget
        the open pull requests.

        The server has then lost the pull request (a restart, a lost leader; ADR-37). Or the server has ended the
        subscription to the answers (permissions that changed for a while).
        """
        silent_s = time.monotonic() - self._received_at
        if not self._pulls or silent_s <= HEARTBEAT_S * MISSED_BEATS + 1:
            return False
        log.warning("pull_heartbeat_missed", silent_s=round(silent_s, 1), advice=_PULLS_AGAIN)
        self._reset()
        return True

    def _start_afresh(self) -> None:
        self._reconnected_at = time.monotonic()
        self._mendings = 0
        self._reset()

    def _reset(self) -> None:
        self._pulls.clear()
        self._received_at = time.monotonic()
        self.wake.set()

    def _received(self, message: Msg) -> None:
        self._received_at = time.monotonic()
        status = message.headers.get("Status") if message.headers else None
        if status is None:
            self._count()
            self._mendings = 0
            try:
                client, offset_s = self.connection.client, self._wall_offset_s
                delivery = Delivery(client, message, self._received_at, wall_offset_s=offset_s)
                if delivery.num_delivered == 1:
                    self.newest_published_at = delivery.published_at
                self.deliver(delivery)
            except Exception as error:  # raised from here, it would end the connection
                is_ours = not isinstance(error, JetStreamError)
                log.warning(
                    "message_unreadable",
                    subject=message.subject,
                    error=str(error),
                    exc_info=is_ours,
                    advice="find out who publishes on `subject`; if this line has a traceback, report it as a bug",
                )
        elif status != "100":
            self._pull_ended(message.subject, status, (message.headers or {}).get("Description", ""))

    def _count(self) -> None:
        """Count one received message for the oldest open pull request, since a message does not tell which pull request
        it answers. The count tells how many requested messages are still to come."""
        for oldest in self._pulls:
            self._pulls[oldest] -= 1
            if self._pulls[oldest] <= 0:
                del self._pulls[oldest]
            return

    def _pull_ended(self, reply: str, status: str, text: str) -> None:
        if self._pulls.pop(reply, None) is None:
            return
        how = reaction(status, text)
        if how != PULL_AGAIN:
            log.warning("pull_refused", status=status, text=text, reaction=how, advice=_REFUSED_ADVICE)
            self._broken = how
        self.wake.set()

    async def _mend(self) -> None:
        """Wait after a refused pull request: 0.1 s at first, 5 s at most, with jitter. If the server reported the
        durable missing, check the durable, and make it again if it does not exist."""
        is_fresh = time.monotonic() - self._reconnected_at < _FRESH_S
        most_s = _FRESH_BACKOFF_S if is_fresh else _MAX_BACKOFF_S
        base_s = backoff.delay_s(self._mendings + 1, _FIRST_BACKOFF_S, most_s, jitter=0.0)
        if base_s < most_s or not is_fresh:  # just after a reconnect, the limit stays low
            self._mendings += 1
        await asyncio.sleep(backoff.delay_s(1, base_s, base_s, jitter=0.5))
        if self._broken == CHECK_DURABLE and self.connection.is_connected:
            wait_s = max(_CHECK_S, base_s)
            try:
                # A cluster that elects a leader neither answers nor remembers requests. Waiting for the usual timeout
                # of a request would outlast the election by seconds.
                with anyio.fail_after(wait_s):
                    self.durable = await self.ensure()
            except TimeoutError:
                advice = "check that the NATS server is well, and that this login may publish to $JS.API.>"
                log.warning("durable_not_checked", no_answer_for_s=round(wait_s, 1), advice=advice)
                return
            except JetStreamError as error:
                log.error("durable_unusable", error=str(error), advice=UNUSABLE_ADVICE)
                return
        self._broken = None
