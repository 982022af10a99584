"""`measured`: figures that the tests of this directory record, and assert.

What depends on the speed of the machine is asserted by `make faults` and the soaks alone (tests/holds.py). A soak that
was done, with its figures, is not done again: `make soak` goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pytest

import holds
import loops
from faults import figures

Measured = Callable[..., None]
_FOUND: Final[dict[str, list[figures.Figure]]] = {}
"""By the test that measured them."""
TIMES: Final = frozenset({"s", "ms", "/s", "x"})
"""Units of what depends on the machine's speed; `x` is one time in terms of another."""
WRITE: Final = "TESTS_FAULTS_WRITE"
"""Set by `make faults` and `make soak`: a run without a failure writes figures.json and the two pages."""
DONE: Final = "TESTS_SOAK_DONE"
"""A folder, one for each commit: what `make soak` has done, and its figures. Remove it to begin anew."""


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
        found = figures.Figure(fault, what, value, unit, bound, where, form)
        _FOUND.setdefault(request.node.nodeid, []).append(found)

    return note


def done_file(item: pytest.Item) -> Path | None:
    """Of a soak, where it is kept that it was done."""
    folder = os.environ.get(DONE)
    if not folder or item.get_closest_marker("soak") is None:
        return None
    return Path(folder) / f"{hashlib.sha256(item.nodeid.encode()).hexdigest()[:16]}.json"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        file = done_file(item)
        if file is not None and file.exists():
            done = json.loads(file.read_text(encoding="utf-8"))
            _FOUND[item.nodeid] = [figures.Figure(**one) for one in done]
            item.add_marker(pytest.mark.skip(reason=f"it was done before ({file})"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield
    if (file := done_file(item)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_suffix(".part")
        whole.write_text(json.dumps([asdict(one) for one in _FOUND.get(item.nodeid, ())]), encoding="utf-8")
        whole.rename(file)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == 0 and os.environ.get(WRITE) and _FOUND:
        figures.save([one for found in _FOUND.values() for one in found])
