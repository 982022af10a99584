"""The gates of the worker: what one no-op command makes it do, counted, and its CPU in terms of the yardstick's.

The limits are in gates.toml, section [worker]; `check_gates.py worker --write` writes what is measured and a margin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from counts import count_calls, count_http, count_worker
from rig import rig
from scenario import SAMPLED_OUT, Scenario, run

MARGINS: Final = {
    "tasks": 0.02,
    "futures": 0.10,
    "callbacks": 0.08,
    "requests": 0.02,
    "calls": 0.02,
    "calls_sampled_out": 0.02,
    "calls_recorded": 0.02,
    "calls_plug_in": 0.02,
    "calls_http": 0.02,
    "descriptors_http": 0.02,
    "cpu_to_yardstick": 0.25,
}
"""By how much a limit is above what was measured. One more task, future, callback or request a command is over it.
Futures and callbacks depend a little on how many messages a pull brings (2.08 to 2.17 futures on a busy
machine); the ratio of two minima of fifteen was 2.4 to 3.3 on a quiet machine, that of five 2.4 to 4.1."""
COMMANDS: Final = 1000
ROUNDS: Final = 15
OF_ONE_PYTHON: Final = ("calls", "calls_sampled_out", "calls_recorded", "calls_plug_in", "calls_http")
_UNITS: Final = {"cpu_to_yardstick": "x"}


async def count(
    *, commands: int = COMMANDS, plug_ins: tuple[str, ...] = (), variables: Mapping[str, str] | None = None
) -> dict[str, float]:
    """What does not depend on the machine: one figure for each name of MARGINS but `cpu_to_yardstick`."""
    settings = dict(variables or {})
    async with rig() as here:
        counted = await count_worker(here, commands, plug_ins=plug_ins, **settings)
        counted["calls_recorded"] = await count_calls(here, commands, kind="recorded", plug_ins=plug_ins, **settings)
        counted["calls_plug_in"] = await count_calls(
            here, commands, kind="clock", plug_ins=("clock", *plug_ins), **settings
        )
        counted["calls_sampled_out"] = await count_calls(here, commands, plug_ins=plug_ins, **SAMPLED_OUT, **settings)
        of_http = await count_http(here, commands // 2, plug_ins=plug_ins, **settings)
    counted.update(calls_http=of_http["calls"], descriptors_http=of_http["descriptors"])
    return {name: counted[name] for name in MARGINS if name in counted}


async def compare(
    *,
    commands: int = COMMANDS,
    rounds: int = ROUNDS,
    plug_ins: tuple[str, ...] = (),
    variables: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """`cpu_to_yardstick`, from rounds in turns."""
    scenario = Scenario(commands=2 * commands, rounds=rounds, plug_ins=plug_ins, variables=dict(variables or {}))
    async with rig() as here:
        return {"cpu_to_yardstick": (await run(here, scenario))["cpu_to_yardstick"]}


def check(found: Mapping[str, float], limits: Mapping[str, Any], python: str, judge: Callable[..., None]) -> None:
    """Judge every figure. `judge` is GateResults.judge; the count of calls belongs to one version of Python."""
    for name in found:
        if name in OF_ONE_PYTHON and limits["calls_of"] != python:
            print(f"note: the limit of {name} is that of Python {limits['calls_of']}, here are {found[name]:,.1f}")
            continue
        unit = _UNITS.get(name, "")
        judge(
            f"worker {name}",
            f"{found[name]:,.2f}{unit}",
            f"<= {limits[name]:,}{unit}",
            holds=found[name] <= limits[name],
        )


def with_limits(text: str, found: Mapping[str, float], python: str) -> str:
    """gates.toml with new limits in its section [worker]; all else as it was."""
    before, head, section = text.partition("[worker]\n")
    if not head:
        raise SystemExit("gates.toml has no section [worker]")
    section, following, after = section.partition("\n[")
    values = {name: f"{found[name] * (1 + margin):.2f}" for name, margin in MARGINS.items()}
    for name, value in {**values, "calls_of": f'"{python}"'}.items():
        section, changed = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", section)
        if changed != 1:
            raise SystemExit(f"gates.toml, section [worker]: `{name} = ` is there {changed} times, and should be once")
    return before + head + section + following + after
