"""The benchmark of the worker: a real nats-server, a stub plane, the worker and the yardstick, each a process.

bench_worker.py run [options]   one scenario; JSON on standard output
bench_worker.py write           all scenarios of docs/performance.md: writes performance.json and that page (minutes)
bench_worker.py page            writes the page again from performance.json

CPU is that of the worker and of all that it starts, user and system; nothing of NATS, plane and load is in it. Rates
are those of one machine on which all of them run.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import performance_page
from counts import count_calls, count_worker, count_yardstick
from faults.figures import machine_class
from performance_page import rounded
from rig import rig
from scenario import KINDS, SAMPLED_OUT, Scenario, in_turns, run

ROOT: Final = Path(__file__).resolve().parents[1]
SCENARIOS: Final[dict[str, tuple[Scenario, ...]]] = {
    "noop": (Scenario(commands=5000, idle_s=5, paced_s=3),),
    "rate": tuple(Scenario(commands=1000, paced_s=3, rate=rate) for rate in (500, 1000, 2000)),
    "recorded": (Scenario(kind="recorded", commands=5000),),
    "delay": tuple(Scenario(commands=8000, slots=256, delay_ms=delay) for delay in (0, 5, 20)),
    "in_flight": tuple(
        Scenario(commands=commands, slots=slots)
        for slots, commands in ((1, 1000), (16, 4000), (128, 5000), (500, 5000))
    ),
    "context": tuple(
        Scenario(commands=commands, slots=16, context_bytes=size)
        for size, commands in ((1_000, 4000), (10_000, 4000), (100_000, 1000), (1_000_000, 200))
    ),
    "result": tuple(
        Scenario(commands=commands, slots=16, result_bytes=size, yardstick=False)
        for size, commands in ((1_000, 4000), (10_000, 2000), (50_000, 1000))
    ),
    "kinds": (
        Scenario(kind="python", commands=1500, slots=4, yardstick=False),
        Scenario(kind="python", commands=500, slots=1, paced_s=5, rate=20, yardstick=False),
        Scenario(kind="shell", commands=1500, slots=4, yardstick=False),
    ),
    "processes": tuple(
        Scenario(
            commands=2500 * processes,
            rounds=5,
            slots=16,
            delay_ms=20,
            yardstick=False,
            variables={"NOETL_WORKER_PROCESSES": f"{processes}"},
        )
        for processes in (1, 2)
    ),
}
"""What docs/performance.md shows, by its tables."""
TRACES: Final = tuple(
    Scenario(commands=5000, rounds=15, yardstick=False, variables=variables) for variables in ({}, SAMPLED_OUT)
)
"""Off, then on and sampled out."""
COUNTED: Final = 2000


def where_and_when() -> dict[str, Any]:
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    return {
        "machine": ", ".join(filter(None, [machine_class(), model])),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "load_average_before": os.getloadavg()[0],
    }


def _commit() -> str:
    """Empty where there is no git or no repository: in an unpacked sdist."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


async def _one(scenario: Scenario) -> dict[str, Any]:
    async with rig() as here:
        return await run(here, scenario)


async def _all() -> dict[str, Any]:
    """Everything that the page shows."""
    found: dict[str, Any] = {**where_and_when(), "tables": {}}
    async with rig() as here:
        for table, scenarios in SCENARIOS.items():
            if table == "processes":  # the last of all: it gives way for good
                continue
            for scenario in scenarios:
                print(f"{table}: {scenario}", file=sys.stderr, flush=True)
            found["tables"][table] = [await run(here, one) for one in scenarios]
        found["traces"] = await in_turns(TRACES)
        found["counts"] = {
            "worker": await count_worker(here, COUNTED),
            "yardstick": await count_yardstick(here, COUNTED),
            "recorded": await count_calls(here, COUNTED, kind="recorded"),
        }
    found["tables"]["processes"] = await _processes()
    return found


async def _processes() -> list[dict[str, Any]]:
    """One worker and two of one supervisor, in turns: it is their ratio that counts."""
    return await in_turns(SCENARIOS["processes"], give_way=True)


def _scenario(options: argparse.Namespace) -> Scenario:
    given = {
        field.name: getattr(options, field.name) for field in dataclasses.fields(Scenario) if field.name in options
    }
    return Scenario(**{**given, "variables": dict(pair.split("=", 1) for pair in options.variables)})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="one scenario", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    default = Scenario()
    one.add_argument("--kind", choices=KINDS, default=default.kind, help="what the commands do")
    one.add_argument("--commands", type=int, default=default.commands, help="in each round")
    one.add_argument("--rounds", type=int, default=default.rounds, help="worker and yardstick take turns")
    one.add_argument("--slots", type=int, default=default.slots, help="commands at the same time")
    one.add_argument("--delay-ms", type=float, default=default.delay_ms, help="how long the plane takes for an answer")
    one.add_argument("--context-bytes", type=int, default=default.context_bytes, help="size of a command's context")
    one.add_argument("--result-bytes", type=int, default=default.result_bytes, help="size of a tool's result")
    one.add_argument("--idle-s", type=float, default=2.0, help="how long the idle worker is watched")
    one.add_argument("--paced-s", type=float, default=2.0, help="how long tool starts are timed")
    one.add_argument("--rate", type=float, default=default.rate, help="commands/s for that; 0: half of what it can")
    one.add_argument("--no-yardstick", dest="yardstick", action="store_false", help="the worker alone")
    one.add_argument("--set", dest="variables", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    commands.add_parser("processes", help="one worker and two processes of one supervisor, in turns")
    commands.add_parser("write", help="all scenarios, performance.json and docs/performance.md")
    commands.add_parser("page", help="docs/performance.md from performance.json")
    return parser


def main() -> None:
    options = _parser().parse_args()
    if options.command == "run":
        print(json.dumps(rounded({**where_and_when(), **asyncio.run(_one(_scenario(options)))}), indent=1))
    elif options.command == "processes":
        print(json.dumps(rounded(asyncio.run(_processes())), indent=1))
    elif options.command == "write":
        performance_page.keep("performance", asyncio.run(_all()))
    else:
        performance_page.write()


if __name__ == "__main__":
    main()
