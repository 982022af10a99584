"""One question about a worker, its options, and the answer: worker and yardstick side by side, in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from load import Sent, quantiles
from measured_process import rss_mb
from rig import Rig, Side, rig
from stub_plane import STARTED_AT, Answers

KINDS: Final[dict[str, dict[str, Any]]] = {
    "noop": {},
    "recorded": {},
    "clock": {},
    "python": {"code": f"import time\nresult = {{'{STARTED_AT}': time.monotonic(), 'pad': 'x' * pad}}"},
    "shell": {"command": "true"},
}
"""Kinds that can be measured, with the config of their commands. `clock` is a plug-in of ours (plug_ins/clock.py)."""
SAMPLED_OUT: Final = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",  # nothing is exported, so nothing is sent there
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0",
}
"""Traces are on, and every command is sampled out."""
_TELLS_ITS_START: Final = {"noop": "clock", "clock": "clock", "python": "python"}
"""Which kind is asked when a tool starts: a noop cannot tell it."""
_SETTLE_S: Final = 0.5


@dataclass(frozen=True)
class Scenario:
    kind: str = "noop"
    commands: int = 2000
    """In each round."""
    rounds: int = 3
    slots: int = 128
    delay_ms: float = 0.0
    """How long the plane takes for an answer."""
    context_bytes: int = 0
    result_bytes: int = 0
    idle_s: float = 0.0
    """How long the idle worker is watched; 0: not at all."""
    paced_s: float = 0.0
    """How long commands come at half of the greatest rate, for the time until a tool starts; 0: not at all."""
    rate: float = 0.0
    """Commands a second for that, in place of half of the greatest rate of the kind that tells its start."""
    yardstick: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)
    """Settings of the worker."""
    plug_ins: tuple[str, ...] = ("clock",)

    def answers(self, kind: str) -> Answers:
        return Answers(self.delay_ms, kind, self._config(kind), self.context_bytes)

    def _config(self, kind: str) -> dict[str, Any]:
        config = dict(KINDS[kind])
        if kind == "python":
            config["input"] = {"pad": self.result_bytes}
        elif kind == "noop" and self.result_bytes:
            config["result"] = {"pad": "x" * self.result_bytes}  # comes with the claim, which grows by as much
        elif kind == "shell" and self.result_bytes:
            config["command"] = f"head -c {self.result_bytes} /dev/zero | tr '\\0' x"
        return config


async def in_turns(scenarios: Sequence[Scenario], *, give_way: bool = False) -> list[dict[str, Any]]:
    """Of several workers, each with a NATS and a plane of its own: their rounds take turns, so that a ratio of two of
    them is not that of a quiet minute to a busy one. No yardstick. `give_way`: see Rig.give_way."""
    async with AsyncExitStack() as stack:
        sides, rigs = [], []
        for scenario in scenarios:
            here = await stack.enter_async_context(rig())
            sides.append(await stack.enter_async_context(here.worker(scenario.slots, **scenario.variables)))
            rigs.append(here)
        for here in rigs if give_way else ():
            here.give_way()
        found = await best_of_turns(list(zip(sides, scenarios, strict=True)))
        return [
            {"scenario": asdict(scenario), "worker": {**figures, "first_claim_ms": side.first_claim_ms}}
            for figures, side, scenario in zip(found, sides, scenarios, strict=True)
        ]


async def run(rig: Rig, scenario: Scenario) -> dict[str, Any]:
    """What was measured: a side's best rate and least CPU of all rounds, and what only a worker has."""
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(
            rig.worker(scenario.slots, plug_ins=scenario.plug_ins, **scenario.variables)
        )
        sides = [worker]
        if scenario.yardstick:
            sides.append(await stack.enter_async_context(rig.yardstick(scenario.slots)))
        found: dict[str, Any] = {"scenario": asdict(scenario), "worker": {}}
        if scenario.idle_s:
            found["worker"]["idle_cpu_percent"] = await _idle_percent(worker, scenario.idle_s)
        for name, figures in (await figures_of(sides, scenario)).items():
            found.setdefault(name, {}).update(figures)
        found["worker"]["first_claim_ms"] = worker.first_claim_ms
        if scenario.yardstick:
            found["cpu_to_yardstick"] = found["worker"]["cpu_us"] / found["yardstick"]["cpu_us"]
        if scenario.paced_s and scenario.kind in _TELLS_ITS_START:
            rate = scenario.rate or await _greatest_rate(worker, scenario) / 2
            times = [(side, await _tool_starts(side, scenario, rate)) for _ in range(scenario.rounds) for side in sides]
            for side in sides:
                found[side.name]["tool_start_ms"] = min((one for at, one in times if at is side), key=_tail)
        return found


async def figures_of(sides: Sequence[Side], scenario: Scenario) -> dict[str, dict[str, float]]:
    """The figures of each side by its name, all with the commands of one scenario."""
    found = await best_of_turns([(side, scenario) for side in sides])
    return {side.name: figures for side, figures in zip(sides, found, strict=True)}


async def best_of_turns(pairs: Sequence[tuple[Side, Scenario]]) -> list[dict[str, float]]:
    """Of each side with its commands, in turns: the best rate and the least CPU of all rounds, and its memory."""
    for side, scenario in pairs:
        await side.load.send(scenario.answers(scenario.kind), max(1, scenario.commands // 10))  # warm
    found: list[list[dict[str, float]]] = [[] for _ in pairs]
    for _ in range(max(scenario.rounds for _, scenario in pairs)):
        for rounds, (side, scenario) in zip(found, pairs, strict=True):
            rounds.append(await one_round(side, scenario))
    return [{**best(rounds), "rss_mb": rss_mb(side.pid)} for rounds, (side, _) in zip(found, pairs, strict=True)]


async def one_round(side: Side, scenario: Scenario) -> dict[str, float]:
    before = side.cpu_s()
    sent = await side.load.send(scenario.answers(scenario.kind), scenario.commands)
    return {
        "commands_per_s": scenario.commands / sent.seconds,
        "cpu_us": (side.cpu_s() - before) / scenario.commands * 1e6,
        "requests_per_command": sent.requests_per_command,
    }


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Minima of what is paid: what else ran on the machine only adds to it."""
    return {
        "commands_per_s": max(one["commands_per_s"] for one in rounds),
        "cpu_us": min(one["cpu_us"] for one in rounds),
        "requests_per_command": min(one["requests_per_command"] for one in rounds),
    }


async def _idle_percent(side: Side, seconds: float) -> float:
    """Share of one core."""
    await asyncio.sleep(_SETTLE_S)
    before = side.cpu_s()
    await asyncio.sleep(seconds)
    return (side.cpu_s() - before) / seconds * 100


def _tail(starts: dict[str, float]) -> float:
    return starts["p99"]


async def _greatest_rate(side: Side, scenario: Scenario) -> float:
    """Of the kind that tells its start."""
    telling = replace(scenario, kind=_TELLS_ITS_START[scenario.kind])
    rounds = [await one_round(side, telling) for _ in range(scenario.rounds)]
    return best(rounds)["commands_per_s"]


async def _tool_starts(side: Side, scenario: Scenario, rate: float) -> dict[str, float]:
    answers = scenario.answers(_TELLS_ITS_START[scenario.kind])
    await side.load.send(answers, 20)  # warm
    commands, before = max(20, int(rate * scenario.paced_s)), side.cpu_s()
    sent: Sent = await side.load.send(answers, commands, rate=rate)
    cpu_us = (side.cpu_s() - before) / commands * 1e6
    return {"commands_per_s": rate, "cpu_us": cpu_us, **quantiles(sent.tool_starts_ms)}
