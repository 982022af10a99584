"""Which database a command of kind `duckdb` works in: files, scopes and turns."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import arun_tool, tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.kinds.duckdb import files as duckdb_files
from noetl_worker.tools.registry import Registry
from patience import PATIENCE_S
from tool_settings import tool_settings

from .databases import query
from .one_template import run_tool

pytest.importorskip("duckdb")


def test_database_file_is_kept(file: str) -> None:
    query("create table t as select 1 as i", db_path=file)
    assert query("select i from t", database=file)["rows"] == [{"i": 1}]


@pytest.mark.parametrize("config", [{}, {"database": ":memory:shared"}], ids=["no-database", "named"])
def test_memory_is_not_shared_between_commands(config: dict[str, Any]) -> None:
    query("create table t as select 1 as i", **config)
    with pytest.raises(ToolError, match="Table with name t does not exist"):
        query("select i from t", **config)


@pytest.fixture
def scoped(tmp_path: Path) -> ToolSettings:
    return tool_settings(NOETL_DATA_DIR=str(tmp_path / "data"))


def in_execution(scoped: ToolSettings, execution_id: int, text: str, **config: Any) -> Any:
    result = run_tool("duckdb", {"query": text, **config}, execution_id=execution_id, settings=scoped)
    return result.data["rows"]


def test_data_directory_keeps_the_tables_of_each_execution_apart(scoped: ToolSettings) -> None:
    in_execution(scoped, 7, "create table t as select 'seven' as v")
    in_execution(scoped, 8, "create table t as select 'eight' as v")
    assert in_execution(scoped, 7, "select v from t") == [{"v": "seven"}]
    assert in_execution(scoped, 8, "select v from t") == [{"v": "eight"}]
    assert sorted(path.name for path in (Path(scoped.data_dir) / "noetldb").iterdir()) == [
        "duckdb_7.duckdb",
        "duckdb_8.duckdb",
    ]
    assert in_execution(scoped, 7, "select 1 as a", database=":memory:") == [{"a": 1}]


async def test_parallel_commands_of_one_execution_take_turns(scoped: ToolSettings, registry: Registry) -> None:
    context = tool_context(registry=registry, execution_id=9, settings=scoped)
    start = "create table if not exists log(n int); attach ':memory:' as side; create table side.t as select 1"
    calls = [
        registry.run_tool("duckdb", {"query": [start, f"insert into log values ({n})"]}, context) for n in range(8)
    ]
    await asyncio.gather(*calls)
    result = await registry.run_tool("duckdb", {"query": "select count(*) as n from log"}, context)
    assert result.data["rows"] == [{"n": 8}]
    assert not any(isinstance(one, asyncio.Condition) for one in gc.get_objects()), "nothing is kept of a turn"


async def test_waiting_for_a_turn_counts_as_the_commands_time(file: str, registry: Registry) -> None:
    context = tool_context(registry=registry)
    async with duckdb_files.hold_lock(file, read_only=False):
        config = {"query": "select 1", "database": file}
        result = await registry.run_tool("duckdb", {**config, "timeout": 0.1}, context)
        assert result.status is ToolStatus.TIMEOUT
    assert (await registry.run_tool("duckdb", config, context)).status is ToolStatus.SUCCESS


async def test_readers_of_a_file_have_it_together(file: str, registry: Registry) -> None:
    await arun_tool("duckdb", {"query": "create table t as select 1 as i", "database": file})
    config = {"query": "select i from t", "database": file, "read_only": True, "timeout": PATIENCE_S}
    async with duckdb_files.hold_lock(file, read_only=True):
        result = await registry.run_tool("duckdb", config, tool_context(registry=registry))
    assert result.status is ToolStatus.SUCCESS
    with pytest.raises(ToolError, match="read-only"):
        await arun_tool("duckdb", {"query": "insert into t values (2)", "database": file, "read_only": True})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"database": "DIR"}, "duckdb: 'database': 'DIR' is no regular file: name one"),
        ({"database": "DIR", "read_only": True}, "duckdb: 'database': 'DIR' is no regular file: name one"),
        (
            {"database": "DIR/none.duckdb", "read_only": True},
            "duckdb: there is no database file 'DIR/none.duckdb' to read: name another one",
        ),
        (
            {"read_only": True},
            "duckdb: 'read_only' needs a database file: name one in 'database', or leave 'read_only' out",
        ),
    ],
)
def test_database_that_cannot_be_is_a_mistake_of_the_config(tmp_path: Path, config: Any, message: str) -> None:
    given = {
        name: value.replace("DIR", str(tmp_path)) if name == "database" else value for name, value in config.items()
    }
    with pytest.raises(ConfigurationError) as caught:
        query("select 1", **given)
    assert str(caught.value) == message.replace("DIR", str(tmp_path))


@pytest.mark.parametrize("read_only", [False, True])
def test_file_that_another_process_writes_is_waited_for(file: str, read_only: bool) -> None:
    code = f"import duckdb, sys; c = duckdb.connect({file!r}); print('open', flush=True); sys.stdin.readline()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        timer = threading.Timer(0.3, lambda: other.communicate("\n"))
        result = run_tool("duckdb", {"query": "select 1", "database": file, "timeout": 0.2})
        assert result.status is ToolStatus.TIMEOUT
        timer.start()
        assert query("select 1 as a", database=file, read_only=read_only)["rows"] == [{"a": 1}]
        timer.join()


def test_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = tool_settings(NOETL_DATA_DIR=str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match=r"NOETL_DATA_DIR=.* cannot be used: "):
        run_tool("duckdb", {"query": "select 1"}, settings=settings)
