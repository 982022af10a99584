"""Notifications of commands that the plane does not know must not hold up the others."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats

from faults.conftest import Measured
from faults.plug_in import KINDS, install_tools
from faults.scene import Scene, beside_both_planes, scene
from holds import HOLDS_TIMES
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect

KNOWN, UNKNOWN = (900, 100) if HOLDS_TIMES else (90, 10)
NAP = RawCommand("nap", {"seconds": 0.02})
"""The slots are what is short, not the processor: what the machine does besides changes little."""
ROUNDS = 3
"""Pairs at most; the best one counts: a busy machine spoils one, a queue that is held up spoils all."""
SHORT_DELAYS = "noetl_worker.pipeline.delivery.acknowledge:MAX_DELAY_S=1"
"""The six asks stay as they are; for the longest delay between two of them there is no setting."""


async def publish_all(home: Scene, bodies: list[bytes]) -> None:
    async with await nats.connect(home.nats.url) as client:
        for body in bodies:
            await client.publish("noetl.commands", body)
        await client.flush()


def notification(home: Scene, event_id: int, command_id: Any, execution_id: int) -> bytes:
    body = {"execution_id": execution_id, "event_id": event_id, "command_id": command_id, "step": "start"}
    return json.dumps({**body, "server_url": home.plane.url}).encode()


@dataclass(frozen=True)
class Run:
    """How KNOWN commands went."""

    took_s: float
    requests: int
    """Requests that the plane got until the last of them had ended."""


@dataclass(frozen=True)
class Pair:
    alone: Run
    beside: Run

    @property
    def extra(self) -> int:
        """Claims of unknown commands meanwhile."""
        return self.beside.requests - self.alone.requests

    @property
    def bound_s(self) -> float:
        """+10 %, and what those claims cost at the price of a request in this pair: asking is not holding up."""
        return self.alone.took_s * (1.1 + self.extra / self.alone.requests)


async def one_run(home: Scene, unknown: Sequence[int] = (), *, known: int = KNOWN) -> Run:
    """Known commands to their end, published with a notification nobody knows after each ninth."""
    issued = await home.plane.create_commands([NAP] * known, publish=False)
    bodies, left = [], iter(unknown)
    for number, one in enumerate(issued):
        bodies.append(notification(home, one.event_id, one.command_id, one.execution_id))
        if number % 9 == 8 and (event_id := next(left, None)) is not None:
            bodies.append(notification(home, event_id, event_id - 1, 1))
    before, started = home.plane.requests.total(), time.monotonic()
    await publish_all(home, bodies)
    await home.wait_terminal(*(one.event_id for one in issued))
    found = Run(time.monotonic() - started, home.plane.requests.total() - before)
    await home.assert_books(issued)
    return found


async def held_up_nothing(home: Scene, word: str, measured: Measured) -> list[int]:
    """Compare a run with the same one without them; all unknown ones that were published."""
    pairs: list[Pair] = []
    unknown: list[int] = []
    while len(pairs) < ROUNDS and not any(one.beside.took_s <= one.bound_s for one in pairs):
        now = range(10_000 * (len(pairs) + 1), 10_000 * (len(pairs) + 1) + UNKNOWN)
        unknown += now
        pairs.append(Pair(await one_run(home), await one_run(home, now)))
    best = min(pairs, key=lambda one: one.beside.took_s / one.bound_s)
    measured("U", f"{word}: 900 commands alone", best.alone.took_s, "s")
    measured("U", f"{word}: claims of unknown ones meanwhile", best.extra, "")
    measured("U", f"{word}: beside 100 unknown", best.beside.took_s, "s", at_most=best.bound_s)
    return unknown


@beside_both_planes
async def test_unknown_commands_hold_up_nothing_and_are_asked_six_times_at_most(
    dialect: Dialect, tmp_path: Path, measured: Measured
) -> None:
    async with scene(tmp_path, dialect, plane={"extra_kinds": KINDS}) as home:
        worker = await home.start_process(**install_tools(tmp_path, SET=SHORT_DELAYS))
        await one_run(home, known=KNOWN // 10)  # warm
        before = await home.leftovers(worker)
        word, unknown = dialect.value, list(range(10_000, 10_000 + UNKNOWN))
        if HOLDS_TIMES:
            unknown = await held_up_nothing(home, word, measured)
        else:
            await one_run(home, unknown)
        measured("U", f"{word}: most asks for one", max(home.asked[one] for one in unknown), "", at_most=6)
        dead_letters = await home.dead_letters()
        assert all(dead_letter["reason"].startswith("unknown command") for dead_letter in dead_letters)
        kept = sorted(json.loads(dead_letter["notification"])["event_id"] for dead_letter in dead_letters)
        measured("U", f"{word}: unknown without a dead letter", len(unknown) - len(kept), "", exactly=0)
        assert kept == unknown
        await home.assert_holds_no_more(worker, before)
        await home.stop_all()
