"""`run_tool` for the tests of a file: their commands are children of one template process, as a worker's are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from noetl_worker.models import ToolResult
from noetl_worker.testing import tool_context
from noetl_worker.tools.registry import Registry


class _Running:
    """A registry on a loop in a thread of its own."""

    def __init__(self) -> None:
        self.registry = Registry(plugins=False)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def end(self) -> None:
        self.run(self.registry.aclose())
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


_RUNNING: list[_Running] = []


def run_tool(kind: str, config: Mapping[str, Any], **context: Any) -> ToolResult:
    """As that of noetl_worker.testing, which starts and ends a template process for each call."""
    if not _RUNNING:
        _RUNNING.append(_Running())
    registry = _RUNNING[0].registry
    result: ToolResult = _RUNNING[0].run(
        registry.run_tool(kind, config, tool_context(registry=registry, kind=kind, **context))
    )
    return result


@contextmanager
def ended_afterwards() -> Iterator[None]:
    """The template process of what runs in this block ends with it."""
    yield
    if _RUNNING:
        _RUNNING.pop().end()
