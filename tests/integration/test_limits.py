"""What bounds a command from outside: its execution is cancelled, its kind is full, its worker dies in an outage."""

from __future__ import annotations

from pathlib import Path

import httpx

from faults.scene import beside_both_planes
from integration.house import House, house, noops
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect
from patience import PATIENCE_S, until


async def cancel(home: House, execution_id: int) -> None:
    async with httpx.AsyncClient(verify=False) as client:
        answer = await client.post(f"{home.plane.url}/api/executions/{execution_id}/cancel", json={"reason": "a test"})
    assert answer.status_code == 200, answer.text


@beside_both_planes
async def test_cancelled_execution_stops_its_running_tool_and_is_told_as_cancelled(
    dialect: Dialect, tmp_path: Path
) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    async with house(dialect, WORKER_ID="w") as home:
        config = {"command": f"touch {started}; sleep 1000; touch {ended}"}
        [issued] = await home.plane.create_commands([RawCommand("shell", config)])
        await until(started.exists, "the tool runs")
        await cancel(home, issued.execution_id)
        await home.wait_terminal(issued.event_id)
        assert home.terminal_events(issued.event_id) == ["command.failed"]
        [error] = home.plane.events_of_command(issued.event_id, "call.error")
        assert "cancelled" in str(error)
        await until(lambda: home.workers[0].slots.used == 0, "the slot is free")
        await home.wait_settled()
    assert not ended.exists()


async def test_kind_with_a_limit_never_runs_more_and_others_pass(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    counted = tmp_path / "counted"
    # Each command puts its own file into the directory, writes down how many are there, and takes it out again.
    script = f"touch {inside}/$$; ls {inside} | wc -l >> {counted}; sleep 0.15; rm {inside}/$$"
    limits = {"WORKER_MAX_CONCURRENT": "4", "NOETL_WORKER_KIND_LIMITS": "shell=2"}
    async with house(Dialect.PYTHON, **limits) as home:
        limited = [RawCommand("shell", {"command": script}) for _ in range(8)]
        await home.ran(*limited, *noops(8))
    counts = [int(line) for line in counted.read_text().split()]
    assert len(counts) == 8
    assert max(counts) == 2


def chained(name: str, tool: str) -> str:
    return f"""
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: {name}, path: tests/{name}}}
workflow:
  - step: start
    tool: {tool}
"""


async def test_parents_that_wait_for_their_children_leave_them_the_whole_worker() -> None:
    """Parent, child and grandchild wait for one another; each but the last would need all that there is of its kind."""
    waits = "{{kind: playbook, path: tests/{child}, return_result: true, poll_interval: 0.05, timeout: 1000}}"
    async with house(Dialect.PYTHON, WORKER_MAX_CONCURRENT="2", NOETL_WORKER_KIND_LIMITS="playbook=1") as home:
        home.plane.register_playbook(chained("last", "{kind: noop}"))
        for name, child in (("middle", "last"), ("first", "middle")):
            home.plane.register_playbook(chained(name, waits.format(child=child)))
        execution_id = await home.plane.execute("tests/first")
        assert await home.plane.wait_ended(execution_id, timeout_s=PATIENCE_S) == "COMPLETED"
        await home.wait_settled()
        assert home.workers[0].slots.used == 0
