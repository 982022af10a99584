"""Who is given the notifications of a stream with little in it."""

from __future__ import annotations

import re

from noetl_worker.models import Dialect
from simulate.schedule import Issue
from simulate.world import World

COMMANDS, EVERY_S = 100, 29.0


def test_worker_that_starts_right_behind_another_has_its_share_of_a_slow_stream() -> None:
    """JetStream gives to the request that waits longest, and requests that live equally long keep their order: it was
    the oldest for a moment every 30 s. Found where a command of the Rust plane waited for its own worker (seed 8961).
    """
    with World(Dialect.RUST, "shares", {"WORKER_MAX_CONCURRENT": "4"}, is_one_machine=False) as world:
        for name, until_the_next_s in (("w1", 15.0), ("w2", 0.3), ("w3", 1.0)):
            world.start(name)
            world.advance(until_the_next_s)
        for _ in range(COMMANDS):
            world.issue(Issue(0.0, {"seconds": 0.1, "ending": "success", "clings_s": 0.0}))
            world.advance(EVERY_S)
        given = re.findall(r"nats +gives s\d+ \(.*\) to (w\d)", "\n".join(world.trace.lines))
        assert len(given) == COMMANDS
        assert min(given.count(name) for name in ("w1", "w2", "w3")) > COMMANDS / 10
        world.settle()
        assert not world.witness.violations
