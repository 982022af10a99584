"""The stages of a claimed command, from preparing the command to reporting its outcome."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final

import structlog

from noetl_worker.errors import ClaimLost, ControlPlaneError, Interrupted, ResourceShortage, ServerRefused, ToolError
from noetl_worker.models.claim import Claimed
from noetl_worker.models.command import Command
from noetl_worker.models.disposition import Disposition
from noetl_worker.models.fit import FitRules, SecretTexts
from noetl_worker.models.notification import Envelope
from noetl_worker.models.report import Report
from noetl_worker.models.slots import Slots
from noetl_worker.models.tool_result import ToolResult, ToolStatus
from noetl_worker.observability import metrics
from noetl_worker.observability.logging import SafeLogger
from noetl_worker.observability.step_log import Warned
from noetl_worker.pipeline.command import case_actions, handover
from noetl_worker.pipeline.command.command import bare_command, hydrate
from noetl_worker.pipeline.command.dispatch import CallLimits, Dispatch
from noetl_worker.pipeline.command.failure import make_failure
from noetl_worker.pipeline.command.handover import ClaimOwnership
from noetl_worker.pipeline.delivery import acknowledge
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.pipeline.delivery.keepalive import InProgress
from noetl_worker.pipeline.report import results
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.pipeline.stages import Progress, Stage
from noetl_worker.remote.jetstream.delivery import Delivery
from noetl_worker.remote.jetstream.start_notes import Start, StartNotes
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.gate import Gate
from noetl_worker.remote.plane.identity import Identity
from noetl_worker.settings.settings import Settings
from noetl_worker.text.secrets import redaction
from noetl_worker.tools.process.shortage import raise_shortage
from noetl_worker.tools.registry import Registry

CANCELLATION_POLL_S: Final = 5.0
"""Seconds between two requests that ask the plane whether an execution was cancelled. With 5 s, a thousand running
commands cost the plane and its Postgres a twentieth of a core (docs/scale.md)."""
_MOST_CHARS: Final = 500
_RAISED_ADVICE: Final = "report this error with the text of `exception`: it may be a bug of the worker or of a tool"
_FAILED_ADVICE: Final = "look at `error`: correct the playbook, its data, or a service that the step uses"
log = structlog.get_logger("noetl_worker")


@dataclass(frozen=True)
class WorkerServices:
    settings: Settings
    identity: Identity
    registry: Registry
    in_flight: InFlight
    keepalive: InProgress
    emitter: Emitter
    slots: Slots
    warned: Warned = field(default_factory=Warned)
    machine: Gate = field(default_factory=partial(Gate, 1))
    """Limit on the number of commands that this worker runs at one time. A shortage of memory, processes or descriptors
    on this machine lowers the limit. The default limit, 1, is for a program that runs single commands."""
    starts: StartNotes | None = None
    """Counter of a command's starts over all its deliveries, to find a command that crashes its workers. None if starts
    are not counted."""
    cancellation_poll_s: float = CANCELLATION_POLL_S
    """Seconds between two requests that ask the plane whether an execution was cancelled. If 0, the plane is never
    asked."""

    @cached_property
    def limits(self) -> CallLimits:
        return CallLimits(
            default_s=self.settings.command_timeout_s,
            cancellation_poll_s=self.cancellation_poll_s,
            undefined_is_error=self.settings.undefined == "error",
        )


@dataclass(eq=False, repr=False)
class ClaimedCommand:
    """A command that this worker has claimed. Call `run` once: it runs the tool and reports the command's outcome."""

    claim: Claimed
    notification: Envelope
    plane: Plane
    delivery: Delivery
    services: WorkerServices
    progress: Progress
    worker_id: str
    """Worker id with which this worker has claimed the command."""
    claimed_at: float
    """Monotonic time of the claim."""

    def __post_init__(self) -> None:
        plane, services, settings = self.plane, self.services, self.services.settings
        self.progress.command = command = bare_command(self.claim.body, self.notification, plane)
        self._ownership = ClaimOwnership(
            plane,
            self.notification.event_id,
            self.worker_id,
            log_ids=command.log_ids,
            claimed_at=self.claimed_at,
            is_expired=partial(_may_belong_to_another, plane, self.delivery, services.keepalive),
            lease_s=settings.claim_lease_s,
        )
        self._events = CommandEvents(
            command,
            plane,
            self.worker_id,
            services.emitter,
            hold_s=settings.started_hold_ms / 1000,
            free_slot=services.slots.waiting,
            warned=services.warned,
        )
        self._is_copy = plane.rules.copies_have_text_ids and type(self.notification.command_id) is str
        """True if this message is a copy, which the Python plane publishes for a command of a dead worker. A copy has
        the command's id as text (protocol/notification.md#message)."""

    async def _possible_starts(self, noted: int) -> int:
        """Return how many of the command's recorded starts can be genuine. Other programs may have added false records,
        so the worker ignores records above the largest possible number of starts.

        That number follows from the deliveries before the present one. For a copy (`_is_copy`), `run` recorded a start
        at each of them. For any other message, it recorded a start at each of them but the first.

        The command of a copy had an earlier message, whose deliveries this worker does not know. So the worker asks the
        plane for the number of earlier claims, and takes the larger number.

        Args:
            noted: number of starts recorded in `StartNotes`.
        """
        earlier = self.delivery.num_delivered - (1 if self._is_copy else 2)
        if earlier >= noted or not self._is_copy:
            return max(0, min(earlier, noted))
        command = self._events.command
        try:
            claims = await self.plane.count_claims(command.execution_id, command.command_id, noted + 1)
        except ControlPlaneError as error:
            log.warning(
                "claims_not_counted",
                **command.log_ids(),
                error=str(error),
                advice="do nothing: the worker counts the deliveries of this message instead, to know how often the "
                "command was started before",
            )
            return earlier
        return min(noted, max(earlier, claims - 1))

    async def run(self) -> Disposition:
        """Run the tool, match the cases, and report the outcome. Return the disposition: the answer for JetStream.

        If the worker's stop ends a stage before `reporting`, return the nak that returns the command. If no worker
        could claim the command again, report a failure instead. If the stop ends `reporting` before the plane has
        accepted the outcome, return a nak in any case: the outcome is in the outbox, or the command runs again.
        """
        progress = self.progress
        try:
            try:
                if progress.is_stopping:
                    raise Interrupted
                progress.enter(Stage.PREPARING)
                starts, may_be_second = self.services.starts, self._is_copy or self.delivery.num_delivered > 1
                report = await (self._noted(starts) if starts is not None and may_be_second else self._perform())
            except (Interrupted, asyncio.CancelledError) as stop:  # an interrupted command has not failed
                progress.absorb(stop)
                progress.enter(Stage.REPORTING, is_issuing=self._events.is_issuing)
                return await handover.return_claimed(self._events, self.services.identity, self._ownership)
            progress.enter(Stage.REPORTING, is_issuing=self._events.is_issuing)
            return report if isinstance(report, Disposition) else await self._report(report)
        except (Interrupted, asyncio.CancelledError) as stop:  # the outbox has the events, if it is in use
            progress.absorb(stop)
            return acknowledge.interrupted(self.plane.dialect, self._ownership.age_s, self._ownership.lease_s)
        finally:
            self._events.abandon()

    async def _noted(self, starts: StartNotes) -> Report | Disposition:
        async with starts.noted(self._events.command, self.services.slots, self._possible_starts) as start:
            return await self._perform(start)

    async def _perform(self, start: Start | None = None) -> Report | Disposition:
        """Run all stages before reporting, such as preparing and running the tool. Return the report of the outcome.

        Turn an error into the report of a failure. If this machine lacked resources before the command had an effect,
        return the nak that returns the command instead.
        """
        command, dispatch = self._events.command, None
        try:
            if start is not None:
                start.check()
            claim, envelope = self.claim, self.notification
            command = await hydrate(claim.body, envelope, self.plane, bare=command, marks=claim.marks, size=claim.size)
            self.progress.command = command
            services = self.services
            dispatch = Dispatch(
                services.registry,
                command,
                self.plane,
                worker_id=self.worker_id,
                limits=services.limits,
                slots=start or services.slots,
                warned=services.warned,
            )
            is_limited = command.kind in services.slots.limits
            result = await (self._run_in_turn(dispatch) if is_limited else self._run_tool(dispatch))
            self.services.machine.answered(None)
            if result.error is not None:
                self.progress.failure = result.error.kind
            self.progress.enter(Stage.DECIDING)
            decision = case_actions.decide(command, result, self.worker_id, self.services.warned)
            if decision.action is not None:
                await case_actions.act(decision, command, self.plane)
            report = await results.report(command, result, decision, self._rules(dispatch))
            is_handled = decision.action is not None and report.error is None
        except Interrupted:
            raise
        except Exception as error:  # the task guard: any failure after a claim is reported, never swallowed
            if isinstance(error, ResourceShortage):
                self.services.machine.refused(self._ownership.claimed_at)
                identity = self.services.identity
                disposition = await handover.return_unstarted(self._events, identity, self.delivery, error)
                if disposition is not None:
                    return disposition
            # An unexpected error is reported by its text alone, since the plane may be another team's. The traceback
            # is in the log.
            if not isinstance(error, (ToolError, ControlPlaneError)):
                safe_log = SafeLogger(lambda: log, redaction.known_here)
                safe_log.error("command_raised", **command.log_ids(), exc_info=error, advice=_RAISED_ADVICE)
            self._events.start()
            result, is_handled = make_failure(error), False
            self.progress.failure = result.error.kind if result.error is not None else None
            report = await results.report_failure(command, result, self._rules(dispatch))
        if dispatch is not None:
            self.progress.tool_at, self.progress.tool_s = dispatch.ran_at, dispatch.ran_s
            if dispatch.ran_at:
                waited = metrics.SCHEDULE_TO_START.series[self.services.settings.pool_name, command.kind]
                waited.observe(dispatch.ran_at - self.delivery.stored_at)
        if not is_handled and (report.error is not None or result.status is not ToolStatus.SUCCESS):
            self._log_failure(command, result, report, self._rules(dispatch))
        return report

    def _log_failure(self, command: Command, result: ToolResult, report: Report, rules: FitRules) -> None:
        """Log the failure of the command in one line. The events have the complete message."""
        self.progress.has_line = True
        message = result.error.message if result.error is not None else f"it ended with {result.status.value}"
        text = " ".join((report.error or results.fit_text(message, rules)).split())
        (log.debug if self.services.settings.log_commands == "none" else log.warning)(
            "command_failed",
            **command.log_ids(),
            error=text[:_MOST_CHARS] + ("..." if len(text) > _MOST_CHARS else ""),
            advice=_FAILED_ADVICE,
            **self.progress.spent(),
        )

    async def _run_in_turn(self, dispatch: Dispatch) -> ToolResult:
        self.progress.enter(Stage.WAITING)
        async with self.services.slots.kind(dispatch.command.kind):
            self.progress.enter(Stage.PREPARING)
            return await self._run_tool(dispatch)

    async def _run_tool(self, dispatch: Dispatch) -> ToolResult:
        try:  # what `before_any_effect` (tools/process/shortage.py) does, with eight fewer Python calls a command
            prepared = await dispatch.prepare()
        except (OSError, RuntimeError, MemoryError, ToolError) as error:
            raise_shortage("to prepare the command", error)
            raise
        self.progress.enter(Stage.RUNNING, interrupt=dispatch.interrupt)
        self._events.start()
        return await dispatch.run(prepared)

    async def _report(self, report: Report) -> Disposition:
        """Report the outcome. If the plane refuses the outcome's events for good, report a failure instead. If the
        plane refuses this failure too, return the term that makes the message a dead letter."""
        try:
            try:
                await self._events.finish(report, self._ownership)
            except ServerRefused as refused:
                metrics.EVENT_EMIT_FAILED.inc()
                await self._events.finish(results.refused_report(report, refused), self._ownership)
        except ClaimLost as lost:  # another worker has the command, or the command is over
            return acknowledge.answer_to_claim(lost.claim, self.delivery.tries)
        except ServerRefused as again:
            metrics.EVENT_EMIT_FAILED.inc()
            return acknowledge.outcome_refused(str(again))
        self.services.in_flight.finish(self._events.command.command_id)
        return acknowledge.REPORTED

    def _rules(self, dispatch: Dispatch | None) -> FitRules:
        known = dispatch.credentials.known.texts() if dispatch is not None else SecretTexts()
        settings = self.services.settings
        return FitRules.for_secrets(known, max_bytes=settings.result_max_bytes, most_bytes=settings.max_result_mb << 20)


def _may_belong_to_another(plane: Plane, delivery: Delivery, keepalive: InProgress, now: float) -> bool:
    """Return True if another process may have claimed this command. The worker must then ask the plane before it
    reports the outcome.

    The Rust plane grants a second claim with the same WORKER_ID at any time. So this process may get a command at a
    second delivery while an earlier process's outcome is still in an outbox (seen: two outcomes). This is a function,
    not a method: a command that holds its own method is a reference cycle, which only the garbage collector frees.
    """
    is_again = plane.rules.accepts_same_worker and delivery.num_delivered > 1
    return is_again or keepalive.is_expired(delivery.reply, now)
