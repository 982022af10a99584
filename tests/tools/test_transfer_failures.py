"""Kind `transfer`: what is refused, and that a failing row leaves no trace."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import tool_context
from noetl_worker.tools.registry import Registry

from .databases import Postgres
from .one_template import run_tool
from .transfers import OLD, from_query, in_duckdb, into, move, out_of, to

pytest.importorskip("psycopg")


# ── one transaction ─────────────────────────────────────────────────────────────────────────────

BREAKS = "select i + 10 as id, case when i = 2500 then 'x' else i::text end as amount from generate_series(1, 5000) i"


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_failing_row_in_the_middle_leaves_the_postgres_table_as_it_was(pg: Postgres, mode: str) -> None:
    pg.sql(OLD)
    with pytest.raises(ToolError, match='invalid input syntax for type numeric: "x"') as caught:
        move(from_query(pg, BREAKS), to(pg), mode=mode, chunk_size=100)
    assert "line 2500" in str(caught.value)
    assert pg.sql("select id, name from move.to_t order by id") == [(2, "old"), (9, "stays")]


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_failing_row_in_the_middle_leaves_the_duckdb_table_as_it_was(pg: Postgres, file: str, mode: str) -> None:
    in_duckdb(file, "create table t(id int primary key, amount decimal(10,2)); insert into t values (9999, 1)")
    with pytest.raises(ToolError, match="Could not convert string"):
        move(from_query(pg, BREAKS), into(file), mode=mode, chunk_size=100)
    assert in_duckdb(file, "select id from t") == [(9999,)]


def test_source_that_fails_in_the_middle_leaves_the_table_as_it_was(pg: Postgres) -> None:
    broken = "select i as id, 1 / (3000 - i) as amount from generate_series(1, 5000) i"
    with pytest.raises(ToolError, match="division by zero"):
        move(from_query(pg, broken), to(pg), chunk_size=100)
    assert pg.sql("select count(*) from move.to_t") == [(0,)]


def test_timeout_leaves_the_table_as_it_was_and_ends_the_source(pg: Postgres) -> None:
    slow = "select i as id, pg_sleep(0.01)::text as name from generate_series(1, 100000) i /* slow_source */"
    config = {"source": from_query(pg, slow), "target": to(pg), "chunk_size": 10, "timeout": 0.5}
    assert run_tool("transfer", config).status is ToolStatus.TIMEOUT
    assert pg.sql("select count(*) from move.to_t") == [(0,)]
    running = "select count(*) from pg_stat_activity where query like '%slow_source%' and state = 'active'"
    assert pg.sql(f"{running} and pid <> pg_backend_pid()") == [(0,)]


async def test_cancelled_transfer_into_duckdb_lets_go_of_the_file(pg: Postgres, file: str, registry: Registry) -> None:
    slow = "select i as id, pg_sleep(0.001)::text as name from generate_series(1, 100000) i"
    config = {"source": from_query(pg, slow), "target": into(file), "chunk_size": 10}
    call = asyncio.ensure_future(registry.run_tool("transfer", config, tool_context(registry=registry)))
    await asyncio.wait({call}, timeout=0.5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert in_duckdb(file, "select count(*) from information_schema.tables") == [(0,)]


def test_many_rows_do_not_gather_in_memory(pg: Postgres, file: str) -> None:
    """40 MB go through; not even a quarter of that is Python's at one time."""
    import tracemalloc

    big = "select i as id, repeat('x', 10000) as name from generate_series(1, 4000) i"
    tracemalloc.start()
    try:
        data = move(from_query(pg, big), into(file), chunk_size=50)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data["rows_transferred"] == 4000
    assert peak < 10_000_000, peak


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "table", "config", "message"),
    [
        ("select 1 as id", "none", {}, "target table 'move.none' does not exist; create it first"),
        (
            "select 1 as nope",
            "to_t",
            {},
            "table 'move.to_t' has no column 'nope'; it has: id, name, amount, at, doc, tags, note",
        ),
        (
            "select 1 as id, 2 as name, 3 as name, 4 as id",
            "to_t",
            {},
            "the source has several columns of the same name ('id', 'name'): give each a name of its own with AS",
        ),
        (
            "select 1 as id, '{}'::json as doc, '{}'::json as doc, 3 as name, 4 as name",
            "to_t",
            {"mapping": {"id": "id", "name": "doc.a"}},
            "the source has several columns of the same name ('doc'): give each a name of its own with AS",
        ),
        ("select 1 as id", "to_t", {"mapping": {"id": "x"}}, "the source has no column 'x'; it has: id"),
        ("select 1 as name", "to_t", {"mode": "upsert"}, "the rows have no key column 'id'; select it"),
        (
            "select 1 as id",
            "from_t",
            {"mode": "upsert"},
            "table 'move.from_t' has no primary key; give 'key' for upsert",
        ),
        (
            'select 1 as id, 2 as a, 3 as "A"',
            "to_t",
            {"mapping": {"id": "id", "name": "a", "NAME": "A"}},
            "two source columns go to one column of 'move.to_t': id, name, name; leave one out, or give 'mapping'",
        ),
    ],
)
def test_what_does_not_fit_the_table_is_told_exactly(
    pg: Postgres, query: str, table: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        move(from_query(pg, query), to(pg, f"move.{table}"), **config)
    assert str(caught.value) == f"transfer: {message}"


def test_key_without_a_unique_index_is_the_databases_word(pg: Postgres) -> None:
    with pytest.raises(ToolError, match="no unique or exclusion constraint matching the ON CONFLICT"):
        move(from_query(pg, "select 1 as id"), to(pg, "move.from_t"), mode="upsert", key="id")


def test_part_of_a_whole_number_is_refused_by_duckdb_targets_too(pg: Postgres, file: str) -> None:
    in_duckdb(file, "create table t(id int)")
    with pytest.raises(ToolError, match=r"'1.5' is no INTEGER") as caught:
        move(from_query(pg, "select 1.5 as id"), into(file))
    assert caught.value.kind == "transform"


@pytest.mark.parametrize("null", ["null::int", "'null'::jsonb"])
def test_null_in_a_key_is_refused_and_nothing_is_moved(pg: Postgres, file: str, null: str) -> None:
    """NULL equals no NULL: each transfer would add the row once more."""
    columns = "(a int, b int, v text, unique (a, b))"
    pg.sql(f"create table move.t{columns}")
    in_duckdb(file, f"create table t{columns}")
    query = (
        f"select 1 a, 2 b, 'w' v union all select 1, {null}, 'x'" if "jsonb" not in null else f"select 1 a, {null} b"
    )
    for target in (to(pg, "move.t"), into(file)):
        with pytest.raises(ToolError, match="'b' is NULL in a row, which an upsert cannot find again") as caught:
            move(from_query(pg, query), target, mode="upsert", key=["a", "b"])
        assert caught.value.kind == "db_constraint"
    assert (pg.sql("select count(*) from move.t"), in_duckdb(file, "select count(*) from t")) == ([(0,)], [(0,)])


def test_source_and_target_that_are_one_file_by_a_link_are_refused(file: str, tmp_path: Path) -> None:
    in_duckdb(file, "create table t(i int)")
    link = tmp_path / "link.duckdb"
    link.symlink_to(file)
    with pytest.raises(ConfigurationError, match="source and target are one DuckDB file; use kind duckdb"):
        move(out_of(str(link), "select 1 as i"), into(file))
