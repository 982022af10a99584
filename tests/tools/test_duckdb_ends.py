"""DuckDB's process at the end of a command: what it uses is free once it has ended, and told is what happened."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.testing import tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.kinds.duckdb.files import hold_lock
from noetl_worker.tools.kinds.duckdb.opening import Opening
from noetl_worker.tools.kinds.duckdb.session import Duckdb
from noetl_worker.tools.process.confinement import UNCONFINED
from noetl_worker.tools.registry import Registry
from patience import until

pytest.importorskip("duckdb")

ENDLESS = "select count(*) from range(1000000000000000) a where sin(a.range) > 0.5"
SPILLING = "set memory_limit = '50MB'; select count(distinct i) from range(10000000000) r(i)"


@pytest.fixture
async def duckdb() -> AsyncIterator[Duckdb]:
    made = Duckdb(UNCONFINED)
    yield made
    await made.aclose()


def running(registry: Registry, file: str, query: str = ENDLESS, **config: Any) -> asyncio.Future[Any]:
    given = {"query": f"create or replace table begun as select 1; {query}", "database": file, **config}
    return asyncio.ensure_future(registry.run_tool("duckdb", given, tool_context(registry=registry)))


async def begun(file: str) -> None:
    """The file is there once its process has it open."""
    await until(lambda: Path(file).exists(), "the database")


def process_of(file: str) -> int | None:
    """The process that has this database open."""
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(one.readlink() == Path(file) for one in (directory / "fd").iterdir()):
                return int(directory.name)
    return None


async def test_cancelled_command_has_let_go_of_its_file(file: str, registry: Registry) -> None:
    call = running(registry, file)
    await begun(file)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    result = await registry.run_tool("duckdb", {"query": "select 1 as a", "database": file}, tool_context())
    assert result.data["rows"] == [{"a": 1}]


async def test_command_that_is_cut_off_leaves_no_temporary_file(file: str, registry: Registry) -> None:
    call = running(registry, file, SPILLING)
    await until(lambda: any(Path(file).parent.glob("*.tmp/*")), "a temporary file")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert [one.name for one in Path(file).parent.glob("*.tmp")] == []


async def test_turn_of_a_file_is_over_once_its_process_has_ended(file: str, registry: Registry) -> None:
    call = running(registry, file)
    await until(lambda: process_of(file) is not None, "the process of the command")
    call.cancel()
    async with hold_lock(file, read_only=False):
        assert process_of(file) is None
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_cancellation_that_meets_the_turn_of_a_file_is_not_lost(file: str, registry: Registry) -> None:
    """asyncio.wait_for loses it around the turn alone, up to Python 3.11: the statements ran to their end."""
    for steps in range(6):
        async with hold_lock(file, read_only=False):
            call = running(registry, file, "select 1")
            await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGSEGV, "process"), (signal.SIGKILL, "resource"), (signal.SIGABRT, "resource")]
)
async def test_death_of_the_process_fails_its_command_alone(
    file: str, registry: Registry, number: signal.Signals, kind: str
) -> None:
    call = running(registry, file)
    await until(lambda: process_of(file) is not None, "the process of the command")
    neighbour = running(registry, f"{file}.other.duckdb", "select 7 as n")
    process = process_of(file)
    assert process is not None
    os.kill(process, number)
    with pytest.raises(ToolError, match=rf"duckdb: the process of DuckDB was killed by {number.name}") as caught:
        await call
    assert (caught.value.kind, caught.value.retryable) == (kind, False)
    assert (await neighbour).data["rows"] == [{"n": 7}]


# ── step by step, as a transfer has it ──────────────────────────────────────────────────────────


async def test_step_that_is_cancelled_ends_its_process_and_undoes_its_transaction(file: str, duckdb: Duckdb) -> None:
    async def steps() -> None:
        async with duckdb.opened(Opening("transfer", file), ToolSettings()) as session:
            await session.execute("t", "create table t (i int)")
            await session.execute("t", "begin")
            await session.execute("t", "insert into t values (1)")
            at_its_end.set()
            await session.execute("t", ENDLESS)

    at_its_end = asyncio.Event()
    call = asyncio.ensure_future(steps())
    await at_its_end.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with duckdb.opened(Opening("transfer", file), ToolSettings()) as session:
        assert await session.execute("t", "from t") == []


async def test_failure_between_two_steps_closes_the_file_in_good_order(file: str, duckdb: Duckdb) -> None:
    async def steps() -> None:
        async with duckdb.opened(Opening("transfer", file), ToolSettings()) as session:
            await session.execute("t", "create table t as select 1 as i")
            raise ToolError("of its own")

    with pytest.raises(ToolError, match="of its own"):
        await steps()
    assert [one.name for one in Path(file).parent.iterdir()] == [Path(file).name]


async def test_step_that_fails_is_told_and_the_next_one_goes_on(duckdb: Duckdb) -> None:
    async with duckdb.opened(Opening("transfer"), ToolSettings()) as session:
        with pytest.raises(ToolError, match="what it is for: ") as caught:
            await session.execute("what it is for", "select nothing")
        assert caught.value.kind == "db_syntax"
        assert await session.execute("t", "select 1") == [[1]]


async def test_rows_beyond_one_answer_come_in_several(duckdb: Duckdb) -> None:
    async with duckdb.opened(Opening("transfer"), ToolSettings()) as session:
        query = "select repeat('x', 3000000) as x from range(10)"
        assert await session.select("s", query) == [("x", "VARCHAR")]
        rows = await session.fetch("s", 10)
        assert ([len(row[0]) for row in rows], await session.fetch("s", 10)) == ([3_000_000] * 10, [])


async def test_opening_that_fails_leaves_no_process(duckdb: Duckdb, tmp_path: Path) -> None:
    file = str(tmp_path / "none" / "a.duckdb")
    for _ in range(3):
        with pytest.raises(ToolError, match=f"Failed to open database '{file}'"):
            async with duckdb.opened(Opening("transfer", file), ToolSettings()):
                raise AssertionError("it is not opened")
    async with duckdb.opened(Opening("transfer"), ToolSettings()) as session:
        assert await session.execute("t", "select 1") == [[1]]
