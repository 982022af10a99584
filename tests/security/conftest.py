"""A worker runs inside of these tests: they run on the loop that it chooses."""

from __future__ import annotations

from typing import Any

import pytest

import loops


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return loops.OF_A_WORKER
