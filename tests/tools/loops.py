"""Both event loops, for the tests of what starts processes."""

from __future__ import annotations

import importlib.util
from typing import Final

import pytest

_IS_THERE: Final = importlib.util.find_spec("uvloop") is not None
BOTH: Final = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(
        ("asyncio", {"use_uvloop": True}), id="uvloop", marks=pytest.mark.skipif(not _IS_THERE, reason="no uvloop")
    ),
]
"""For the fixture `anyio_backend` of a module."""
