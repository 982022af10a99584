"""A command of each kind that can run here, by this worker and the published one: kinds.json, for docs/performance.md.

The published worker is measured where `make compat-values` has installed it. Sides take turns; each command is claimed
from a plane that answers after 1 ms, and so does the server that `http` asks.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import performance_page
from bench_worker import where_and_when
from compat.postgres_server import PostgresServer
from compat.published_worker import PROGRAM, VERSION
from load import quantiles
from measured_process import pss_mb
from rig import Rig, Side, rig
from stub_plane import Answers

SLOTS: Final = 16
DELAY_MS: Final = 1.0
ROUNDS: Final = 3
COMMANDS: Final = {
    "noop": 2000,
    "http": 2000,
    "http, 400/s": 1200,
    "http, 1 MB": 200,
    "http, 10 MB": 40,
    "postgres": 1000,
    "duckdb": 400,
    "task_sequence": 1000,
    "python": 400,
    "shell": 400,
}
"""In each round."""
RATES: Final = {"http, 400/s": 400.0}
"""Commands a second, which every side can do; the others are sent at once."""


def configs(stub_url: str, postgres_port: int) -> dict[str, dict[str, Any]]:
    """What both workers take. Kinds of `http` first: what ran before changes how a process gives memory back."""
    server = {"host": "127.0.0.1", "port": postgres_port, "user": "postgres", "database": "postgres"}
    return {
        "noop": {},
        "http": {"url": f"{stub_url}/api/health"},
        "http, 400/s": {"url": f"{stub_url}/api/health"},
        "http, 1 MB": _got_and_left(f"{stub_url}/text/{10**6}"),
        "http, 10 MB": _got_and_left(f"{stub_url}/text/{10**7}"),
        "postgres": {**server, "query": "SELECT 1 AS one"},
        "duckdb": {"query": "SELECT 1 AS one"},
        "task_sequence": {"tasks": [{"first": {"kind": "noop"}}, {"second": {"kind": "noop"}}]},
        "python": {"code": "result = {'n': 1}"},
        "shell": {"command": "true"},
    }


def _got_and_left(url: str) -> dict[str, Any]:
    """A request within a list of tasks, the last of which answers: what it got is not sent to the plane."""
    return {"tasks": [{"got": {"kind": "http", "url": url}}, {"left": {"kind": "noop"}}]}


@asynccontextmanager
async def sides_of(here: Rig) -> AsyncIterator[list[Side]]:
    async with AsyncExitStack() as stack:
        sides = [await stack.enter_async_context(here.worker(SLOTS))]
        if PROGRAM.exists():
            sides.append(await stack.enter_async_context(here.published(SLOTS, PROGRAM)))
        yield sides


async def one_round(side: Side, answers: Answers, commands: int, rate: float | None) -> dict[str, float]:
    before = side.cpu_s()
    sent = await side.load.send(answers, commands, rate=rate, timeout_s=600)
    cpu_us = (side.cpu_s() - before) / commands * 1e6
    return {"commands_per_s": commands / sent.seconds, "cpu_us": cpu_us, **quantiles(sent.spans_ms)}


async def in_turns(
    sides: Sequence[Side], answers: Answers, commands: int, rate: float | None
) -> dict[str, dict[str, float]]:
    """By side: the best rate, the least CPU, the round with the least p99, and the memory at the end."""
    able: list[Side] = []
    for side in sides:
        try:
            await side.load.send(answers, max(SLOTS, commands // 10))  # warm
            able.append(side)
        except RuntimeError as error:
            print(f"{answers.kind}: {error}", file=sys.stderr, flush=True)
    found: dict[str, list[dict[str, float]]] = {side.name: [] for side in able}
    for _ in range(ROUNDS):
        for side in able:
            found[side.name].append(await one_round(side, answers, commands, rate))
    return {side.name: {**_best(found[side.name]), "pss_mb": pss_mb(side.pid)} for side in able}


def _best(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    calmest = min(rounds, key=lambda one: one["p99"])
    return {
        "commands_per_s": max(one["commands_per_s"] for one in rounds),
        "cpu_us": min(one["cpu_us"] for one in rounds),
        "p50_ms": calmest["p50"],
        "p99_ms": calmest["p99"],
    }


async def of_kinds() -> dict[str, dict[str, dict[str, float]]]:
    with PostgresServer() as postgres:
        async with rig() as here, sides_of(here) as sides:
            found = {}
            for kind, config in configs(here.stub_url, postgres.port).items():
                print(kind, file=sys.stderr, flush=True)
                answers = Answers(DELAY_MS, "task_sequence" if "tasks" in config else kind.split(",")[0], config)
                found[kind] = await in_turns(sides, answers, COMMANDS[kind], RATES.get(kind))
            return found


def main() -> None:
    found = {
        **where_and_when(),
        "slots": SLOTS,
        "delay_ms": DELAY_MS,
        "published": VERSION,
        "kinds": asyncio.run(of_kinds()),
    }
    performance_page.keep("kinds", found)


if __name__ == "__main__":
    main()
