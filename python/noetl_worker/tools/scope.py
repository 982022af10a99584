"""The interruption of a running tool. The tool's timeout, a cancelled execution and the worker's shutdown all stop a
tool in this way.

An interrupted tool finds the reason in `context.stop`, and has a grace period to return its partial output. After the
grace period the worker stops waiting for the tool: a tool in a thread cannot be stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from noetl_worker.errors import CommandCancelled, Interrupted, ToolError
from noetl_worker.models import stopping
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.tools.contract import Stop

TIMEOUT: Final = "timeout"
CANCELLED: Final = "cancelled"
SHUTDOWN: Final = "shutdown"


class CallScope:
    """Runs one tool call and can interrupt it.

    Args:
        stop: object by which the tool learns the reason.
        timeout_s: the tool's own timeout in seconds. The tool is interrupted only TOOL_S seconds after this timeout,
            so that the tool can stop by itself first.
        poll_s: seconds before the first check whether the execution is cancelled: most tools have ended by then.
        until_cancelled: waits until the execution is cancelled. None: nobody checks whether the execution is cancelled.
        log_ids: returns the ids of the command, for the log.
    """

    def __init__(
        self,
        stop: Stop,
        timeout_s: float,
        *,
        poll_s: float = 0.0,
        until_cancelled: Callable[[], Awaitable[None]] | None = None,
        log_ids: Callable[[], dict[str, object]] = dict,
    ) -> None:
        self._stop, self._log_ids = stop, log_ids
        self._timeout_s, self._poll_s, self._grace_s = timeout_s, poll_s, stopping.TOOL_S
        self._until_cancelled = until_cancelled
        self._asking: asyncio.Task[None] | None = None
        self._over: asyncio.Future[None] | None = None
        """Future that is resolved when the tool has ended or must be stopped."""

    def interrupt(self, reason: str) -> None:
        """Stop the tool and set the reason, unless an earlier call has set one. If the tool is not running, only set
        the reason."""
        self._stop.set(reason)
        self._wake()

    async def run(self, call: Coroutine[Any, Any, ToolResult]) -> ToolResult:
        """Run the tool call and return its result, or raise the error of the tool.

        Raises:
            CommandCancelled: the tool was stopped because its execution was cancelled.
            Interrupted: the tool was stopped because the worker stops.
        """
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        task = loop.create_task(call)
        task.add_done_callback(self._wake)
        timers = [loop.call_later(self._timeout_s + self._grace_s, self.interrupt, TIMEOUT)]
        if self._until_cancelled is not None:
            timers.append(loop.call_later(self._poll_s, self._ask, self._until_cancelled))
        if self._stop.is_set():  # the stop was asked for before the tool began
            self._wake()
        try:
            await self._over
            if task.cancelled():
                if not self._stop.is_set():  # nobody stopped the tool: a redelivery would repeat this for ever
                    text = "the tool was cancelled from within, by its own code: tell the author of the tool"
                    raise ToolError(text, kind="cancelled")
            elif task.done():
                return task.result()
            if self._asking is not None and not self._stop.is_set():  # the check failed: a bug of ours
                task.cancel()
                self._asking.result()
            return await self._stopped(task)
        except asyncio.CancelledError:  # the enclosing call was cancelled; the tool may still return its partial output
            task.cancel()
            return await task
        finally:
            for timer in timers:
                timer.cancel()
            if self._asking is not None:
                self._asking.cancel()

    def _wake(self, _: object = None) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _ask(self, until_cancelled: Callable[[], Awaitable[None]]) -> None:
        self._asking = asyncio.ensure_future(until_cancelled())
        self._asking.add_done_callback(self._answered)

    def _answered(self, asking: asyncio.Future[None]) -> None:
        if asking.cancelled() or asking.exception() is not None:
            self._wake()
        else:
            self.interrupt(CANCELLED)

    async def _stopped(self, task: asyncio.Future[ToolResult]) -> ToolResult:
        reason = self._stop.reason
        task.cancel()
        await asyncio.wait({task}, timeout=self._grace_s)
        if not task.done():
            import structlog  # imported late: `check` runs no tool

            log = structlog.get_logger("noetl_worker.tool")
            advice = "the tool runs on until the worker's process ends; find out what the tool waits for"
            log.error("tool_not_stoppable", **self._log_ids(), reason=reason, grace_s=self._grace_s, advice=advice)
        elif not task.cancelled():
            task.exception()  # keeps asyncio from warning of an exception nobody read
        if reason == CANCELLED:
            raise CommandCancelled("the execution was cancelled; the tool was stopped")
        if reason == SHUTDOWN:
            raise Interrupted
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()  # partial output that the tool returned while it was stopped
        return ToolResult.timed_out(self._timeout_s)
