"""What the Python plane's store is given costs it at most a quarter of a second, or comes alone.

Its stub here counts what the real one does: for each character of what may be the scheme of a link it reads on to the
end of that text (protocol/results.md#redaction).
"""

from __future__ import annotations

import asyncio
import json
import re
from random import Random
from typing import Any

import pytest

import virtual_time
from noetl_worker.errors import NotSent
from noetl_worker.models import Dialect, ToolResult
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.plane.python.store import BUDGET_S, PACKED, unpacked
from unit.planes import URL, After, ScriptedTransport, plane, settings
from unit.reports import STORED, accept, call_done, event_of, puts, report_of, tell

anyio_backend = virtual_time.anyio_backend

RUNS = {"lines": [f"{number:04}" + "x" * 9_996 for number in range(58)]}
"""580 kB that took the real plane longer than 46 s."""
NOISE = Random(7).randbytes(600_000).hex()
"""1.2 MB that take 0.7 MB packed."""


def cost_s(body: Any) -> float:
    """As measured: 46 s for 58 texts of 10 kB, 0.3 s for 580 kB of words."""
    text = json.dumps(body["data"], ensure_ascii=False)
    return sum(len(run) ** 2 for run in re.findall(r"[A-Za-z0-9+.-]+", text)) * 46 / 58e8 + len(text) * 0.3 / 580e3


class Scrubber:
    """The stub: nobody else is answered while it is at a PUT, so its PUTs at the same time are counted."""

    def __init__(self) -> None:
        self.costs: list[float] = []

    def __call__(self, method: str, path: str, body: Any) -> Any:
        given = accept(method, path, body)
        if method != "PUT":
            return given
        self.costs.append(cost_s(body))
        return After(self.costs[-1], given)


async def told(data: Any) -> tuple[Scrubber, ScriptedTransport]:
    """What the plane was sent of a command with this result."""
    stub = Scrubber()
    return stub, await tell(await report_of(data), stub)


HEX = "0123456789abcdef" * 3_750
SHAPES = {
    "small, one long word": {"text": HEX, "count": 1},
    "runs": RUNS,
    "runs that no batch has room for": {"lines": RUNS["lines"] * 5},
    "words": {"text": "a few words " * 48_000, "count": 1},
}


@pytest.mark.parametrize("data", SHAPES.values(), ids=SHAPES)
async def test_result_is_stored_packed_and_unaltered_at_little_cost(data: Any) -> None:
    stub, transport = await told(data)
    [put] = puts(transport)
    assert json.loads(unpacked(put["data"]) or b"") == data
    assert stub.costs[0] < BUDGET_S
    assert put["data"][PACKED].endswith("}}")  # which the real plane takes for code, and does not search
    payload = call_done(transport)
    assert payload["result"]["reference"]["ref"] == STORED["ref"]
    assert "response" not in payload
    assert payload["result"]["context"].get("count") == put["data"].get("count") == data.get("count")


async def test_small_result_of_short_words_stays_in_its_event() -> None:
    stub, transport = await told({"text": f"{HEX[:1_999]} " * 20})
    assert (stub.costs, "reference" in call_done(transport)["result"]) == ([], False)


@pytest.mark.parametrize("failed", [False, True])
async def test_no_part_of_a_cut_field_is_taken_for_the_whole(failed: bool) -> None:
    data = {"text": HEX, "rows": [1, HEX], "in": {"n": 1, "text": HEX}, "small": {"n": [1]}, "none": None}
    result = ToolResult.failure("no " * 400, kind="x", data=data) if failed else ToolResult.success(data)
    _, transport = await told(result)
    context = event_of("call.error" if failed else "call.done", transport)["payload"]["result"]["context"]
    whole = {name: context[name] for name in context if name not in ("status", "error", "error_kind", "retryable")}
    assert whole == {"small": {"n": [1]}, "none": None, "_truncated": True}
    assert ("status" in context, "error" in context) == (failed, failed)


async def test_value_that_a_step_wants_stored_is_packed_and_read_back() -> None:
    at, transport = plane(Scrubber())
    await at.put_result(7, "start", json.dumps(RUNS).encode(), source_step="start")
    [put] = puts(transport)
    assert json.loads(unpacked(put["data"]) or b"") == RUNS
    await at.put_result(7, "start", b'{"n":1}', source_step="start")
    assert puts(transport)[1]["data"] == {"n": 1}


@pytest.mark.parametrize(
    ("dialect", "data", "most"),
    [(Dialect.PYTHON, NOISE, 1), (Dialect.PYTHON, "a few words", 3), (Dialect.RUST, NOISE, 3)],
    ids=["above the budget", "within it", "of the Rust plane"],
)
async def test_results_above_the_budget_are_stored_one_at_a_time(dialect: Dialect, data: Any, most: int) -> None:
    """Of three that are wanted at the same time, so many does the plane have at most."""

    class Counted(ScriptedTransport):
        inside = at_once = 0

        async def send(self, method: str, url: str, headers: Any, body: Any, timeout_s: float) -> Any:
            self.inside += method == "PUT"
            self.at_once = max(self.at_once, self.inside)
            try:
                return await super().send(method, url, headers, body, timeout_s)
            finally:
                self.inside -= method == "PUT"

    transport, packed = Counted(Scrubber()), json.dumps(data).encode()
    at = Plane(ControlPlaneClient(transport, settings()), URL, dialect)
    await asyncio.gather(*(at.put_result(7, "start", packed, source_step="start") for _ in range(3)))
    assert transport.at_once == most


async def test_result_that_waits_for_another_one_for_too_long_is_not_sent() -> None:
    at, transport = plane(Scrubber())
    data = json.dumps(NOISE).encode()
    first = asyncio.ensure_future(at.store_result(7, "start", data, source_step="start"))
    await asyncio.sleep(0.01)
    with pytest.raises(NotSent):
        await at.store_result(7, "start", data, source_step="start", patience_s=0.1)
    assert (await first).status == 200
    assert len(puts(transport)) == 1
