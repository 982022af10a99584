"""Several readers of one DuckDB file."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from noetl_worker.testing import tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.kinds.duckdb.opening import Opening
from noetl_worker.tools.kinds.duckdb.session import Duckdb
from noetl_worker.tools.process.confinement import UNCONFINED
from noetl_worker.tools.registry import Registry

from .one_template import run_tool

pytest.importorskip("duckdb")

SLOW = "select count(*) as n from range(6000) a, range(6000) b where (a.range * b.range) % 7 = 3"


async def query(text: str, **config: Any) -> dict[str, Any]:
    result = await asyncio.to_thread(run_tool, "duckdb", {"query": text, **config})
    data: dict[str, Any] = result.data
    return data


@pytest.fixture
async def file(file: str) -> str:
    """It has a table."""
    await query("create table t as select 1 as i", database=file)
    return file


async def test_readers_of_a_file_share_nothing(file: str, registry: Registry) -> None:
    async def reader(execution_id: int, text: str) -> Any:
        config = {"query": text, "database": file, "read_only": True}
        return (await registry.run_tool("duckdb", config, tool_context(execution_id=execution_id))).data

    settings = (
        "attach ':memory:' as mine; set memory_limit = '200MB'; set threads = 1; create temp table x as select 1 i;"
    )
    secrets = "create secret mine (type http, bearer_token 'abc'); select count(*) as n from duckdb_secrets();"
    read = (
        "select current_setting('memory_limit') as m, current_setting('threads') as t, current_database() as d, "
        "(select list(database_name order by 1) from duckdb_databases() where not internal) as all, "
        "(select count(*) from duckdb_secrets()) as s, (select i from a.main.t) as i"
    )
    [before] = (await query(read, database=file, read_only=True))["rows"]
    texts = (secrets + SLOW, settings + SLOW, *[SLOW] * 3, f"{SLOW}; {read}")
    *_, after = await asyncio.gather(*(reader(number, text) for number, text in enumerate(texts, start=1)))
    assert after["rows"] == [before]
    assert (before["d"], before["all"], before["s"], before["i"]) == ("a", ["a"], 0, 1)


@pytest.mark.parametrize("name", ["memory.duckdb", "temp.duckdb", 'odd "name".db', "it's.duckdb"])
async def test_reader_calls_a_file_as_its_writer_does(tmp_path: Path, name: str) -> None:
    file = str(tmp_path / name)
    text = "select current_database() as d, current_setting('search_path') as s, i from t"
    await query("create table t as select 1 as i", database=file)
    assert (await query(text, database=file, read_only=True))["rows"] == [
        {**(await query(text, database=file))["rows"][0], "s": ANY},
    ]
    assert (await query("create temp table x as select 2 as i; from x", database=file, read_only=True))["rows"] == [
        {"i": 2}
    ]


async def test_no_process_writes_a_file_while_a_reader_is_left(file: str) -> None:
    write = [sys.executable, "-c", f"import duckdb; duckdb.connect({file!r})"]
    reading = Opening(kind="duckdb", database=file, read_only=True)
    duckdb = Duckdb(UNCONFINED)
    async with duckdb.opened(reading, ToolSettings()) as first:
        async with duckdb.opened(reading, ToolSettings()):
            pass
        refused = await asyncio.to_thread(subprocess.run, write, capture_output=True, check=False)
        assert b"Could not set lock on file" in refused.stderr
        assert await first.execute("t", "select i from t") == [[1]]
    assert (await asyncio.to_thread(subprocess.run, write, check=False)).returncode == 0
    await duckdb.aclose()
