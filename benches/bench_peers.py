"""The worker beside other libraries, and itself without compiled packages: peers.json, for docs/performance.md.

bench_peers.py PURE_PYTHON PEERS_PYTHON     the interpreters of two environments, as `make performance` makes them

All of them run at once, with a stream each on the same nats-server, and take turns: who has no commands is idle. What a
peer does for a command is what the yardstick does, by the yardstick's own HTTP client; how a message comes to it and is
acknowledged is the library's own.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import Any, Final

import performance_page
from bench_worker import where_and_when
from rig import rig
from scenario import Scenario, figures_of

NOOP: Final = Scenario(commands=4000, rounds=3)
PEERS: Final = ("faststream", "taskiq")


async def of_noop(pure: str, peers: str) -> dict[str, dict[str, float]]:
    """Best rate and least CPU of each, by its name."""
    async with rig() as here, AsyncExitStack() as stack:
        sides = [
            await stack.enter_async_context(here.worker(NOOP.slots)),
            await stack.enter_async_context(
                here.worker(NOOP.slots, name="pure", python=pure, plug_ins=(), NOETL_WORKER_ENGINE="python")
            ),
            await stack.enter_async_context(here.yardstick(NOOP.slots)),
            *[await stack.enter_async_context(here.peer(name, NOOP.slots, peers)) for name in PEERS],
        ]
        return await figures_of(sides, NOOP)


def versions(python: str) -> dict[str, str]:
    asked = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    names = ("faststream", "taskiq", "taskiq-nats")
    found: dict[str, str] = json.loads(
        subprocess.run([python, "-c", asked, *names], capture_output=True, check=True).stdout
    )
    return found


def main() -> None:
    pure, peers = sys.argv[1:]
    found: dict[str, Any] = {
        **where_and_when(),
        "slots": NOOP.slots,
        "versions": versions(peers),
        "noop": asyncio.run(of_noop(pure, peers)),
    }
    performance_page.keep("peers", found)


if __name__ == "__main__":
    main()
