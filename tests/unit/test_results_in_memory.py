"""A result that the Python plane's store could not take, and that one of its servers has in memory alone.

The store answers 200 with `store: "memory"` then; a restart of that server loses the result, and no other one has it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from noetl_worker.models import Dialect
from noetl_worker.observability.step_log import Warned
from unit.planes import answer
from unit.reports import STORED, accept, call_done, report_of, tell

FITS = {"rows": [[i, "a word " * 20] for i in range(2_000)]}
TOO_LARGE = {"rows": [[i, "a word " * 20] for i in range(14_000)]}
"""An event has 500 kB of a result beside its reference."""


async def done(
    data: Any, store: str, dialect: Dialect = Dialect.PYTHON, warned: Warned | None = None, **changes: Any
) -> dict[str, Any]:
    """The payload of `call.done` of a command whose result is stored there."""

    def script(method: str, path: str, body: Any) -> Any:
        return answer(200, {**STORED, "store": store}) if method == "PUT" else accept(method, path, body)

    report = await report_of(data, dialect, **changes)
    payload: dict[str, Any] = call_done(await tell(report, script, dialect=dialect, warned=warned, **changes))
    assert payload["result"]["reference"]["ref"] == STORED["ref"]
    return payload


def warnings(lines: list[Any]) -> list[tuple[str, str]]:
    found = [line for line in lines if line["event"] == "result_stored_in_memory"]
    assert all("Let the step return less" in line["advice"] for line in found)
    return [(line["step"], line["log_level"]) for line in found]


async def test_result_in_the_memory_of_one_server_is_in_the_event_too() -> None:
    with capture_logs() as lines:
        assert (await done(FITS, "memory"))["response"] == FITS
    assert warnings(lines) == [], "nothing is lost with it"


@pytest.mark.parametrize("store", ["kv", "s3"])
async def test_large_result_that_is_stored_for_all_servers_is_not(store: str) -> None:
    with capture_logs() as lines:
        assert "response" not in await done(TOO_LARGE, store)
    assert warnings(lines) == []


async def test_one_that_the_event_has_no_room_for_is_a_warning_for_each_playbook_and_step() -> None:
    assert len(json.dumps(TOO_LARGE)) > 2 * 1024 * 1024
    warned = Warned()
    with capture_logs() as lines:
        for step, catalog_id in [("start", "9"), ("start", "9"), ("next", "9"), ("start", "10"), ("next", "9")]:
            payload = await done(TOO_LARGE, "memory", warned=warned, step=step, catalog_id=catalog_id)
            assert "response" not in payload
    levels = ["warning", "debug", "warning", "warning", "debug"]
    assert warnings(lines) == list(zip(["start", "start", "next", "start", "next"], levels, strict=True))
