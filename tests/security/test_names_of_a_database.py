"""One database file under several names, two tenants in one DuckDB."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.testing import tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.kinds.duckdb.opening import Opening
from noetl_worker.tools.kinds.duckdb.session import Duckdb
from noetl_worker.tools.process.confinement import UNCONFINED
from noetl_worker.tools.registry import Registry
from tool_settings import tool_settings
from tools.one_template import run_tool

from .commands import placed

pytest.importorskip("duckdb")

NAMES = [
    "{there}/x.duckdb",
    "file:{there}/x.duckdb",
    "file://{there}/x.duckdb",
    "file:///{there}/x.duckdb",
    "file://localhost{there}/x.duckdb",
    "/{there}/./x.duckdb",
    "{there}/a://../x.duckdb",
    "file://{there}/a/../x.duckdb",
    "{there}/link/x.duckdb",
    "{there}/link.duckdb",
    "~/x.duckdb",
    "x.duckdb",
    "./a/../x.duckdb",
]


TARGET = {"type": "duckdb", "database": "{there}/target.duckdb", "table": "t"}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with ways to itself; the home and the working one."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a:").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "link.duckdb").symlink_to(tmp_path / "x.duckdb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def query(name: str, text: str, **more: Any) -> list[Any]:
    data: Any = run_tool("duckdb", {"database": name, "query": text, **more}).data
    rows: list[Any] = data["rows"]
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_each_name_of_a_file_is_that_file(name: str, there: Path) -> None:
    """(no attack) What one name makes, the others read and write."""
    query(f"{there}/x.duckdb", "CREATE TABLE t AS SELECT 1 AS i")
    assert query(name.format(there=there), "INSERT INTO t VALUES (2); FROM t") == [{"i": 1}, {"i": 2}]
    assert query(name.format(there=there), "FROM t", read_only=True) == [{"i": 1}, {"i": 2}]


async def test_commands_of_one_file_take_turns_whatever_they_call_it(there: Path, registry: Registry) -> None:
    """Another name for an open file, to use its secrets."""
    os.mkfifo(pipe := there / "pipe")

    def command(name: str, text: str) -> asyncio.Future[Any]:
        config = {"database": name.format(there=there), "query": text}
        return asyncio.ensure_future(registry.run_tool("duckdb", config, tool_context(registry=registry)))

    b = command(NAMES[0], f"FROM read_text('{pipe}'); SELECT count(*) AS n FROM duckdb_secrets()")
    writer = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)  # B has come to its pipe
    others = [command(name, "CREATE SECRET s (TYPE http, BEARER_TOKEN 'of A'); SELECT 1 AS i") for name in NAMES]
    try:
        done, _ = await asyncio.wait(others, timeout=1)  # as far as they come
    finally:
        os.close(writer)
    assert (await b).data["rows"] == [{"n": 0}]
    assert done == set()
    assert [one.data["rows"] for one in await asyncio.gather(*others)] == [[{"i": 1}]] * len(NAMES)


@pytest.mark.sweep  # the file is waited for for half a minute
async def test_what_takes_no_turn_shares_no_database_either(there: Path) -> None:
    """Another process of the worker has the file open."""
    duckdb, file = Duckdb(UNCONFINED), f"{there}/x.duckdb"
    async with duckdb.opened(Opening("b", database=file), ToolSettings()) as b:
        await b.execute("s", "CREATE SECRET s (TYPE http, BEARER_TOKEN 'of B')")
        with pytest.raises(ToolError, match="lock") as caught:
            async with duckdb.opened(Opening("a", database=file), ToolSettings()):
                raise AssertionError("it has no lock")
        assert caught.value.kind == "db_lock"
    await duckdb.aclose()


@pytest.mark.parametrize(
    "name",
    ["FILE://{there}/x", "File:{there}/x", "duckdb:{there}/x", "sqlite:{there}/x", "md:x", "a:x", "~root/x", ":x"],
)
def test_what_duckdb_may_take_for_something_else_is_refused(name: str, there: Path) -> None:
    """A name that DuckDB reads as a database kind or home."""
    for kind, config in (
        ("duckdb", {"database": name, "query": "SELECT 1"}),
        ("transfer", {"source": {"type": "duckdb", "database": name, "query": "SELECT 1"}, "target": TARGET}),
        ("transfer", {"source": {"type": "duckdb", "query": "SELECT 1 AS i"}, "target": {**TARGET, "database": name}}),
    ):
        with pytest.raises(ConfigurationError, match=r"write /a/path, file:///a/path, or an address"):
            run_tool(kind, placed(config, there=there))


def test_null_in_a_name_is_refused(there: Path) -> None:
    """A null within the name, where DuckDB stops reading."""
    with pytest.raises(ConfigurationError, match=r"write /a/path"):
        query(f"{there}/x.duckdb\0y", "SELECT 1")


@pytest.mark.parametrize("made", ["pipe", "directory", "device"])
def test_database_is_a_regular_file(made: str, there: Path) -> None:
    """A pipe as a database."""
    name = there / "x.duckdb"
    if made == "pipe":
        os.mkfifo(name)
    elif made == "directory":
        name.mkdir()
    else:
        name.symlink_to("/dev/zero")
    for is_read in (False, True):
        with pytest.raises(ConfigurationError, match=r"is no regular file|not a file for playbooks"):
            query(str(name), "SELECT 1", read_only=is_read)


def test_file_of_another_execution_is_refused_under_each_name(there: Path) -> None:
    """The database of another execution."""
    settings = tool_settings(NOETL_DATA_DIR=str(there))
    run_tool("duckdb", {"query": "CREATE TABLE t (i INT)"}, execution_id=7, settings=settings)
    for name in (one for one in NAMES if "x.duckdb" in one):
        theirs = placed(name.replace("x.duckdb", "noetldb/duckdb_7.duckdb"), there=there)
        with pytest.raises(ConfigurationError, match="belongs to execution 7: name another file"):
            run_tool("duckdb", {"query": "FROM t", "database": theirs}, execution_id=8, settings=settings)
