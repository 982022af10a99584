"""State of sending one event set, and the check that this worker still has the command."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from noetl_worker.remote.plane.patience import Uncertainty
from noetl_worker.remote.plane.send_status import SendStatus


class Ownership(Protocol):
    """Tells whether this worker still has a command when the command's outcome is sent."""

    def is_uncertain(self, now: float) -> bool:
        """Return whether another worker may have got the message or the claim by now.

        Args:
            now: the present monotonic time.
        """

    async def confirm(self) -> None:
        """Ask the plane which worker has the command. Raise ClaimLost if another worker has the command, or if the
        command is over."""


@dataclass(slots=True)
class Sending:
    """State of sending one event set: the tries so far, the command's slot, and the time until which this worker surely
    has the command."""

    known_until: float
    """Monotonic time until which this worker surely has the command."""
    free_slot: Callable[[], AbstractContextManager[None]] | None = None
    """Function that returns a context manager (Slots.waiting), which gives up the command's slot while it is open. None
    for an outcome from a dead process, whose command has no slot here."""
    slot_freed: AbstractContextManager[None] | None = None
    """Context manager that the function in `free_slot` returned, entered while the command has given up its slot. None
    while the command has not given up its slot."""
    tries: int = 0
    uncertainty: Uncertainty = field(default_factory=Uncertainty)

    @property
    def has_slot(self) -> bool:
        """True while the command has its slot."""
        return self.free_slot is not None and self.slot_freed is None

    def give_slot_up(self) -> None:
        """Give up the slot, if the command has it."""
        if self.free_slot is not None and self.slot_freed is None:
            self.slot_freed = self.free_slot()
            self.slot_freed.__enter__()

    def take_slot_back(self) -> None:
        """Take the slot back, if it was given up."""
        freed, self.slot_freed = self.slot_freed, None
        if freed is not None:
            freed.__exit__(None, None, None)

    def count(self, how: SendStatus) -> None:
        self.tries += 1
        if how is SendStatus.UNCERTAIN:
            self.uncertainty.add()
        else:  # only uncertain answers in a row count as a refusal
            self.uncertainty.reset()

    def reset(self) -> None:
        """Set the counts of tries and of uncertain answers to 0 before the next request of the set."""
        self.tries = 0
        self.uncertainty.reset()
