"""When the start of a command is reported: not at all by itself, for one that is over in some milliseconds."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Held(Protocol):
    """A command whose start is not reported yet."""

    def send_started(self) -> None: ...


class StartedClock:
    """Has the start of each command reported that still runs `hold_s` after it: one timer for all of them."""

    def __init__(self) -> None:
        self._held: dict[Held, float] = {}
        """In the order in which they are due: all are held for the same time."""
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, command: Held, hold_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._held[command] = due = loop.time() + hold_s
        if self._timer is None:
            self._timer = loop.call_at(due, self._ring)

    def let_go(self, command: Held) -> None:
        """The command is over: the terminal set carries its start."""
        self._held.pop(command, None)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for command, due in list(self._held.items()):
            if due > loop.time():
                self._timer = loop.call_at(due, self._ring)
                return
            del self._held[command]
            command.send_started()
