"""What the Python plane's store is given costs it at most a quarter of a second, or comes alone.

Its stub here counts what the real one does: for each character of what may be the scheme of a link it reads on to the
end of that text (protocol/results.md#redaction).
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

import virtual_time
from noetl_worker.errors import ControlPlaneError, NotSent
from noetl_worker.models import Dialect
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.plane.python.store import BUDGET_S, unpacked
from unit.planes import URL, After, ScriptedTransport, plane, settings
from unit.reports import STORED, accept, call_done, puts, report_of, tell

anyio_backend = virtual_time.anyio_backend

RUNS = {"lines": [f"{number:04}" + "x" * 9_996 for number in range(58)]}
"""580 kB that took the real plane longer than 46 s."""
WORDS = {"text": "a few words " * 48_000}


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


async def test_result_of_many_unbroken_texts_goes_into_the_event_as_it_is() -> None:
    stub, transport = await told(RUNS)
    payload = call_done(transport)
    assert stub.costs == []
    assert payload["response"] == RUNS
    assert "reference" not in payload["result"]


async def test_result_of_many_unbroken_texts_that_no_batch_has_room_for_is_stored_packed_and_unaltered() -> None:
    data = {"lines": RUNS["lines"] * 5}
    stub, transport = await told(data)
    [put] = puts(transport)
    assert json.loads(unpacked(put["data"]) or b"") == data
    assert stub.costs[0] < BUDGET_S


async def test_result_of_words_of_the_same_size_is_stored() -> None:
    stub, transport = await told(WORDS)
    assert len(stub.costs) == 1
    assert call_done(transport)["result"]["reference"]["ref"] == STORED["ref"]


async def test_step_that_wants_many_unbroken_texts_stored_is_told_their_size_and_what_to_do() -> None:
    at, transport = plane(Scrubber())
    data = json.dumps(RUNS).encode()
    with pytest.raises(ControlPlaneError) as raised:
        await at.put_result(7, "start", data, source_step="start")
    assert f"{len(data)} bytes" in str(raised.value)
    assert "up to 10000 bytes" in str(raised.value)
    assert "Break them into lines" in str(raised.value)
    assert transport.sent == []


@pytest.mark.parametrize(
    ("dialect", "data", "most"),
    [(Dialect.PYTHON, WORDS, 1), (Dialect.PYTHON, "a few words", 3), (Dialect.RUST, WORDS, 3)],
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
    data = json.dumps(WORDS).encode()
    first = asyncio.ensure_future(at.store_result(7, "start", data, source_step="start"))
    await asyncio.sleep(0.01)
    with pytest.raises(NotSent):
        await at.store_result(7, "start", data, source_step="start", patience_s=0.1)
    assert (await first).status == 200
    assert len(puts(transport)) == 1
