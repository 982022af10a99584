"""What long steps of an event loop do to a test (tests/loop_guard.py finds them).

Where times are held (`make faults`) they fail it. Elsewhere, as in `make test`, they are listed at the end: how long a
step takes depends on the machine. A test that has to do heavy work on a loop's thread says why, with
`@pytest.mark.heavy_on_loop(reason="...")`; for whole directories `HEAVY` does. Fixtures are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import pytest

import holds
import loop_guard

HEAVY: Final = {
    "faults": "the books over thousands of commands are kept on the test's loop; each worker has a guard of its own",
}
_PROPERTY: Final = "long steps of a loop"
_kept: Final[list[str]] = []


def guarded(item: pytest.Item) -> Iterator[None]:
    """Around the call of one test: a hook wrapper's body."""
    loop_guard.begin(item.nodeid)
    yield
    if item.get_closest_marker("heavy_on_loop") is None and item.path.parent.name not in HEAVY:
        _judge("; ".join(loop_guard.seen()))


def found_in_a_worker(steps: str) -> None:
    """Long steps that a worker process has written to its file."""
    _judge(steps.replace("\n", "; "))


def _judge(steps: str) -> None:
    if not steps:
        return
    said = f"a loop's thread was busy for more than {loop_guard.LIMIT_S * 1000:.0f} ms: {steps}"
    if holds.HOLDS_TIMES:
        raise AssertionError(
            f"{said}. Nothing else of it can go on then: do it in a thread or in pieces; a test that has to: "
            "@pytest.mark.heavy_on_loop(reason=...)"
        )
    _kept.append(said)


def keep_for_summary(item: pytest.Item) -> None:
    """At the end of a test: its report has them, also where it comes from another process."""
    item.user_properties += [(_PROPERTY, said) for said in _kept]
    _kept.clear()


def summary(reports: Iterable[pytest.TestReport]) -> list[str]:
    """A line for each long step."""
    return [
        f"{report.nodeid}: {said}"
        for report in reports
        if report.when == "teardown"
        for name, said in report.user_properties
        if name == _PROPERTY
    ]
