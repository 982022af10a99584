"""The simulator can fail: every deliberate bug is noticed within the seeds of CI."""

from __future__ import annotations

import pytest

from noetl_worker.models import Dialect
from simulate.broken import BUGS, with_bug
from simulate.run import Run, run_seed
from simulate.schedule import LARGE, Fault, Issue
from simulate.test_seeds import SEEDS
from simulate.world import World

pytestmark = pytest.mark.sweep

UNASKED, REFUSED = "expired_and_told_unasked", "told_although_another_has_it"
"""Need a long stop while the tool runs, and a peer that takes the command: too rare for the seeds of CI."""
NOTICED = {UNASKED: "unasked", REFUSED: "to keep off"}
ONE_SLOT = {"WORKER_MAX_CONCURRENT": "1", "NOETL_WORKER_ACK_WAIT_S": "6"}


RARE = {
    "another_id_and_key_at_each_try": 25,
    "nak_dropped": 1,
    "not_looked_whether_it_is_in_flight": 164,
    "a_passing_trouble_fails_the_command": 29,
    "ids_follow_the_clock": 21,
    "accepted_batches_are_not_remembered": 1,
    "what_waits_is_never_lost": 15,
}
"""A seed that soon notices it, for those that the first seed does not: looked at first, since it saves the others."""


def first_failure(bug: str) -> Run | None:
    with with_bug(bug):
        for seed in (RARE.get(bug, SEEDS[0]), *SEEDS):
            for dialect in Dialect:
                run = run_seed(seed, dialect)
                if run.violations:
                    return run
    return None


UNSTORED = "result_not_in_the_outbox"
"""Needs a crash between a large result and its storing, and a peer on the same machine."""
UNNAMED = "open_batches_are_not_named"
"""Needs a drain that ends before the plane has worked its queue off, and a restart of the plane after it."""


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug not in (*NOTICED, UNSTORED, UNNAMED)])
def test_a_broken_worker_is_noticed(bug: str) -> None:
    run = first_failure(bug)
    assert run is not None
    report = run.report()
    assert run.violations[0] in report
    assert (
        f"replay: make simulate FROM={run.schedule.seed} SEEDS=1 DIALECT={run.schedule.dialect.value} TRACE=1" in report
    )


@pytest.mark.parametrize("bug", [None, *NOTICED])
def test_worker_that_stood_still_asks_whose_its_command_is(bug: str | None) -> None:
    """w1 stands still past the lease, w2 takes the command, and w1's tool has ended when it goes on."""
    with with_bug(bug), World(Dialect.PYTHON, "stood still", ONE_SLOT, is_one_machine=False) as world:
        world.start("w1")
        world.advance(1.0)
        world.issue(Issue(0.0, {"seconds": 160.0, "ending": "success", "clings_s": 0.0}))
        world.advance(5.0)
        world.start("w2")
        world.befall(Fault(0.0, "pause", "w1", 200.0, 0.0))
        world.advance(210.0)
        world.settle()
        noticed = [one for one in world.witness.violations if bug is not None and NOTICED[bug] in one]
        assert bool(noticed) is (bug is not None), "\n".join(world.trace.lines)
        assert bug or not world.witness.violations


@pytest.mark.parametrize("bug", [None, UNSTORED])
def test_large_result_of_a_worker_that_died_before_it_was_stored_is_told_whole(
    dialect: Dialect, bug: str | None
) -> None:
    """w1 has run the tool and cannot reach the plane; it dies, and w2 finds the result on their disk.

    On the Python plane the event itself has a result of this size, so that the outbox always has it.
    """
    with with_bug(bug), World(dialect, "died unstored", ONE_SLOT, is_one_machine=True) as world:
        world.start("w1")
        world.issue(Issue(0.0, {"seconds": 2.0, "ending": "success", "chars": LARGE}))
        world.advance(1.0)
        world.befall(Fault(0.0, "http_down", "w1", 30.0, 0.0))
        world.advance(5.0)
        world.befall(Fault(0.0, "crash", "w1", 100.0, 0.0))
        world.start("w2")
        world.settle()
        (command,) = world.plane.commands.values()
        assert len(command.runs) == 1, "the outcome was there: nothing had to run again"
        is_seen = bug is not None and dialect is Dialect.RUST
        assert bool(world.witness.violations) is is_seen, "\n".join(world.trace.lines)


@pytest.mark.parametrize(("down_s", "drained_s", "bug"), [(5.0, 4.0, None), (30.0, 10.0, None), (30.0, 10.0, UNNAMED)])
def test_worker_that_stops_waits_for_the_plane_and_names_what_is_open(
    down_s: float, drained_s: float, bug: str | None
) -> None:
    """The plane's queue stands still; it goes on within the drain, or it is lost in a restart after it."""
    environment = {**ONE_SLOT, "NOETL_WORKER_DRAIN_TIMEOUT_S": "10"}
    with with_bug(bug), World(Dialect.PYTHON, "drained", environment) as world:
        world.start("w1")
        world.advance(1.0)
        world.befall(Fault(0.0, "plane_forgets", "*", down_s, 2.0 if down_s < 10.0 else 0.0))
        world.issue(Issue(0.0, {"seconds": 0.1, "ending": "success"}))
        world.advance(1.0)
        stopped, life = world.clock.now, world.lives["w1"]
        life.stop()
        world.advance(40.0)
        assert life.exit == 0
        assert drained_s <= life.ended_at - stopped <= drained_s + 2.0
        world.settle()
        assert bool(world.witness.violations) is (bug is not None), "\n".join(world.trace.lines)
