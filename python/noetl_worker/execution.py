"""ONE command, from bytes to outcome: start reading here.

    bytes -(1) delivery -(2) envelope -(3) claim -(4) command -(5) tool -(6) cases -(7) events -(8) acknowledge

Each stage is a verb below, or in `ClaimedCommand`, and a room of its own. Nothing is acknowledged before the plane has
accepted the terminal events; whatever fails after the claim ends in exactly one terminal set.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from noetl_worker import acknowledge, envelope, handover
from noetl_worker.claim import claim_command
from noetl_worker.claimed_command import ClaimedCommand, Workplace
from noetl_worker.control_plane.client import ControlPlaneClient, Plane
from noetl_worker.errors import AuthRefused, ControlPlaneError, NotificationError
from noetl_worker.in_flight import Seen
from noetl_worker.jetstream.delivery import Delivery
from noetl_worker.models import AuthRefusedClaim, Claimed, ClaimOutcome, Envelope, Outcome, RetryLater
from noetl_worker.observability import metrics

__all__ = ["Execution"]


@dataclass(frozen=True, slots=True)
class Execution:
    """What a notification needs on its way. One for the whole worker; `run` is called concurrently."""

    client: ControlPlaneClient
    workplace: Workplace

    async def run(self, delivery: Delivery) -> Outcome | None:
        """Take one delivery to its outcome; None when another delivery of the same message will answer."""
        in_flight = self.workplace.in_flight
        try:
            notification = envelope.decode_notification(delivery.data)
        except NotificationError as error:
            return acknowledge.poison(f"not a notification: {error}")
        seen = in_flight.look(notification.command_id, delivery.stream_sequence)
        if seen is not Seen.NEW:
            return acknowledge.duplicate(seen, delivery.num_delivered)
        with in_flight.entered(notification.command_id, delivery.stream_sequence):
            return acknowledge.named(await self._claim_and_run(notification, delivery), notification)

    async def _claim_and_run(self, notification: Envelope, delivery: Delivery) -> Outcome:
        claiming = asyncio.ensure_future(self._claim(notification))
        try:
            plane, claim = await asyncio.shield(claiming)
        except asyncio.CancelledError:  # the drain is over, and the plane may have given us the command
            plane, claim = await handover.finish_claim(claiming)
            if isinstance(claim, Claimed) and plane is not None:
                return await ClaimedCommand(claim, notification, plane, delivery, self.workplace).give_back()
            return acknowledge.given_back()
        metrics.claim_ended(claim, delivery.received_at)
        wait_s = plane.retry_pace.after(claim, delivery.num_delivered) if plane is not None else 0.0
        if plane is None or not isinstance(claim, Claimed):
            return acknowledge.after_claim(
                claim,
                delivery.num_delivered,
                max_not_found=self.workplace.settings.max_not_found,
                message_age_s=delivery.age_s(),
                at_least_s=wait_s,
            )
        return await ClaimedCommand(claim, notification, plane, delivery, self.workplace).run()

    async def _claim(self, notification: Envelope) -> tuple[Plane | None, ClaimOutcome]:
        try:
            plane = await self.client.plane(notification.server_url)
        except AuthRefused as error:
            return None, AuthRefusedClaim(str(error))
        except ControlPlaneError as error:
            return None, RetryLater(str(error))
        worker_id = self.workplace.identity.name_for(plane.dialect)
        return plane, await claim_command(plane, notification.event_id, worker_id)
