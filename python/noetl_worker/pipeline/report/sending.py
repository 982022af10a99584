"""The state of sending one set of terminal events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from noetl_worker.remote.plane.patience import Uncertainty
from noetl_worker.remote.plane.send_status import SendStatus


class Ownership(Protocol):
    """Knowledge of whether a command with a late outcome is still ours."""

    def is_uncertain(self, now: float) -> bool:
        """Return whether the delivery or the claim may have passed to another worker."""

    async def confirm(self) -> None:
        """Ask the plane. Raise ClaimLost when another worker has the command, or when it is over."""


@dataclass(slots=True)
class Sending:
    """Progress of one set: until when its command is ours, its tries, and its slot."""

    known_until: float
    """Monotonic time until which the command is known to be ours."""
    outside: Callable[[], AbstractContextManager[None]] | None = None
    """Frees the slot while entered. None: the set has no slot, and no delivery waits for its acceptance."""
    left: AbstractContextManager[None] | None = None
    """The entered `outside`, once the slot is free."""
    tries: int = 0
    uncertainty: Uncertainty = field(default_factory=Uncertainty)

    @property
    def is_inside(self) -> bool:
        return self.outside is not None and self.left is None

    def leave(self) -> None:
        """Give up the slot, unless the set has left it already."""
        if self.outside is not None and self.left is None:
            self.left = self.outside()
            self.left.__enter__()

    def come_back(self) -> None:
        left, self.left = self.left, None
        if left is not None:
            left.__exit__(None, None, None)

    def count(self, how: SendStatus) -> None:
        self.tries += 1
        if how is SendStatus.UNCERTAIN:
            self.uncertainty.add()
        else:  # a plane that is down says nothing about the set, so this time is not uncertainty
            self.uncertainty.reset()

    def reset(self) -> None:
        """Start afresh for the next request, since this one was accepted."""
        self.tries = 0
        self.uncertainty.reset()
