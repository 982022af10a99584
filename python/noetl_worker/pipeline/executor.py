"""The whole path of one command, from a message's bytes to the answer to JetStream. Start reading here.

    bytes - receiving - claiming - preparing - waiting - running - deciding - reporting - answering

`ClaimedCommand` runs the stages from `preparing` to `reporting`. The caller of `run` sends the answer
(`delivery/settle.py`). The message of a claimed command is acknowledged only after the plane has accepted the command's
terminal events, or has answered that the command is over. A command that fails is reported by terminal events too. If
it failed because this machine lacked resources, it may be returned instead. One asyncio task runs all stages of a
delivery; only a tool may have a child task. `stages.py` says what happens to each stage when the worker stops.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from noetl_worker.engine import chosen as engine
from noetl_worker.errors import AuthRefused, ControlPlaneError, NotificationError
from noetl_worker.models.claim import AuthRefusedClaim, ClaimAnswer, Claimed, RetryLater
from noetl_worker.models.disposition import Disposition
from noetl_worker.models.notification import Envelope
from noetl_worker.observability import metrics
from noetl_worker.pipeline.claim.claim import claim_command
from noetl_worker.pipeline.command.claimed_command import ClaimedCommand, WorkerServices
from noetl_worker.pipeline.delivery import acknowledge
from noetl_worker.pipeline.delivery.execution_share import ExecutionShare
from noetl_worker.pipeline.delivery.in_flight import Seen
from noetl_worker.pipeline.delivery.pools import Pools
from noetl_worker.pipeline.stages import Progress, Stage
from noetl_worker.process.threads import OWNER
from noetl_worker.remote.jetstream.delivery import Delivery
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane

if TYPE_CHECKING:
    from noetl_worker.pipeline.command.trace import DeliveryTraces


@dataclass(frozen=True, slots=True)
class Executor:
    """Runner of all stages of each delivery. A worker has one Executor and calls `run` concurrently."""

    client: ControlPlaneClient
    services: WorkerServices
    pools: Pools | None = None
    """The pools whose commands this worker may run; None for all pools."""
    share: ExecutionShare | None = None
    """Limit on the slots that one execution may use while other executions wait; None for no limit."""
    traces: DeliveryTraces | None = None
    """Factory of the OpenTelemetry trace of each delivery; None if tracing is off."""

    async def run(self, delivery: Delivery, progress: Progress | None = None) -> Disposition | None:
        """Take one delivery through the stages and return its disposition. Return None when another delivery of the
        same message will be answered instead.

        Args:
            progress: receives the stage of this delivery. The worker reads the stage there, and stops the command by
                `progress.stop`.
        """
        progress, in_flight = progress or Progress(delivery), self.services.in_flight
        try:
            notification = engine.decode_notification(delivery.data)
        except NotificationError as error:
            if self.traces is not None:
                self.traces.begin(progress, delivery, None)
            return acknowledge.not_a_notification(str(error))
        progress.notification = notification
        if self.traces is not None:
            self.traces.begin(progress, delivery, notification)
        if (
            (pools := self.pools) is not None
            and (notification.pool or delivery.subject) not in pools.needs_no_check  # usual pools need no closer look
            and (refusal := pools.refusal(notification.pool, delivery.subject)) is not None
        ):
            if refusal.is_passed_over:
                return acknowledge.system_pool(refusal.cause)
            return acknowledge.foreign_pool(refusal.cause, delivery.num_delivered, delivery.age_s())
        seen = in_flight.classify(notification.command_id, delivery.stream_sequence)
        if seen is not Seen.NEW:
            return acknowledge.duplicate(seen, delivery.tries)
        share = self.share
        if share is not None and (delay_s := share.delay_s(notification.execution_id, delivery)) is not None:
            return acknowledge.over_share(delay_s)
        in_flight.enter(notification.command_id, delivery.stream_sequence)
        OWNER.set(notification.execution_id)
        try:
            work = self._claim_and_run(notification, delivery, progress)
            return await (work if share is None else share.counted(notification.execution_id, work))
        except asyncio.CancelledError as stop:  # the worker stops, and the plane has not answered the claim in time
            progress.absorb(stop)
            return acknowledge.returned()
        finally:
            in_flight.leave(notification.command_id, delivery.stream_sequence)

    async def _claim_and_run(self, notification: Envelope, delivery: Delivery, progress: Progress) -> Disposition:
        if self.services.emitter.stopping.is_draining:
            return acknowledge.returned()
        progress.enter(Stage.CLAIMING)
        plane: Plane | None = None
        claim: ClaimAnswer
        try:
            plane = await self.client.plane(notification.server_url)
            worker_id = self.services.identity.name_for(plane.dialect)
            claim = await claim_command(plane, notification.event_id, worker_id)
        except AuthRefused as error:
            claim = AuthRefusedClaim(str(error))
        except ControlPlaneError as error:
            claim = RetryLater(str(error))
        now = time.monotonic()
        metrics.count_claim(claim, now - delivery.received_at)
        if plane is not None and isinstance(claim, Claimed):
            plane.retry_pace.given_at = progress.claimed_at = now
            command = ClaimedCommand(claim, notification, plane, delivery, self.services, progress, worker_id, now)
            return await command.run()
        if plane is not None and isinstance(claim, AuthRefusedClaim):
            self.client.auth_refused(plane.url)
        if progress.is_stopping:
            return acknowledge.returned()
        wait_s = plane.retry_pace.least_wait_s(claim, delivery.tries) if plane is not None else 0.0
        return acknowledge.answer_to_claim(
            claim,
            delivery.tries,
            message_age_s=delivery.age_s(),
            at_least_s=wait_s,
        )
