"""The delayed report of a command's start, which a command of some milliseconds does not need."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Held(Protocol):
    """A command whose start is not reported yet."""

    def send_started(self) -> None: ...


class StartedClock:
    """Reports the start of each command that still runs after `hold_s`. One timer serves all commands."""

    def __init__(self) -> None:
        self._held: dict[Held, float] = {}
        """Due time of each held command, earliest first: all are held for the same time."""
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, command: Held, hold_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._held[command] = due = loop.time() + hold_s
        if self._timer is None:
            self._timer = loop.call_at(due, self._ring)

    def let_go(self, command: Held) -> None:
        """Forget a command that is over: its terminal events carry its start."""
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
