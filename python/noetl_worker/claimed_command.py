"""A command that is ours, from its claim to its told outcome: stages 4 to 7 of `execution.py`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from noetl_worker import acknowledge, case_actions, handover, results
from noetl_worker.command import bare_command, hydrate
from noetl_worker.control_plane.client import Plane
from noetl_worker.control_plane.dialects import event_form
from noetl_worker.dispatch import Dispatch, Limits, failure_of
from noetl_worker.emitter import Emitter
from noetl_worker.errors import ClaimLost, ServerRefused
from noetl_worker.events import CommandEvents
from noetl_worker.handover import ClaimedOnce
from noetl_worker.identity import Identity
from noetl_worker.in_flight import InFlight
from noetl_worker.jetstream.delivery import Delivery
from noetl_worker.keepalive import Keepalive
from noetl_worker.models import Claimed, Command, Dialect, Envelope, FitRules, Outcome, Report
from noetl_worker.observability import metrics
from noetl_worker.settings import Settings
from noetl_worker.slots import Slots
from noetl_worker.tools.registry import Registry

__all__ = ["ClaimedCommand", "Workplace"]


@dataclass(frozen=True, slots=True)
class Workplace:
    """What the commands of one worker share."""

    settings: Settings
    identity: Identity
    registry: Registry
    in_flight: InFlight
    keepalive: Keepalive
    emitter: Emitter
    slots: Slots


class ClaimedCommand:
    """One command of ours. Either `run` or `give_back` is called, once."""

    def __init__(
        self, claim: Claimed, notification: Envelope, plane: Plane, delivery: Delivery, workplace: Workplace
    ) -> None:
        ours, self._plane, self._workplace = workplace.settings, plane, workplace
        self._claim, self._notification, self._num_delivered = claim, notification, delivery.num_delivered
        self._worker_id = workplace.identity.name_for(plane.dialect)
        self._ownership = ClaimedOnce(
            plane,
            notification.event_id,
            self._worker_id,
            is_expired=partial(self._may_be_anothers, delivery),
            lease_s=ours.claim_lease_s,
        )
        self._events = CommandEvents(
            bare_command(claim.body, notification, plane),
            plane,
            event_form(plane.dialect, self._worker_id),
            workplace.emitter,
            hold_s=ours.started_hold_ms / 1000,
            outside=workplace.slots.waiting,
        )

    def _may_be_anothers(self, delivery: Delivery) -> bool:
        """Whether the claim has to be asked again before the outcome is told.

        Rust plane: the same WORKER_ID is let in at any time, so on a second delivery the outcome of a process before
        us may be on its way from an outbox (seen: two ends).
        """
        is_again = self._plane.dialect is Dialect.RUST and self._num_delivered > 1
        return is_again or self._workplace.keepalive.is_expired(delivery.reply)

    async def run(self) -> Outcome:
        """Run the tool, match the cases, tell the plane."""
        telling: asyncio.Future[Outcome] | None = None
        try:
            report = await self._perform()
            telling = asyncio.ensure_future(self._tell(report))
            return await asyncio.shield(telling)
        except asyncio.CancelledError:  # the drain is over: interrupted is not failed, and told is told
            if telling is not None:
                return await handover.finish_telling(telling, self._plane, self._ownership)
            return await self.give_back()
        finally:
            self._events.abandon()

    async def give_back(self) -> Outcome:
        """The worker stops before the command is done."""
        return await handover.give_back(self._events, self._workplace.identity, self._ownership)

    async def _perform(self) -> Report:
        """Stages 4 to 7a. Whatever goes wrong becomes the report of a failure."""
        command, dispatch = self._events.command, None
        try:
            command = await hydrate(self._claim.body, self._notification, self._plane)
            dispatch = self._dispatch(command)
            async with self._workplace.slots.kind(command.kind):
                ready = await dispatch.prepare()
                self._events.start()
                result = await dispatch.run(ready)
            decision = case_actions.decide(command, result, self._worker_id)
            await case_actions.act(decision, command, self._plane)
            return await results.report(command, result, decision, self._rules(dispatch))
        except Exception as error:  # the task guard: any failure after a claim is told, never swallowed
            self._events.start()
            return await results.report_failure(command, failure_of(error), self._rules(dispatch))

    async def _tell(self, report: Report) -> Outcome:
        """Stage 7b. A set that the plane refuses for good is told as a failure; refused again, it is set aside."""
        try:
            await self._finish(report)
        except ClaimLost as lost:  # late, and another worker has it, or it is over: that outcome counts
            metrics.OUTCOMES_DROPPED.inc()
            most = self._workplace.settings.max_not_found
            return acknowledge.after_claim(lost.claim, self._num_delivered, max_not_found=most)
        except ServerRefused as again:
            metrics.EVENT_EMIT_FAILED.inc()
            return acknowledge.poison(f"the control plane refuses the outcome: {again}")
        self._workplace.in_flight.finish(self._events.command.command_id)
        return acknowledge.reported()

    async def _finish(self, report: Report) -> None:
        try:
            await self._events.finish(report, self._ownership)
        except ServerRefused as refused:
            metrics.EVENT_EMIT_FAILED.inc()
            await self._events.finish(results.refused_report(report, refused), self._ownership)

    def _dispatch(self, command: Command) -> Dispatch:
        at, ours = self._workplace, self._workplace.settings
        limits = Limits(
            ours.command_timeout_s, ours.command_timeout_max_s, ours.cancellation_poll_s, ours.undefined == "error"
        )
        return Dispatch(at.registry, command, self._plane, worker_id=self._worker_id, limits=limits, slots=at.slots)

    def _rules(self, dispatch: Dispatch | None) -> FitRules:
        secrets = dispatch.secrets if dispatch is not None else ()
        return FitRules(max_bytes=self._workplace.settings.result_max_bytes, secrets=secrets)
