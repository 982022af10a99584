"""The delayed report of a command's start. A command that takes some milliseconds needs no separate one."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Held(Protocol):
    """A command whose start is held back."""

    def send_started(self) -> None: ...


class StartedClock:
    """Reports the start of each command that still runs after `hold_s` seconds. One timer serves all commands."""

    def __init__(self) -> None:
        self._held: dict[Held, float] = {}
        """Each held command with the time at which its start is reported, the earliest first."""
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, command: Held, hold_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._held[command] = due = loop.time() + hold_s
        if self._timer is None:
            self._timer = loop.call_at(due, self._report_due)

    def forget(self, command: Held) -> None:
        """Forget a command. Its start is then not reported from here; its terminal events include it."""
        self._held.pop(command, None)

    def _report_due(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for command, due in list(self._held.items()):
            if due > loop.time():
                self._timer = loop.call_at(due, self._report_due)
                return
            del self._held[command]
            command.send_started()
