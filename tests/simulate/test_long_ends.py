"""The Rust plane issues the next commands inside of the request with an end: nobody cuts that off but a hard stop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from noetl_worker.models import Dialect
from simulate.schedule import Issue
from simulate.world import World

ENVIRONMENT = {
    "WORKER_MAX_CONCURRENT": "1",
    "NOETL_WORKER_ACK_WAIT_S": "6",
    "NOETL_WORKER_DRAIN_TIMEOUT_S": "2",
    "NOETL_WORKER_HTTP_TIMEOUT_S": "5",
}
QUICK = {"seconds": 0.1, "ending": "success"}


@pytest.fixture
def world() -> Iterator[World]:
    """w1 has told an end that the plane works on for 90 s."""
    with World(Dialect.RUST, "long ends", ENVIRONMENT) as made:
        made.start("w1")
        made.advance(1.0)
        made.issue(Issue(0.0, QUICK, next_s=90.0))
        made.advance(10.0)
        yield made


def said(world: World, event: str) -> int:
    return sum(f" {event} " in f"{line} " for line in world.trace.lines)


def test_next_command_is_issued_however_long_it_takes_and_the_slot_is_free_meanwhile(world: World) -> None:
    world.issue(Issue(0.0, QUICK))
    world.advance(5.0)
    first, second = world.plane.commands.values()
    assert (first.has_next, second.is_terminal) == (False, True)
    world.advance(80.0)
    assert first.has_next
    world.settle()
    assert not world.witness.violations
    assert said(world, "events_not_accepted") == 0


def test_drain_waits_for_it(world: World) -> None:
    life = world.lives["w1"]
    life.stop()
    world.advance(60.0)
    assert life.exit is None, "the drain timeout is 2 s"
    world.advance(40.0)
    (command, *_) = world.plane.commands.values()
    assert (life.exit, command.has_next) == (0, True)


def test_hard_stop_leaves_it_and_the_next_start_says_that_the_execution_stands_still(world: World) -> None:
    life = world.lives["w1"]
    life.stop()
    life.stop()
    world.advance(20.0)
    (command,) = world.plane.commands.values()
    assert life.exit == 4
    world.advance(90.0)
    assert command.cut_off is not None
    world.start("w1")
    world.advance(59.0)
    assert said(world, "execution_stands_still") == 0
    world.advance(10.0)
    assert said(world, "execution_stands_still") == 1
    world.settle()
    assert not world.witness.violations
