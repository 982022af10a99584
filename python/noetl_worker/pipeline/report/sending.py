"""How the sending of one set goes: whose its command is, what has been tried, and whether it has left its slot."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from noetl_worker.remote.plane.patience import Uncertainty
from noetl_worker.remote.plane.send_status import SendStatus


class Ownership(Protocol):
    """Whether a command whose outcome is late is still ours."""

    def is_uncertain(self, now: float) -> bool:
        """The delivery or the claim may have passed to another worker."""

    async def confirm(self) -> None:
        """Ask the plane. Raises ClaimLost when somebody else has the command, or it is over."""


@dataclass(slots=True)
class Sending:
    """How the sending of one set goes."""

    known_until: float
    """Monotonic time until which the command is known to be ours."""
    outside: Callable[[], AbstractContextManager[None]] | None = None
    """How it leaves its slot; None: it has none, and no delivery is answered when the set is accepted."""
    left: AbstractContextManager[None] | None = None
    """Entered once it has left it."""
    tries: int = 0
    uncertainty: Uncertainty = field(default_factory=Uncertainty)

    @property
    def is_inside(self) -> bool:
        return self.outside is not None and self.left is None

    def leave(self) -> None:
        """Give up the slot, once, whichever of its requests have to wait."""
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
        else:  # a plane that is down says nothing about the set, and its time does not count as uncertainty
            self.uncertainty.settle()

    def settle(self) -> None:
        """A request was accepted; the next one begins anew."""
        self.tries = 0
        self.uncertainty.settle()
