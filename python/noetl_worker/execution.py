"""ONE command, from bytes to outcome: start reading here.

    bytes -(1) delivery -(2) envelope -(3) claim -(4) command -(5) tool -(6) cases -(7) events -(8) acknowledge

Each stage is a verb below and a room of its own. Nothing is acknowledged before the plane has accepted the terminal
events; whatever fails after the claim ends in exactly one terminal set.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from noetl_worker import acknowledge, case_actions, envelope, handover, results
from noetl_worker.claim import claim_command
from noetl_worker.command import bare_command, hydrate
from noetl_worker.control_plane.client import ControlPlaneClient, Plane
from noetl_worker.control_plane.dialects import event_form
from noetl_worker.dispatch import Dispatch, Limits, failure_of
from noetl_worker.emitter import Emitter
from noetl_worker.errors import AuthRefused, ClaimLost, ControlPlaneError, NotificationError, ServerRefused
from noetl_worker.events import CommandEvents
from noetl_worker.handover import ClaimedOnce
from noetl_worker.identity import Identity
from noetl_worker.in_flight import InFlight, Seen
from noetl_worker.jetstream.delivery import Delivery
from noetl_worker.keepalive import Keepalive
from noetl_worker.models import (
    AuthRefusedClaim,
    Claimed,
    ClaimOutcome,
    Command,
    Envelope,
    FitRules,
    Outcome,
    Report,
    RetryLater,
)
from noetl_worker.observability import metrics
from noetl_worker.settings import Settings
from noetl_worker.slots import Slots
from noetl_worker.tools.registry import Registry

__all__ = ["Execution"]


@dataclass(frozen=True, slots=True)
class Execution:
    """What a notification needs on its way. One for the whole worker; `run` is called concurrently."""

    settings: Settings
    identity: Identity
    client: ControlPlaneClient
    registry: Registry
    in_flight: InFlight
    keepalive: Keepalive
    emitter: Emitter
    slots: Slots

    async def run(self, delivery: Delivery) -> Outcome | None:
        """Take one delivery to its outcome; None when another delivery of the same message will answer."""
        try:
            notification = envelope.decode_notification(delivery.data)
        except NotificationError as error:
            return acknowledge.poison(f"not a notification: {error}")
        seen = self.in_flight.look(notification.command_id, delivery.stream_sequence)
        if seen is not Seen.NEW:
            return acknowledge.duplicate(seen, delivery.num_delivered)
        with self.in_flight.entered(notification.command_id, delivery.stream_sequence):
            return acknowledge.named(await self._claim_and_run(notification, delivery), notification)

    async def _claim_and_run(self, notification: Envelope, delivery: Delivery) -> Outcome:
        claiming = asyncio.ensure_future(self._claim(notification))
        try:
            plane, claim = await asyncio.shield(claiming)
        except asyncio.CancelledError:  # the drain is over, and the plane may have given us the command
            plane, claim = await handover.finish_claim(claiming)
            if isinstance(claim, Claimed) and plane is not None:
                ownership = self._ownership(notification, plane, delivery)
                return await handover.give_back(self._events(claim, notification, plane), self.identity, ownership)
            return acknowledge.given_back()
        metrics.claim_ended(claim, delivery.received_at)
        if plane is None or not isinstance(claim, Claimed):
            return acknowledge.after_claim(
                claim,
                delivery.num_delivered,
                max_not_found=self.settings.max_not_found,
                message_age_s=delivery.age_s(),
            )
        return await self._run_claimed(claim, notification, plane, delivery)

    async def _claim(self, notification: Envelope) -> tuple[Plane | None, ClaimOutcome]:
        try:
            plane = await self.client.plane(notification.server_url)
        except AuthRefused as error:
            return None, AuthRefusedClaim(str(error))
        except ControlPlaneError as error:
            return None, RetryLater(str(error))
        return plane, await claim_command(plane, notification.event_id, self.identity.name_for(plane.dialect))

    async def _run_claimed(self, claim: Claimed, notification: Envelope, plane: Plane, delivery: Delivery) -> Outcome:
        ownership = self._ownership(notification, plane, delivery)
        events = self._events(claim, notification, plane)
        telling: asyncio.Future[Outcome] | None = None
        try:
            report = await self._perform(claim, notification, plane, events)
            telling = asyncio.ensure_future(self._tell(events, report, ownership, delivery.num_delivered))
            return await asyncio.shield(telling)
        except asyncio.CancelledError:  # the drain is over: interrupted is not failed, and told is told
            if telling is not None:
                return await handover.finish_telling(telling, plane, ownership)
            return await handover.give_back(events, self.identity, ownership)
        finally:
            events.abandon()

    async def _perform(self, claim: Claimed, notification: Envelope, plane: Plane, events: CommandEvents) -> Report:
        """Stages 4 to 7a. Whatever goes wrong becomes the report of a failure."""
        command, dispatch = events.command, None
        try:
            command = await hydrate(claim.body, notification, plane)
            dispatch = self._dispatch(command, plane)
            async with self.slots.kind(command.kind):
                ready = await dispatch.prepare()
                events.start()
                result = await dispatch.run(ready)
            decision = case_actions.decide(command, result, self.identity.name_for(plane.dialect))
            await case_actions.act(decision, command, plane)
            return await results.report(command, result, decision, self._rules(dispatch))
        except Exception as error:  # the task guard: any failure after a claim is told, never swallowed
            events.start()
            failure = failure_of(error)
            return await results.report_failure(command, failure, self._rules(dispatch))

    async def _tell(self, events: CommandEvents, report: Report, ownership: ClaimedOnce, num_delivered: int) -> Outcome:
        """Stage 7b. A set that the plane refuses for good is told as a failure; refused again, it is set aside."""
        try:
            await events.finish(report, ownership)
        except ClaimLost as lost:  # late, and another worker has it, or it is over: that outcome counts
            metrics.OUTCOMES_DROPPED.inc()
            return acknowledge.after_claim(lost.claim, num_delivered, max_not_found=self.settings.max_not_found)
        except ServerRefused as refused:
            metrics.EVENT_EMIT_FAILED.inc()
            try:
                await events.finish(results.refused_report(report, refused), ownership)
            except ControlPlaneError as again:
                metrics.EVENT_EMIT_FAILED.inc()
                return acknowledge.poison(f"the control plane refuses the outcome: {again}")
        self.in_flight.finish(events.command.command_id)
        return acknowledge.reported()

    def _events(self, claim: Claimed, notification: Envelope, plane: Plane) -> CommandEvents:
        command = bare_command(claim.body, notification, plane)
        form = event_form(plane.dialect, self.identity.name_for(plane.dialect))
        hold_s = self.settings.started_hold_ms / 1000
        return CommandEvents(command, plane, form, self.emitter, hold_s=hold_s, outside=self.slots.waiting)

    def _ownership(self, notification: Envelope, plane: Plane, delivery: Delivery) -> ClaimedOnce:
        name = self.identity.name_for(plane.dialect)
        is_expired = partial(self.keepalive.is_expired, delivery.reply)
        lease_s = self.settings.claim_lease_s
        return ClaimedOnce(plane, notification.event_id, name, is_expired=is_expired, lease_s=lease_s)

    def _dispatch(self, command: Command, plane: Plane) -> Dispatch:
        name = self.identity.name_for(plane.dialect)
        ours = self.settings
        limits = Limits(
            ours.command_timeout_s, ours.command_timeout_max_s, ours.cancellation_poll_s, ours.undefined == "error"
        )
        return Dispatch(self.registry, command, plane, worker_id=name, limits=limits, slots=self.slots)

    def _rules(self, dispatch: Dispatch | None) -> FitRules:
        secrets = dispatch.secrets if dispatch is not None else ()
        return FitRules(max_bytes=self.settings.result_max_bytes, secrets=secrets)
