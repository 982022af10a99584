"""The instance of DuckDB that is opened before a command is known, and forked with its process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.testing import tool_context
from noetl_worker.tools.registry import Registry

pytest.importorskip("duckdb")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there can a process count its threads")


async def rows_of(registry: Registry, query: str) -> list[dict[str, Any]]:
    result = await registry.run_tool("duckdb", {"query": query}, tool_context(registry=registry))
    assert result.error is None, result.error
    rows: list[dict[str, Any]] = result.data["rows"]
    return rows


async def test_each_command_draws_random_numbers_of_its_own(registry: Registry) -> None:
    """A seed that is taken before the fork would give every command the same numbers and ids."""
    drawn = [(await rows_of(registry, "SELECT random() AS n, uuid()::varchar AS id"))[0] for _ in range(3)]
    assert len({one["n"] for one in drawn}) == len({one["id"] for one in drawn}) == 3


async def test_settings_are_those_of_an_instance_opened_for_the_command(registry: Registry) -> None:
    import duckdb

    ours = "('allow_persistent_secrets', 'python_enable_replacements', 'memory_limit', 'max_memory', 'temp_directory')"
    of_a_terminal = "name NOT LIKE 'enable_progress%'"
    query = f"SELECT name, value FROM duckdb_settings() WHERE name NOT IN {ours} AND {of_a_terminal} ORDER BY name"
    fresh = [{"name": name, "value": value} for name, value in duckdb.connect().execute(query).fetchall()]
    assert await rows_of(registry, query) == fresh


async def test_file_is_whole_and_free_when_its_command_is_over(registry: Registry, tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "kept.duckdb"
    await rows_of(registry, f"ATTACH '{file}' AS kept; CREATE TABLE kept.t AS SELECT 7 AS n; FROM kept.t")
    assert [one.name for one in tmp_path.iterdir()] == [file.name], "a log that is still to be applied"
    with duckdb.connect(str(file)) as connection:
        assert connection.execute("FROM t").fetchall() == [(7,)]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", None])
def test_prepared_instance_is_left_alone_in_another_time_zone(zone: str | None) -> None:
    """It has read the zone that it was opened in. Tried in a fork, which has one thread whatever runs here."""
    import duckdb

    from noetl_worker.tools.kinds.duckdb.prepared import PreparedInstance

    process = os.fork()
    if not process:
        os.environ["TZ"] = "Etc/UTC"
        time.tzset()
        prepared = PreparedInstance()
        prepared.open(duckdb)
        if zone:
            os.environ["TZ"] = zone
        os._exit(int((prepared.take() is None) != bool(zone)))
    _, status = os.waitpid(process, 0)
    assert status == 0
