"""`noetl-worker failures`: what failed lately, by kind, error and step."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from closed_port import closed_port
from integration.house import House, house
from integration.processes import Ended, typed
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect


async def failures(home: House, *words: str) -> Ended:
    return await asyncio.to_thread(typed, "failures", *words, **home.addresses)


@pytest.mark.parametrize("dialect", Dialect)
async def test_failures_are_grouped_by_kind_error_and_step_with_their_ids(dialect: Dialect) -> None:
    async with house(dialect) as home:
        wanted = [
            *(
                RawCommand("python", {"code": f"raise ValueError('order {number}')"}, step="load")
                for number in range(4)
            ),
            RawCommand("shell", {"command": "exit 3"}, step="copy"),
            RawCommand("noop"),
        ]
        issued = await home.plane.create_commands(wanted, one_execution=False)
        await home.wait_terminal(*(one.event_id for one in issued))
        await home.wait_settled()
        ended = await failures(home, "--json")
        found = json.loads(ended.out)
        shown = await failures(home)
        assert (ended.code, shown.code) == (0, 0)
    groups: dict[str, Any] = {group["step"]: group for group in found["groups"]}
    assert set(groups) == {"load", "copy"}
    assert found["looked_at"] == 6
    assert set(groups["load"]["executions"]) == {str(one.execution_id) for one in issued[:4]}
    assert groups["copy"]["executions"] == [str(issued[4].execution_id)]
    assert "order" in groups["load"]["error"]
    assert "5 of 6 executions of the last 1h failed" in shown.out
    assert "and 1 more (--json)" in " ".join(shown.out.split())


async def test_nothing_failed_is_said_and_retry_says_that_no_plane_has_a_route() -> None:
    async with house() as home:
        await home.ran(RawCommand("noop"))
        ended = await failures(home, "--since", "20m", "--retry")
    assert "0 of 1 executions of the last 20m failed" in ended.out
    assert ended.code == 1
    assert "no control plane has a route that runs an execution again" in ended.err


def test_time_that_is_none_and_nats_that_is_not_there() -> None:
    assert typed("failures", "--since", "soon").code == 2
    assert typed("failures", NATS_URL=f"nats://127.0.0.1:{closed_port()}").code == 3
