"""The event loops that async tests run on: what the fixture `anyio_backend` gives anyio's plug-in. Threads of one."""

from __future__ import annotations

import asyncio
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

_HAS_UVLOOP: Final = importlib.util.find_spec("uvloop") is not None
STANDARD: Final[tuple[str, dict[str, Any]]] = ("asyncio", {})
OF_A_WORKER: Final[tuple[str, dict[str, Any]]] = ("asyncio", {"use_uvloop": _HAS_UVLOOP})
"""As a worker chooses."""
BOTH: Final = [
    pytest.param(STANDARD, id="asyncio"),
    pytest.param(OF_A_WORKER, id="uvloop", marks=pytest.mark.skipif(not _HAS_UVLOOP, reason="no uvloop")),
]


class Threads(ThreadPoolExecutor):
    """Of the loop it is made on; how often they were given work."""

    def __init__(self) -> None:
        super().__init__(1)
        self.given = 0
        asyncio.get_running_loop().set_default_executor(self)

    def submit(self, work: Any, *args: Any, **named: Any) -> Any:
        self.given += 1
        return super().submit(work, *args, **named)
