"""A step that waits for a child whose list of completed steps lags behind its end: one seed, one run, virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from noetl_worker.models import Dialect, ToolResult
from noetl_worker.testing import MemoryControlPlane, arun_tool
from virtual_time import LeapingLoop

LAG_S = 5.0
"""At most; what a step is looked for after its child's end is three times as much."""
LOOKED_FOR_S = 15.0


class LaggingPlane(MemoryControlPlane):
    """The Python plane: it lists each step of the child, and its value, some seconds after the step's end."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        chance = random.Random(seed)
        self.names = [f"s{number}" for number in range(chance.randint(1, 5))]
        self.ends = sorted(chance.uniform(0, 20) for _ in self.names)
        self.listed = [end + chance.uniform(0, LAG_S) for end in self.ends]
        self.over = self.ends[-1] + chance.uniform(0, 2)
        self.is_inferred = chance.random() < 0.5
        """Whether the plane guesses it between two steps, too."""
        self.asked: list[float] = []
        self.poll_s = chance.choice([0.05, 0.5, 2.0, 4.0, 20.0])
        self.wanted = chance.choice([*self.names, self.names[-1], "missing"])

    async def execution_status(self, execution_id: int) -> Mapping[str, Any]:
        now = asyncio.get_running_loop().time() - self.since
        self.asked.append(now)
        seen = [name for name, at in zip(self.names, self.listed, strict=True) if at <= now]
        is_between = self.is_inferred and any(end <= now < end + 1 for end in self.ends)
        return {
            "completed": now >= self.over or is_between,
            "completion_inferred": now < self.over and is_between,
            "completed_steps": seen,
            "variables": {name: {"from": name} for name in seen},
        }

    async def waited(self) -> tuple[ToolResult, float]:
        """What the step gave, and when."""
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        config = {"path": "child", "return_step": self.wanted, "poll_interval": self.poll_s}
        result = await arun_tool("playbook", config, control_plane=self, dialect=Dialect.PYTHON)
        return result, loop.time() - self.since


def run_child(seed: int) -> str:
    """What is wrong with the run of this seed; "" where all holds."""
    plane, loop = LaggingPlane(seed), LeapingLoop()
    try:
        result, took_s = loop.run_until_complete(plane.waited())
    finally:
        loop.close()
    who = f"child of seed {seed} ({plane.wanted!r} of {plane.names}, asked every {plane.poll_s} s)"
    if plane.wanted == "missing":
        latest = plane.over + plane.poll_s + LOOKED_FOR_S
        says = "" if result.error is None else result.error.message
        if not says.endswith(f"without a result of 'missing'; it has: {', '.join(plane.names)}"):
            return f"{who}: it does not say what was seen: {says or result.data}"
    else:
        shown = plane.listed[plane.names.index(plane.wanted)]
        latest = max(shown, plane.over) + plane.poll_s
        if result.error is not None or result.data["result"] != {"from": plane.wanted}:
            return f"{who}: failed {took_s - plane.over:.1f} s after its end: {result.error}"
    if took_s > latest + 0.01:
        return f"{who}: ended after {took_s:.2f} s, later than {latest:.2f} s"
    most = took_s / plane.poll_s + 3
    return f"{who}: asked {len(plane.asked)} times" if len(plane.asked) > most else ""
