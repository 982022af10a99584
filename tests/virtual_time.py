"""Seconds that pass at once: the clock of an async test leaps to the next timer, as the simulation's does.

For the tests of a file: `anyio_backend = virtual_time.anyio_backend`; for one: `@virtual_time.PASSES`. The product's
own waits and limits hold, and nobody waits for them. What a thread would do is done in the loop's turn, and there are
no sockets. A test that waits for what never comes fails at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final
from unittest import mock

import pytest

from simulate.clock import Clock, VirtualLoop


class LeapingLoop(VirtualLoop):
    """While it is open, the clocks of the process are its own."""

    def __init__(self) -> None:
        clock = Clock()
        super().__init__(clock)
        self._clocks: Final = ExitStack()
        for name, of_ours in (("monotonic", clock.monotonic), ("time", clock.wall)):
            self._clocks.enter_context(mock.patch.object(time, name, of_ours))

    def run_in_executor(self, _: Any, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        done = self.create_future()
        try:
            done.set_result(work(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done

    def close(self) -> None:
        self._clocks.close()
        super().close()


_BACKEND: Final[tuple[str, dict[str, Any]]] = ("asyncio", {"loop_factory": LeapingLoop})
PASSES: Final = pytest.mark.parametrize("anyio_backend", [pytest.param(_BACKEND, id="virtual time")])


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return _BACKEND
