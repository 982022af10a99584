"""Which finished commands have a line, and that the lines stand for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import logging_guard
from noetl_worker.observability.command_lines import MOST_A_SECOND, ONE_OF, CommandLines
from noetl_worker.observability.logging import configure_logging


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    with logging_guard.kept():
        configure_logging("info", "json")
        yield


def shares(lines: CommandLines, count: int, *, a_second: int, at: float = 1000.0) -> list[float]:
    """Of commands that end one after the other, evenly."""
    return [lines.share(at + number / a_second) for number in range(count)]


def test_up_to_fifty_a_second_each_has_a_line() -> None:
    assert set(shares(CommandLines("sampled"), 500, a_second=MOST_A_SECOND)) == {1.0}


def test_above_that_a_share_has_one_and_the_line_says_which() -> None:
    found = shares(CommandLines("sampled"), 20_000, a_second=2_000)
    written = [share for share in found if share]
    assert set(written) == {1.0, 1 / ONE_OF}
    assert written.count(1.0) == 10 * MOST_A_SECOND
    stand_for = sum(1 / share for share in written)
    assert abs(stand_for - 20_000) < ONE_OF, "each line says how many it stands for"


def test_commands_that_end_out_of_order_have_lines_of_the_same_second() -> None:
    lines = CommandLines("sampled")
    shares(lines, MOST_A_SECOND, a_second=1_000)
    assert shares(lines, 10, a_second=1_000, at=900.0) == [0.0] * 10, "a late end opens no second of its own"


@pytest.mark.parametrize(("which", "share"), [("all", 1.0), ("failed", 0.0), ("none", 0.0)])
def test_all_failed_and_none_are_no_sample(which: str, share: float) -> None:
    assert set(shares(CommandLines(which), 500, a_second=1_000)) == {share}


@pytest.mark.parametrize(
    ("which", "level", "is_on"),
    [
        ("sampled", "info", True),
        ("all", "info", True),
        ("failed", "info", False),
        ("none", "info", False),
        ("all", "warning", False),
        ("none", "debug", True),
    ],
)
def test_nothing_is_asked_of_a_command_where_no_line_would_be_written(which: str, level: str, is_on: bool) -> None:
    lines = CommandLines(which)
    configure_logging(level, "json")
    lines.read_level()
    assert lines.is_on is is_on
