"""Where one delivery is on its way, and what the stop of the worker does to it there.

| phase | when the grace is over |
|---|---|
| received, settling | nothing: it ends by itself |
| claiming | its answer is waited for, CLAIM_S; a command that is ours is returned |
| preparing, waiting | cut at once, and returned: nothing has happened yet |
| running | the tool is interrupted (scope.py), and the command returned |
| deciding | nothing: it ends by itself |
| reporting | one more try, REPORT_S; then the outbox has it; an end that issues commands has until the hard stop |

A command's task is cancelled here and nowhere else, and `executor.py` is where that ends.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from noetl_worker.models import stopping
from noetl_worker.models.command import Command
from noetl_worker.models.notification import Envelope
from noetl_worker.models.settlement import Outcome
from noetl_worker.remote.jetstream.delivery import Delivery

_LOOK_AGAIN_S = 0.5


class Phase(enum.Enum):
    RECEIVED = enum.auto()
    CLAIMING = enum.auto()
    PREPARING = enum.auto()
    WAITING = enum.auto()
    RUNNING = enum.auto()
    DECIDING = enum.auto()
    REPORTING = enum.auto()
    SETTLING = enum.auto()


class Stages(Protocol):
    """What is shown of the phases while they pass: the spans of a trace."""

    def enter(self, phase: Phase) -> None: ...


@dataclass(slots=True, eq=False)
class Progress:
    """One delivery's phase."""

    delivery: Delivery | None = None
    """None: a command that came in no message."""
    phase: Phase = Phase.RECEIVED
    is_stopping: bool = False
    is_cut: bool = False
    """Whether its task was cancelled: what it awaited is given up."""
    task: asyncio.Task[Any] | None = None
    """The only one that works on the delivery."""
    notification: Envelope | None = None
    command: Command | None = None
    """Once it is claimed; until its context is read, without that."""
    claimed_at: float = 0.0
    """Monotonic, as `tool_at`, when its tool began; 0: it did not run. Written for the log alone."""
    tool_at: float = 0.0
    tool_s: float = 0.0
    failure: str | None = None
    """The kind of what it failed with."""
    has_line: bool = False
    """Whether the log has the line of its failure."""
    stages: Stages | None = None
    """Of a delivery whose trace is recorded."""
    outcome: Outcome | None = None
    """What JetStream is answered with; None as well when another delivery of the message answers."""
    _interrupt: Callable[[], None] | None = field(default=None, init=False)
    _is_issuing: Callable[[], bool] | None = field(default=None, init=False)

    def who(self) -> dict[str, object]:
        """The ids that an operator searches the log for, as far as they are known."""
        known = self.command or self.notification
        return known.who() if known is not None else {}

    def spent(self) -> dict[str, object]:
        """How often its command was tried, and where its time went so far, in seconds."""
        delivery, command, now = self.delivery, self.command, time.monotonic()
        if delivery is None or command is None:
            return {}
        waited_s = now - delivery.received_at
        found: dict[str, object] = {
            "attempt": command.attempt,
            "deliveries": delivery.num_delivered,
            "queued_s": round(max(0.0, delivery.age_s() - waited_s), 3),
            "claim_s": round(self.claimed_at - delivery.received_at, 3),
        }
        if self.tool_at:
            found["prepare_s"] = round(self.tool_at - self.claimed_at, 3)
            found["tool_s"] = round(self.tool_s, 3)
        return found

    def enter(
        self,
        phase: Phase,
        *,
        interrupt: Callable[[], None] | None = None,
        is_issuing: Callable[[], bool] | None = None,
    ) -> None:
        """Begin a phase.

        Args:
            interrupt: stops the tool that runs in it.
            is_issuing: whether its end is with a plane that issues the next commands meanwhile.
        """
        self.phase, self._interrupt, self._is_issuing = phase, interrupt, is_issuing
        if self.is_stopping:
            self._act()
        if self.stages is not None:
            self.stages.enter(phase)

    def stop(self) -> None:
        """The grace is over."""
        if not self.is_stopping:
            self.is_stopping = True
            self._act()

    def cut(self) -> None:
        """Cancel what is awaited, unless the answer to JetStream is on its way: half of one would come again."""
        if self.task is not None and self.phase is not Phase.SETTLING:
            self.is_cut = True
            self.task.cancel()

    def absorb(self, stop: BaseException) -> None:
        """The cancellation of `cut` has arrived, and ends here; any other goes on."""
        if isinstance(stop, asyncio.CancelledError):
            if not self.is_cut:
                raise stop
            self.is_cut = False
            uncancel = getattr(self.task, "uncancel", None)  # since Python 3.11
            if uncancel is not None:
                uncancel()

    def _act(self) -> None:
        phase = self.phase
        if phase is Phase.PREPARING or phase is Phase.WAITING:
            self.cut()
        elif phase is Phase.RUNNING and self._interrupt is not None:
            self._interrupt()
        elif phase is Phase.CLAIMING:
            asyncio.get_running_loop().call_later(stopping.CLAIM_S, self._cut_if_still, phase)
        elif phase is Phase.REPORTING:
            asyncio.get_running_loop().call_later(stopping.REPORT_S, self._cut_if_still, phase)

    def _cut_if_still(self, phase: Phase) -> None:
        if self.phase is not phase:
            return
        # What the plane does in that request would be lost (protocol/events.md#rust-plane).
        if self._is_issuing is not None and self._is_issuing():
            asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._cut_if_still, phase)
        else:
            self.cut()
