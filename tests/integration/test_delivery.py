"""Delivery under trouble: what a review found, each as the behaviour that holds now."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from integration.house import house
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.errors import WorkerBroken
from noetl_worker.models import Dialect
from noetl_worker.worker.recovery import recent_batches
from noetl_worker.worker.worker import Worker
from patience import until

TWO_STEPS = """
metadata: {name: two, path: t/two}
workflow:
  - step: start
    tool: {kind: noop}
    next: {arcs: [{step: second}]}
  - step: second
    tool: {kind: noop}
"""


async def test_batch_that_is_stored_but_never_processed_is_rescued_and_the_playbook_goes_on() -> None:
    async with house() as home:
        home.plane.register_playbook(TWO_STEPS)
        home.plane.batches.fault = "ack_timeout"
        execution_id = await home.plane.execute("t/two")
        await home.plane.wait_until(lambda: bool(home.plane.events(execution_id, "batch.failed")))
        home.plane.batches.fault = None
        assert await home.plane.wait_ended(execution_id) == "COMPLETED"
        steps = {event.node for event in home.plane.events(execution_id, "command.completed")}
        assert steps == {"start", "second"}


async def test_batch_that_a_restarted_plane_has_forgotten_is_rescued_and_the_playbook_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It had answered 202; nothing else ever comes of it (40 of 502 commands; protocol/batches.md#after-the-answer)."""
    monkeypatch.setattr(recent_batches, "CHECK_S", 0.2)
    async with house() as home:
        home.plane.register_playbook(TWO_STEPS)
        home.plane.batches.fault = "restarted"
        execution_id = await home.plane.execute("t/two")
        await home.plane.wait_until(lambda: bool(home.plane.events(execution_id, "command.completed")))
        home.plane.batches.fault = None
        assert await home.plane.wait_ended(execution_id) == "COMPLETED"
        steps = [event.node for event in home.plane.events(execution_id, "command.completed")]
        assert sorted(steps) == ["second", "start"]


async def test_worker_whose_connection_is_closed_for_good_drains_and_says_so() -> None:
    async with house(worker=False) as home:
        worker = await home.start_worker(WORKER_NATS_LAG_POLL_INTERVAL="1")
        assert worker.connection is not None
        await worker.connection.client.close()
        with pytest.raises(WorkerBroken, match="closed the connection for good"):
            await home.run_of(worker)


async def test_draining_worker_is_never_ready_again() -> None:
    async with house(worker=False) as home:
        worker = await home.start_worker(WORKER_NATS_LAG_POLL_INTERVAL="1", NOETL_WORKER_DRAIN_TIMEOUT_S="1000")
        [one] = await home.plane.create_commands([RawCommand("shell", {"command": "sleep 2.5"})])
        await home.plane.wait_until(lambda: home.plane.command(one.event_id).worker_id is not None)
        running = home.run_of(worker)
        worker.request_stop()
        seen: set[tuple[bool, str]] = set()
        while not running.done():
            await asyncio.sleep(0.02)
            seen.add((worker.health.ready, worker.health.reason))
        assert await running == 0
        assert {ready for ready, _ in seen if _ != "pulling"} == {False}
        assert home.terminal_events(one.event_id) == ["command.completed"]


def reconnected(worker: Worker) -> None:
    """What a connection says when it is back."""
    assert worker.connection is not None
    for notify in worker.connection.on_reconnected:
        notify()


async def test_no_more_commands_run_than_there_are_slots_even_when_old_pulls_still_deliver(
    dialect: Dialect, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    async with house(dialect, WORKER_MAX_CONCURRENT="4") as home:
        worker = home.workers[0]
        reconnected(worker)  # the server may still hold the pulls of before
        await until(lambda: bool(worker.puller and worker.puller.outstanding), "a pull that is open")
        reconnected(worker)
        # The tools say themselves when they run: a command whose outcome waits to be told has left its slot.
        command = f"echo 1 >> {notes}; sleep 0.2; echo -1 >> {notes}"
        issued = await home.plane.create_commands([RawCommand("shell", {"command": command})] * 16)
        await home.wait_terminal(*(one.event_id for one in issued))
        most = max(itertools.accumulate(int(line) for line in notes.read_text().split()))
        assert most <= 4
        assert all(len(home.terminal_events(one.event_id)) == 1 for one in issued)
