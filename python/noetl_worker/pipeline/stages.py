"""The stage of one delivery, and what happens to each stage when the worker stops.

| stage: what the worker does in it | when the worker's grace period is over |
|---|---|
| receiving: read the message | the message is returned, and its command is not claimed |
| claiming: ask the plane for the command | the plane has CLAIM_S to answer; a claimed command is returned |
| preparing: get what the tool needs | the task is cancelled at once, and the command is returned |
| waiting: wait until the tool may start | the task is cancelled at once, and the command is returned |
| running: run the tool | `scope.py` interrupts the tool, and the command is returned |
| deciding: apply the step's cases to the result | nothing, because this stage is short |
| reporting: tell the plane the outcome | the worker has REPORT_S for a last try; then the outcome stays in the outbox |
| answering: ack or nak the message | nothing, because this stage is short |

A report to the Rust plane may take longer than REPORT_S, because the plane may issue the next commands before it
answers. Such a report is cancelled only at the end of the shutdown (`StopLevel.HARD`).

A command that no worker could claim again is reported as failed, not returned (`handover.return_claimed`).

Only this module cancels a command's task. `executor.py` and `claimed_command.py` catch the cancellation (`absorb`).
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from noetl_worker.models import stopping
from noetl_worker.models.command import Command
from noetl_worker.models.disposition import Disposition
from noetl_worker.models.notification import Envelope
from noetl_worker.remote.jetstream.delivery import Delivery

_LOOK_AGAIN_S = 0.5


class Stage(enum.Enum):
    RECEIVING = enum.auto()
    CLAIMING = enum.auto()
    PREPARING = enum.auto()
    WAITING = enum.auto()
    RUNNING = enum.auto()
    DECIDING = enum.auto()
    REPORTING = enum.auto()
    ANSWERING = enum.auto()


class StageListener(Protocol):
    """Interface of an object that is called at the beginning of each stage of a delivery. A recorded trace implements
    it."""

    def enter(self, stage: Stage) -> None: ...


@dataclass(slots=True, eq=False)
class Progress:
    """State of one delivery: its stage, command, times and answer. The worker, the log and traces read this state."""

    delivery: Delivery | None = None
    """The delivery, or None for a command that came in no message (authoring/local_run.py)."""
    stage: Stage = Stage.RECEIVING
    is_stopping: bool = False
    is_cancelled: bool = False
    """True from `cancel` until `absorb`: the task was cancelled, and the cancellation is not handled yet."""
    task: asyncio.Task[Any] | None = None
    """The asyncio task that runs the stages of the delivery."""
    notification: Envelope | None = None
    command: Command | None = None
    """The claimed command. Until it is prepared, it has no config, input, variables or cases."""
    claimed_at: float = 0.0
    """Monotonic time at which the command was claimed."""
    tool_at: float = 0.0
    """Monotonic time of the tool's start; 0 if the tool did not run."""
    tool_s: float = 0.0
    failure: str | None = None
    """Kind of the error that the tool returned or the command raised, such as `timeout`. None without such an error.
    A command with such an error may still be reported as done."""
    has_line: bool = False
    """True if the command's failure was logged. The line `command_finished` is then not logged."""
    listener: StageListener | None = None
    """Object that is told each new stage: the recorded trace of the delivery. None if no trace is recorded."""
    disposition: Disposition | None = None
    """The answer to JetStream. None if there is none yet, or if another delivery of the message is answered instead."""
    _interrupt: Callable[[], None] | None = field(default=None, init=False)
    _is_issuing: Callable[[], bool] | None = field(default=None, init=False)

    def log_ids(self) -> dict[str, object]:
        """Return the log fields that identify the delivery's command, as far as known: its ids, step and tool kind.
        Operators search the log for these ids."""
        known = self.command or self.notification
        return known.log_ids() if known is not None else {}

    def spent(self) -> dict[str, object]:
        """Return log fields: the command's attempt and deliveries, and its seconds in the queue, in the claim, in
        preparing and in the tool, as far as known."""
        delivery, command = self.delivery, self.command
        if delivery is None or command is None:
            return {}
        found: dict[str, object] = {
            "attempt": command.attempt,
            "deliveries": delivery.num_delivered,
            "queued_s": round(delivery.received_at - delivery.stored_at, 3),
            "claim_s": round(self.claimed_at - delivery.received_at, 3),
        }
        if self.tool_at:
            found["prepare_s"] = round(self.tool_at - self.claimed_at, 3)
            found["tool_s"] = round(self.tool_s, 3)
        return found

    def enter(
        self,
        stage: Stage,
        *,
        interrupt: Callable[[], None] | None = None,
        is_issuing: Callable[[], bool] | None = None,
    ) -> None:
        """Set the stage of the delivery. If `stop` was called before, end the new stage early: cancel its task or
        interrupt its tool, at once or after a time limit. A short stage ends by itself.

        Args:
            interrupt: stops the tool that runs in this stage.
            is_issuing: returns True while the Rust plane processes the request with the command's last event. In this
                request the plane issues the next commands, so the request should not be cancelled.
        """
        self.stage, self._interrupt, self._is_issuing = stage, interrupt, is_issuing
        if self.is_stopping:
            self._act()
        if self.listener is not None:
            self.listener.enter(stage)

    def stop(self) -> None:
        """Note that the stopping worker's grace period is over. End the present stage and each later stage early:
        cancel its task or interrupt its tool, at once or after a time limit. A short stage ends by itself."""
        if not self.is_stopping:
            self.is_stopping = True
            self._act()

    def cancel(self) -> None:
        """Cancel the delivery's task, unless it is answering JetStream: a half-sent answer would cause a redelivery."""
        if self.task is not None and self.stage is not Stage.ANSWERING:
            self.is_cancelled = True
            self.task.cancel()

    def absorb(self, stop: BaseException) -> None:
        """Clear a cancellation that `cancel` requested, so that the task goes on. Raise any other cancellation again.

        Args:
            stop: the exception that ended the stage. An exception that is no cancellation is ignored.
        """
        if isinstance(stop, asyncio.CancelledError):
            if not self.is_cancelled:
                raise stop
            self.is_cancelled = False
            uncancel = getattr(self.task, "uncancel", None)  # since Python 3.11
            if uncancel is not None:
                uncancel()

    def _act(self) -> None:
        stage = self.stage
        if stage is Stage.PREPARING or stage is Stage.WAITING:
            self.cancel()
        elif stage is Stage.RUNNING and self._interrupt is not None:
            self._interrupt()
        elif stage is Stage.CLAIMING:
            asyncio.get_running_loop().call_later(stopping.CLAIM_S, self._cancel_if_still_in, stage)
        elif stage is Stage.REPORTING:
            asyncio.get_running_loop().call_later(stopping.REPORT_S, self._cancel_if_still_in, stage)

    def _cancel_if_still_in(self, stage: Stage) -> None:
        if self.stage is not stage:
            return
        # A cut request would lose the commands that the plane is issuing in it (protocol/events.md#rust-plane).
        if self._is_issuing is not None and self._is_issuing():
            asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._cancel_if_still_in, stage)
        else:
            self.cancel()
