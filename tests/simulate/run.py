"""One seed, one run."""

from __future__ import annotations

from dataclasses import dataclass

from noetl_worker.models import Dialect
from simulate.schedule import FAULTS_END_S, Schedule, make_schedule
from simulate.world import World


@dataclass(frozen=True, slots=True)
class Run:
    schedule: Schedule
    violations: tuple[str, ...]
    lines: tuple[str, ...]
    virtual_s: float

    def report(self, *, whole: bool = False) -> str:
        """What went wrong, the lines about it, and how to see it again."""
        words = {
            word.strip(",;:")
            for text in self.violations
            for word in text.split()
            if word[:1] == "s" and word[1:2].isdigit()
        }
        shown = self.lines if whole or not words else [line for line in self.lines if _is_about(line, words)]
        which = f"seed {self.schedule.seed} ({self.schedule.dialect.value} plane)"
        return "\n".join(
            [
                f"{which} breaks {len(self.violations)} invariants:",
                *(f"  {text}" for text in self.violations),
                *shown,
                f"replay: {replay_command(self.schedule)}",
            ]
        )


def _is_about(line: str, words: set[str]) -> bool:
    told = {word.strip(",;:()") for word in line.replace("=", " ").split()}
    return bool(told & words) or " fault " in line or " world " in line or "starts as" in line or "exits" in line


def replay_command(schedule: Schedule) -> str:
    return f"make simulate FROM={schedule.seed} SEEDS=1 DIALECT={schedule.dialect.value} TRACE=1"


def run_seed(seed: int, dialect: Dialect) -> Run:
    """Run the schedule of this seed until all is quiet."""
    schedule = make_schedule(seed, dialect)
    seeded = f"{schedule.seed}:{schedule.dialect.value}"
    with World(schedule.dialect, seeded, schedule.environment, is_one_machine=schedule.is_one_machine) as world:
        for name in schedule.workers:
            world.start(name)
        for issue in schedule.issues:
            world.loop.outside(issue.at, world.issue, issue)
        for fault in schedule.faults:
            world.loop.outside(fault.at, world.befall, fault)
        for _ in range(round(FAULTS_END_S)):
            world.advance(1.0)
            world.supervise()
        world.settle()
    return Run(schedule, tuple(world.witness.violations), tuple(world.trace.lines), world.clock.elapsed_s)
