"""What a stop does in each stage of a delivery, and that all of it fits into the time a pod is given."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

import virtual_time
from noetl_worker.models import stopping
from noetl_worker.models.stopping import StopLevel, Stopping
from noetl_worker.pipeline.stages import Progress, Stage
from noetl_worker.remote.jetstream import connection
from noetl_worker.settings.settings import load_settings
from noetl_worker.worker.deliveries import CANCEL_TIMEOUT_S

OPERATE = Path(__file__, "../../../docs/operate.md").resolve()


anyio_backend = virtual_time.anyio_backend


async def stopped_in(stage: Stage, *, is_issuing: bool = False, goes_on_s: float = 0.0) -> tuple[str, list[str]]:
    """How the work ends that is stopped in this stage: done or cut, and whether its tool was interrupted."""
    interrupted: list[str] = []
    progress = Progress()

    async def work() -> str:
        progress.enter(stage, interrupt=lambda: interrupted.append("tool"), is_issuing=lambda: is_issuing)
        try:
            await asyncio.sleep(goes_on_s)
            return "done"
        except asyncio.CancelledError as stop:
            progress.absorb(stop)
            return "cut"

    task = progress.task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    progress.stop()
    return await task, interrupted


@pytest.mark.parametrize("stage", [Stage.PREPARING, Stage.WAITING])
async def test_nothing_has_happened_yet_so_its_wait_is_cut_at_once(stage: Stage) -> None:
    assert await stopped_in(stage, goes_on_s=600) == ("cut", [])


@pytest.mark.parametrize("stage", [Stage.CLAIMING, Stage.REPORTING])
async def test_a_request_that_is_under_way_has_its_budget_and_is_cut_after_it(stage: Stage) -> None:
    assert await stopped_in(stage, goes_on_s=0) == ("done", [])
    assert await stopped_in(stage, goes_on_s=600) == ("cut", [])


async def test_a_running_tool_is_interrupted_and_its_task_is_not_cancelled() -> None:
    assert await stopped_in(Stage.RUNNING, goes_on_s=600) == ("done", ["tool"])


@pytest.mark.parametrize("stage", [Stage.RECEIVING, Stage.ANSWERING])
async def test_what_ends_by_itself_is_left_alone(stage: Stage) -> None:
    assert await stopped_in(stage, goes_on_s=600) == ("done", [])


async def test_an_end_that_issues_commands_outlasts_its_budget() -> None:
    assert await stopped_in(Stage.REPORTING, is_issuing=True, goes_on_s=600) == ("done", [])


async def test_an_answer_to_jetstream_is_never_cut_in_half() -> None:
    progress = Progress()
    task = progress.task = asyncio.ensure_future(asyncio.sleep(0))
    progress.enter(Stage.ANSWERING)
    progress.cut()
    await task
    assert progress.is_cut is False


def test_a_cancellation_of_somebody_else_is_not_taken_for_a_stop() -> None:
    with pytest.raises(asyncio.CancelledError):
        Progress().absorb(asyncio.CancelledError())


async def test_levels_of_a_stop_only_grow_and_end_the_waits_below_them() -> None:
    asked = Stopping()
    waiting = asyncio.ensure_future(asked.sleep(60))
    asked.reach(StopLevel.HARD)
    await asyncio.wait_for(waiting, 1)
    asked.reach(StopLevel.DRAIN)
    assert asked.is_hard
    assert asked.is_draining


def test_all_budgets_of_a_stop_fit_into_the_grace_that_operate_asks_of_a_pod() -> None:
    found = re.search(r"terminationGracePeriodSeconds: (\d+)", OPERATE.read_text(encoding="utf-8"))
    assert found is not None
    put_away_s = stopping.KEEPALIVE_S + connection.CLOSE_S
    assert load_settings({}).drain_timeout_s + CANCEL_TIMEOUT_S + put_away_s <= int(found.group(1))
    assert max(stopping.CLAIM_S, stopping.TOOL_S + stopping.REPORT_S) <= CANCEL_TIMEOUT_S
