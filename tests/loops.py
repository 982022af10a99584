"""The event loops that async tests run on: what the fixture `anyio_backend` gives anyio's plug-in."""

from __future__ import annotations

import importlib.util
from typing import Any, Final

import pytest

_HAS_UVLOOP: Final = importlib.util.find_spec("uvloop") is not None
STANDARD: Final[tuple[str, dict[str, Any]]] = ("asyncio", {})
OF_A_WORKER: Final[tuple[str, dict[str, Any]]] = ("asyncio", {"use_uvloop": _HAS_UVLOOP})
"""As NOETL_WORKER_LOOP=auto chooses."""
BOTH: Final = [
    pytest.param(STANDARD, id="asyncio"),
    pytest.param(OF_A_WORKER, id="uvloop", marks=pytest.mark.skipif(not _HAS_UVLOOP, reason="no uvloop")),
]
