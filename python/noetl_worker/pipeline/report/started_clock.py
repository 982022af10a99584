"""The delayed report of a command's start. A command that takes some milliseconds needs no separate one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class StartedClock:
    """Reports the start of each command that still runs after `hold_s` seconds. One timer serves all commands."""

    def __init__(self) -> None:
        self._held: dict[Callable[[], None], float] = {}
        """The functions that report the starts, each with its time, the earliest first."""
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, send_started: Callable[[], None], hold_s: float) -> None:
        """Call `send_started` after `hold_s` seconds, unless it is forgotten before."""
        loop = asyncio.get_running_loop()
        self._held[send_started] = due = loop.time() + hold_s
        if self._timer is None:
            self._timer = loop.call_at(due, self._report_due)

    def forget(self, send_started: Callable[[], None]) -> None:
        """Forget a function that was not called yet. The terminal events then include the start."""
        self._held.pop(send_started, None)

    def _report_due(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for send_started, due in list(self._held.items()):
            if due > loop.time():
                self._timer = loop.call_at(due, self._report_due)
                return
            del self._held[send_started]
            send_started()
