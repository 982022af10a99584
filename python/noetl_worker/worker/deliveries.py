"""The message deliveries that a worker handles at the same time. One task handles each delivery, from the arrival of
the message to its ack, nak or term."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

import structlog

from noetl_worker.errors import describe
from noetl_worker.models.disposition import Disposition, DispositionKind
from noetl_worker.models.slots import Slots
from noetl_worker.models.stopping import REPORT_S, TOOL_S, StopLevel
from noetl_worker.observability import metrics
from noetl_worker.observability.command_lines import CommandLines
from noetl_worker.pipeline.delivery import acknowledge
from noetl_worker.pipeline.delivery.keepalive import Keepalive
from noetl_worker.pipeline.executor import Executor
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.pipeline.stages import Progress, Stage
from noetl_worker.process import event_loop
from noetl_worker.remote.jetstream.delivery import Delivery
from noetl_worker.remote.jetstream.puller import Puller
from noetl_worker.worker.readings import PULSE_S
from noetl_worker.worker.recovery.recent_batches import RecentBatches

Settle: TypeAlias = Callable[[Delivery, Disposition, Callable[[], dict[str, object]]], Awaitable[str | None]]
CANCEL_TIMEOUT_S: Final = TOOL_S + REPORT_S
"""Longest time in seconds for ending the commands that still run after the grace period. Their tools end within TOOL_S,
and their outcomes are reported within REPORT_S."""
_FAILED_ADVICE: Final = "report this error with the text of `exception`: it is a bug of the worker. The message returns"
_CANCEL_ADVICE: Final = "give drains more time: NOETL_WORKER_DRAIN_TIMEOUT_S, terminationGracePeriodSeconds"
log = structlog.get_logger("noetl_worker")


class Deliveries:
    def __init__(
        self, slots: Slots, drain_timeout_s: float, emitter: Emitter, batches: RecentBatches, lines: CommandLines
    ) -> None:
        """Create an empty set of message deliveries.

        Args:
            drain_timeout_s: seconds for which a drain lets commands run.
            emitter: reports outcomes to the plane. A drain does not cut off an unanswered report, because the plane may
                be issuing the next commands before it answers. `emitter.issuing` lists these reports.
            batches: the event batches whose processing by the plane a drain waits for.
            lines: decides which log lines are written for a command.
        """
        self._slots, self._drain_timeout_s, self._emitter, self._batches = slots, drain_timeout_s, emitter, batches
        self._stopping = emitter.stopping
        self.tasks: Final[dict[asyncio.Task[None], Progress]] = {}
        self.settled: Final[Counter[str]] = Counter()
        """Number of deliveries that the worker settled in each way. The keys are texts of disposition.WORDS, such as
        `ack:reported`."""
        self.lines: Final = lines

    async def pull_until_stopped(
        self, puller: Puller, watch: Coroutine[Any, Any, None], keepalive: Keepalive, *, on_drain: Callable[[], None]
    ) -> bool:
        """Pull messages until the worker is asked to stop, or until the puller or the coroutine `watch` ends. Then
        drain. Return True if the drain interrupted a command.

        Raises:
            Exception: the error that ended the puller or `watch`; it is raised after the drain.
        """
        pulling, watching = asyncio.ensure_future(puller.run()), asyncio.ensure_future(watch)
        stopped = asyncio.ensure_future(self._stopping.reached(StopLevel.DRAIN))
        try:
            await asyncio.wait({pulling, watching, stopped}, return_when=asyncio.FIRST_COMPLETED)
            broken = next((task.exception() for task in (pulling, watching) if task.done()), None)
            on_drain()
            self._stopping.reach(StopLevel.DRAIN)
            was_cut_off = await self.drain(puller, keepalive)
            if broken is not None:
                raise broken
            return was_cut_off
        finally:
            self._stopping.reach(StopLevel.DRAIN)  # after a cancellation too: messages that still arrive are returned
            await event_loop.end(pulling, watching, stopped)
            await asyncio.gather(pulling, watching, stopped, return_exceptions=True)

    async def drain(self, puller: Puller, keepalive: Keepalive) -> bool:
        """Let commands finish within the drain time, then interrupt the other commands and return their messages.
        Return True if a command was interrupted.

        A request that reports an outcome may last longer than the drain time if the plane issues the next commands
        inside the request. A second stop signal cuts such a request off. If all commands finish, the drain also waits
        within the drain time for event batches that a plane has accepted and not processed.
        """
        puller.pause(True)  # the subscription stays, so that messages of an open pull are returned at once
        log.info("draining", in_flight=len(self.tasks), timeout_s=self._drain_timeout_s)
        deadline = time.monotonic() + self._drain_timeout_s
        while (left_s := deadline - time.monotonic()) > 0 and (running := self.running()):
            await self._stopping.sleep(left_s, *running)
            if self._stopping.is_grace_over:
                break
        tasks, issuing = self.running(), self._issuing()
        if tasks:
            log.warning(
                "commands_cancelled", in_flight=len(tasks), waiting_for_plane=len(issuing), advice=_CANCEL_ADVICE
            )
            self._stopping.reach(StopLevel.GRACE_OVER)
            for progress in list(self.tasks.values()):
                progress.stop()
            await self._wait_for_commands(CANCEL_TIMEOUT_S, or_issuing=True)
        else:
            await self._batches.drain(self._stopping, deadline)
        while self._issuing() and not self._stopping.is_hard and keepalive.is_alive():
            await self._stopping.sleep(PULSE_S, until=StopLevel.HARD)
        is_cut_off = self._stopping.is_hard or bool(self._issuing())
        self._stopping.reach(StopLevel.HARD)
        for progress in list(self.tasks.values()):
            progress.cancel()
        await self._wait_for_commands(CANCEL_TIMEOUT_S)
        return bool(tasks) and (is_cut_off or len(tasks) > sum(issuing))

    async def _wait_for_commands(self, most_s: float, *, or_issuing: bool = False) -> None:
        """Wait until no command runs, but at most `most_s` seconds. With `or_issuing`, return also if each running
        command only waits for the plane's answer to its report. The plane may issue the next commands before it answers
        a report, so such a command must not be cut off."""
        deadline = time.monotonic() + most_s
        while (left_s := deadline - time.monotonic()) > 0 and (running := self.running()):
            if or_issuing and len(running) <= sum(self._issuing()):
                return
            await asyncio.wait(running, timeout=min(left_s, PULSE_S), return_when=asyncio.FIRST_COMPLETED)

    def _issuing(self) -> list[bool]:
        """Return one boolean for each report that the plane has not answered. A drain must not cut these reports off,
        because the plane may be issuing the next commands. True: a delivery's task waits for the answer. False: the
        report is for an outcome that was left on disk or is sent again."""
        return list(self._emitter.issuing.values())

    def running(self) -> set[asyncio.Task[None]]:
        return {task for task in self.tasks if not task.done()}

    # ── one delivery ──

    def deliver(self, delivery: Delivery, executor: Executor, settle: Settle) -> None:
        """Start a task that runs the command of a message, or that returns the message if the worker stops or has no
        free slot."""
        progress, is_draining = Progress(delivery), self._stopping.level >= StopLevel.DRAIN
        if is_draining or self._slots.free() <= 0:
            disposition = acknowledge.returned() if is_draining else acknowledge.no_free_slot()
            progress.enter(Stage.ANSWERING)
            work = self._answer(settle, delivery, disposition, progress)
        else:
            executor.services.keepalive.track(delivery.reply, delivery.received_at)
            work = self._handle(delivery, executor, settle, progress)
        progress.task = task = asyncio.get_running_loop().create_task(work)
        self.tasks[task] = progress
        self._slots.take()
        task.add_done_callback(self._done)

    async def _handle(self, delivery: Delivery, executor: Executor, settle: Settle, progress: Progress) -> None:
        try:
            disposition = await executor.run(delivery, progress)
        except Exception as error:  # a bug: the delivery is answered all the same
            sequence = delivery.stream_sequence
            log.exception("delivery_failed", stream_sequence=sequence, **progress.log_ids(), advice=_FAILED_ADVICE)
            disposition = acknowledge.internal_error(delivery.tries, describe(error))
        progress.disposition = disposition
        progress.enter(Stage.ANSWERING)
        try:
            if disposition is None:
                metrics.DUPLICATES.inc()
                if self.lines.is_debug:
                    ids = progress.log_ids()
                    sequence = delivery.stream_sequence
                    log.debug(
                        "message_answered", disposition="answered_by_other_delivery", stream_sequence=sequence, **ids
                    )
                return
            await self._answer(settle, delivery, disposition, progress)
        finally:
            executor.services.keepalive.untrack(delivery.reply)

    async def _answer(self, settle: Settle, delivery: Delivery, disposition: Disposition, progress: Progress) -> None:
        metrics.ENDED[disposition.kind].value += 1
        has_lines = self.lines.is_on
        reported_at = time.monotonic() if has_lines else 0.0
        ended = await settle(delivery, disposition, progress.log_ids)
        if ended is not None:
            self.settled[ended] += 1
        if has_lines:  # after the answer, so that a blocked log delays no message
            self._log(delivery, disposition, progress, reported_at)

    def _log(self, delivery: Delivery, disposition: Disposition, progress: Progress, reported_at: float) -> None:
        is_finished = disposition.kind is DispositionKind.REPORTED and not progress.has_line
        share = self.lines.share(progress.tool_at + progress.tool_s) if is_finished else 0.0
        if share:
            _log_finished(progress, share, reported_at)
        elif self.lines.is_debug:
            _log_answer(delivery, disposition, progress)

    def _done(self, task: asyncio.Task[None]) -> None:
        progress = self.tasks[task]
        del self.tasks[task]
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            ids = progress.log_ids()
            log.error("delivery_failed", error=describe(error), exc_info=error, **ids, advice=_FAILED_ADVICE)


def _log_finished(progress: Progress, share: float, reported_at: float) -> None:
    """Log a command whose outcome the plane has accepted. `share` is the fraction of commands that get such a log line
    at present. `reported_at` is the monotonic time just after the report."""
    spent, failure = progress.spent(), progress.failure
    report_s = round(reported_at - (progress.tool_at or progress.claimed_at) - progress.tool_s, 3)
    handled = {"failure": failure} if failure is not None else {}  # a failure that a case of the step handled
    log.info("command_finished", share=share, **progress.log_ids(), **spent, report_s=report_s, **handled)


def _log_answer(delivery: Delivery, disposition: Disposition, progress: Progress) -> None:
    log.debug(
        "message_answered",
        disposition=disposition.kind.value,
        answer=disposition.answer.value,
        delay_s=round(disposition.delay_s, 2),
        cause=disposition.text,
        stream_sequence=delivery.stream_sequence,
        deliveries=delivery.num_delivered,
        **progress.log_ids(),
    )
