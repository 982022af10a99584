"""Hypothesis drives the same world: it finds its own schedules, and makes the failing ones small."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from noetl_worker.models import Dialect
from simulate.schedule import FAULTS, WORKERS, Fault, Issue
from simulate.world import World

pytestmark = pytest.mark.sweep

ISSUES = st.builds(
    Issue,
    at=st.just(0.0),
    config=st.fixed_dictionaries(
        {
            "seconds": st.sampled_from((0.0, 0.01, 1.0, 20.0, 130.0)),
            "ending": st.sampled_from(("success", "error", "raises")),
            "clings_s": st.sampled_from((0.0, 2.0)),
        }
    ),
    kind=st.sampled_from(("command", "command", "command", "refused", "unknown", "poison")),
)


class House(RuleBasedStateMachine):
    """Publish, break something, let time pass; at the end all is done and nothing is broken that was promised."""

    world: World

    @initialize(
        dialect=st.sampled_from(Dialect),
        seed=st.integers(0, 2**32),
        slots=st.sampled_from(("1", "4")),
        outbox=st.sampled_from(("off", "on_failure", "always")),
    )
    def move_in(self, dialect: Dialect, seed: int, slots: str, outbox: str) -> None:
        environment = {
            "WORKER_MAX_CONCURRENT": slots,
            "NOETL_WORKER_ACK_WAIT_S": "6",
            "NOETL_WORKER_DRAIN_TIMEOUT_S": "2",
            "NOETL_WORKER_OUTBOX": outbox,
        }
        self.world = World(dialect, f"machine:{seed}", environment)
        self.world.__enter__()
        for name in WORKERS[:2]:
            self.world.start(name)
        self.world.advance(1.0)

    @rule(issues=st.lists(ISSUES, min_size=1, max_size=4))
    def publish(self, issues: list[Issue]) -> None:
        for issue in issues:
            self.world.issue(issue)

    @rule(kind=st.sampled_from(sorted(FAULTS)), victim=st.sampled_from(WORKERS[:2]), draw=st.integers(0, 2**32))
    def break_something(self, kind: str, victim: str, draw: int) -> None:
        what, chance = FAULTS[kind], random.Random(draw)
        if what.only in (None, self.world.dialect):
            lasts_s, size = chance.uniform(*what.lasts_s), chance.uniform(*what.size)
            self.world.befall(Fault(0.0, kind, "*" if what.is_global else victim, round(lasts_s, 3), round(size, 3)))

    @rule(seconds=st.sampled_from((0.02, 0.5, 3.0, 10.0, 45.0, 130.0)))
    def let_time_pass(self, seconds: float) -> None:
        self.world.advance(seconds)
        self.world.supervise()

    @invariant()
    def nothing_is_broken(self) -> None:
        if hasattr(self, "world"):
            self.complain()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.world.settle()
            self.complain()
        finally:
            self.world.__exit__(None, None, None)

    def complain(self) -> None:
        violations = self.world.witness.violations
        assert not violations, "\n".join([*violations, *self.world.trace.lines])


House.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestHouse = House.TestCase
