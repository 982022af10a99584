"""The one way to stop a running tool: its timeout, the end of its execution, or the stop of the worker.

A tool that is interrupted learns the reason (`context.stop`), has a grace for its partial output, and is left behind
after it: it may hold a thread that nobody can end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog

from noetl_worker import stopping
from noetl_worker.errors import CommandCancelled, Interrupted, ToolError
from noetl_worker.models import ToolResult
from noetl_worker.tools.contract import Stop

__all__ = ["CANCELLED", "SHUTDOWN", "TIMEOUT", "Scope"]

TIMEOUT: Final = "timeout"
CANCELLED: Final = "cancelled"
SHUTDOWN: Final = "shutdown"
log = structlog.get_logger("noetl_worker.tool")


class Scope:
    """One tool call.

    Args:
        stop: how the tool learns the reason.
        timeout_s: the tool's own; it knows it, so it is interrupted TOOL_S later only.
        poll_s: between two questions whether the execution is cancelled; 0: never asked.
        is_cancelled: that question; it waits until the answer is yes.
    """

    def __init__(
        self,
        stop: Stop,
        timeout_s: float,
        *,
        poll_s: float = 0.0,
        until_cancelled: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._stop = stop
        self._timeout_s, self._poll_s, self._grace_s = timeout_s, poll_s, stopping.TOOL_S
        self._until_cancelled = until_cancelled
        self._interrupted: asyncio.Future[None] | None = None

    def interrupt(self, reason: str) -> None:
        """Stop the tool; the first reason stays. Before `run` and after its end it changes nothing but the reason."""
        self._stop.set(reason)
        if self._interrupted is not None and not self._interrupted.done():
            self._interrupted.set_result(None)

    async def run(self, call: Coroutine[Any, Any, ToolResult]) -> ToolResult:
        """The result of the tool, or what it raised.

        Raises:
            CommandCancelled: its execution was cancelled, and it was stopped.
            Interrupted: the worker stops, and it was stopped.
        """
        loop = asyncio.get_running_loop()
        self._interrupted = loop.create_future()
        if self._stop.is_set():  # since before the tool began
            self._interrupted.set_result(None)
        task = asyncio.ensure_future(call)
        alarm = loop.call_later(self._timeout_s + self._grace_s, self.interrupt, TIMEOUT)
        try:
            await self._first_of(task, self._interrupted)
            if task.cancelled():  # nobody has stopped this command: as a stop it would come again for ever
                raise ToolError("the tool was cancelled from within: something that it awaited was", kind="cancelled")
            return task.result() if task.done() else await self._stopped(task)
        except asyncio.CancelledError:  # of what this call is a part of: its partial output is heard
            task.cancel()
            return await task
        finally:
            alarm.cancel()

    async def _first_of(self, task: asyncio.Future[ToolResult], interrupted: asyncio.Future[None]) -> None:
        # Most tools end before the first question, and cost nothing more.
        either: set[asyncio.Future[Any]] = {task, interrupted}
        await asyncio.wait(either, timeout=self._poll_s or None, return_when=asyncio.FIRST_COMPLETED)
        if task.done() or interrupted.done() or self._until_cancelled is None:
            return
        asking = asyncio.ensure_future(self._until_cancelled())
        try:
            await asyncio.wait({*either, asking}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                await asking  # a bug of the asking is no cancellation
                if not task.done():
                    self.interrupt(CANCELLED)
        finally:
            asking.cancel()

    async def _stopped(self, task: asyncio.Future[ToolResult]) -> ToolResult:
        reason = self._stop.reason
        task.cancel()
        await asyncio.wait({task}, timeout=self._grace_s)
        if not task.done():
            log.error("tool_not_stoppable", reason=reason, grace_s=self._grace_s)
        elif not task.cancelled():
            task.exception()  # looked at: what it raised on its way out is nobody's
        if reason == CANCELLED:
            raise CommandCancelled("the execution was cancelled; the tool was stopped")
        if reason == SHUTDOWN:
            raise Interrupted
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()  # it gave its partial output on the way out
        return ToolResult.timed_out(self._timeout_s)
