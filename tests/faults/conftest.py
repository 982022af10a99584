"""`measured`: figures that the tests of this directory record, and assert.

What depends on the speed of the machine is asserted by `make faults` and the soaks alone (tests/holds.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import pytest

import holds
import loops
from faults import figures

Measured = Callable[..., None]
_FOUND: Final[list[figures.Figure]] = []
TIMES: Final = frozenset({"s", "ms", "/s", "x"})
"""Units of what depends on the machine's speed; `x` is one time in terms of another."""
WRITE: Final = "NOETL_WORKER_FAULTS_WRITE"
"""Set by `make faults` and `make soak`: a run without a failure writes figures.json and the two pages."""


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """A worker runs inside of some of these tests: they run on the loop that it chooses."""
    return loops.OF_A_WORKER


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """`measured("F4", "delivered again after", 1.4, "s", at_most=2.0)` keeps the figure and asserts its bound."""
    where = request.node.nodeid.partition("[")[0].removeprefix("tests/faults/")
    form = "long" if request.node.get_closest_marker("soak") else "short"

    def note(
        fault: str, what: str, value: float, unit: str, *, at_most: float | None = None, exactly: float | None = None
    ) -> None:
        print(f"{fault}: {what}: {value:g} {unit}")
        if at_most is not None and (unit not in TIMES or holds.HOLDS_TIMES):
            assert value <= at_most, f"{fault}: {what}: {value:g} {unit}, promised: at most {at_most:g}"
        if exactly is not None:
            assert value == exactly, f"{fault}: {what}: {value:g} {unit}, promised: {exactly:g}"
        bound = f"<= {at_most:g}" if at_most is not None else f"= {exactly:g}" if exactly is not None else ""
        assert fault in figures.FAULTS
        _FOUND.append(figures.Figure(fault, what, value, unit, bound, where, form))

    return note


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == 0 and os.environ.get(WRITE) and _FOUND:
        figures.save(_FOUND)
