"""SQL keeps DuckDB's processes for ever."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from integration.house import house
from integration.processes import worker_process
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.testing import tool_context
from noetl_worker.tools.registry import Registry

COMMANDS = 8


async def test_sql_that_waits_for_a_pipe_does_not_hold_up_other_commands(registry: Registry, tmp_path: Path) -> None:
    """SQL opens a named pipe that nobody writes to."""
    pytest.importorskip("duckdb")
    pipes = [tmp_path / f"pipe-{number}" for number in range(COMMANDS)]

    async def query(sql: str) -> Any:
        return await registry.run_tool("duckdb", {"query": sql}, tool_context(registry=registry))

    for pipe in pipes:
        os.mkfifo(pipe)
    waiting = [asyncio.ensure_future(query(f"SELECT * FROM read_text('{pipe}')")) for pipe in pipes]
    writers = [await asyncio.to_thread(os.open, pipe, os.O_WRONLY) for pipe in pipes]  # each has come to its pipe
    result = await query("SELECT 1 AS one")
    assert result.data["rows"] == [{"one": 1}]
    assert not any(one.done() for one in waiting)
    for writer in writers:
        os.close(writer)
    await asyncio.gather(*waiting)


async def test_worker_whose_sql_waits_for_a_pipe_ends_when_it_is_stopped(tmp_path: Path) -> None:
    """The same, when the worker stops."""
    pytest.importorskip("duckdb")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    soon = "noetl_worker.models.stopping:TOOL_S=0.5"
    async with house(worker=False) as home, worker_process(home, tmp_path, FAULTS_SET=soon) as worker:
        query = {"query": f"SELECT * FROM read_text('{pipe}')", "timeout": 1}
        [issued] = await home.plane.create_commands([RawCommand("duckdb", query)])
        await home.wait_terminal(issued.event_id)
        assert home.terminal_events(issued.event_id) == ["command.failed"]
        assert await worker.stop() == 0
