"""For every test of this directory: the outboxes that it has made are closed after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from noetl_worker.pipeline.report.emitter import Emitter
from unit.outboxes import OPEN
from unit.planes import emitter


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def ours(tmp_path: Path) -> Emitter:
    """With an outbox in the test's directory."""
    made = emitter(tmp_path)
    OPEN.append(made.outbox)
    return made
