"""A worker runs inside of these tests: they run on the loop that it chooses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import loops
from noetl_worker.tools.artifact import file_roots

from .commands import end_workers


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return loops.OF_A_WORKER


@pytest.fixture(scope="session", autouse=True)
def no_worker_stays() -> Iterator[None]:
    yield
    end_workers()


@pytest.fixture(autouse=True)
def files_of_no_worker() -> None:
    """A worker that a test before ran in this process has hidden its own files, and what is above them, from DuckDB."""
    file_roots.keep_own(())
