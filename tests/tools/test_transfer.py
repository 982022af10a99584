"""Kind `transfer`: every direction that can be had here, and its modes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.testing import run_tool
from noetl_worker.tools.kinds.transfer.plan import table_parts
from patience import PATIENCE_S

from .databases import Postgres
from .http_server import ToolServer, as_json
from .transfers import OLD, filled, from_query, in_duckdb, into, move, out_of, to

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("psycopg")


# ── directions ──────────────────────────────────────────────────────────────────────────────────


def test_postgres_to_postgres_keeps_every_value(pg: Postgres) -> None:
    filled(pg)
    data = move(from_query(pg), to(pg), chunk_size=2)
    assert data == {
        "direction": "postgres_to_postgres",
        "source_type": "postgres",
        "target_type": "postgres",
        "mode": "append",
        "rows_transferred": 5,
        "chunks_processed": 3,
        "target_table": "move.to_t",
        "columns": ["id", "name", "amount", "at", "doc", "tags"],
    }
    assert_every_row_was_moved(pg)
    assert pg.sql("select distinct note from move.to_t") == [("new",)]


def assert_every_row_was_moved(pg: Postgres) -> None:
    moved = "select id, name, amount, at, doc, tags from move.{} order by id"
    assert pg.sql(moved.format("to_t")) == pg.sql(moved.format("from_t"))


@pytest.mark.parametrize("source", ["move.whole", "move.part", "move.seen"])
def test_replacing_a_table_with_its_own_rows_is_refused(pg: Postgres, source: str) -> None:
    pg.sql("create table move.whole (i int) partition by range (i); create view move.seen as select * from move.whole")
    pg.sql(
        "create table move.part partition of move.whole for values from (0) to (9); insert into move.whole values (1)"
    )
    try:
        with pytest.raises(
            ConfigurationError, match=r"the source reads move\.whole, which mode 'replace' empties first"
        ):
            move(from_query(pg, f"select i from {source}"), to(pg, "move.whole"), mode="replace", timeout=PATIENCE_S)
        move(from_query(pg, f"select i + 1 as i from {source}"), to(pg, "move.whole"), timeout=PATIENCE_S)
        assert pg.sql("select i from move.whole order by i") == [(1,), (2,)]
        move(from_query(pg, "select 5 as i"), to(pg, "move.whole"), mode="replace", timeout=PATIENCE_S)
        assert pg.sql("select i from move.whole") == [(5,)]
    finally:
        pg.sql("drop table move.whole cascade")


def column_types(file: str) -> list[tuple[Any, ...]]:
    return in_duckdb(file, "select column_name, data_type from information_schema.columns order by ordinal_position")


def test_postgres_to_a_new_duckdb_table_and_back(pg: Postgres, file: str) -> None:
    filled(pg)
    move(from_query(pg), into(file), chunk_size=2)
    assert column_types(file) == [
        ("id", "INTEGER"), ("name", "VARCHAR"), ("amount", "DECIMAL(10,2)"), ("at", "TIMESTAMP WITH TIME ZONE"),
        ("doc", "JSON"), ("tags", "VARCHAR[]"),
    ]  # fmt: skip
    assert in_duckdb(file, "select id, amount::text, doc->>'i', tags[2] from t where id = 3") == [(3, "3.25", "3", "3")]
    move(out_of(file), to(pg))
    assert_every_row_was_moved(pg)


def answering(server: ToolServer, value: Any) -> str:
    """The address of a service that gives this value."""
    server.routes["/x"] = lambda seen: as_json(value)
    return server.url("/x")


def test_http_to_postgres_by_path_and_mapping(pg: Postgres, server: ToolServer) -> None:
    people = [
        {"id": 1, "who": {"name": "{{ a }}"}, "doc": ["x"], "amount": "1.5"},
        {"id": 2, "who": None, "doc": "text", "amount": 2, "further": True},
    ]
    url = answering(server, {"data": {"items": people}})
    source = {"type": "http", "url": url, "data_path": "data.items"}
    target = {**to(pg), "mapping": {"id": "id", "name": "who.name", "doc": "doc", "amount": "amount"}}
    assert move(source, target)["rows_transferred"] == 2
    assert pg.sql("select id, name, doc, amount::text from move.to_t order by id") == [
        (1, "{{ a }}", ["x"], "1.50"),
        (2, None, "text", "2.00"),
    ]


def test_http_to_a_new_duckdb_table_takes_the_types_of_the_values(file: str, server: ToolServer) -> None:
    rows = [{"i": 1, "f": 1, "s": "a", "o": {"a": 1}, "b": True}, {"i": 2, "f": 0.5, "n": None}]
    move({"type": "http", "url": answering(server, rows)}, into(file, "main.r"))
    assert dict(column_types(file)) == {
        "i": "BIGINT",
        "f": "DOUBLE",
        "s": "VARCHAR",
        "o": "JSON",
        "b": "BOOLEAN",
        "n": "VARCHAR",
    }
    assert in_duckdb(file, "select i, f, s, o->>'a', b from r order by i") == [
        (1, 1.0, "a", "1", True),
        (2, 0.5, None, None, None),
    ]


def test_parquet_by_a_query_of_a_duckdb_in_memory(pg: Postgres, tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"copy (select 7 as id, 'p' as name) to '{target}'")
    move({"type": "duckdb", "query": f"select * from '{target}'"}, to(pg))
    assert pg.sql("select id, name from move.to_t") == [(7, "p")]


def test_lists_of_numbers_from_http_go_into_arrays(pg: Postgres, server: ToolServer) -> None:
    pg.sql("create table move.t(id int, f float8[], n numeric[], m int[][])")
    rows = [
        {"id": 1, "f": [1, 2.5, None], "n": [1, 2.5]},
        {"id": 2, "f": [[1, 2.5]], "n": [2**53 + 1, 0.5], "m": [[1]]},
    ]
    move({"type": "http", "url": answering(server, rows)}, to(pg, "move.t"))
    assert pg.sql("select id, f, n::text, m from move.t order by id") == [
        (1, [1.0, 2.5, None], "{1.0,2.5}", None),
        (2, [[1.0, 2.5]], "{9007199254740993,0.5}", [[1]]),
    ]


def test_lists_of_numbers_and_texts_from_http_go_into_arrays_of_text(pg: Postgres, server: ToolServer) -> None:
    pg.sql("create table move.t(n int, l text[])")
    lists = [[1, "a", None, 2.5, True], [1, 0.5], [["x", 1], [2, None]]]
    rows = [{"n": number, "l": one} for number, one in enumerate(lists)]
    move({"type": "http", "url": answering(server, rows)}, to(pg, "move.t"))
    arrived = [["1", "a", None, "2.5", "true"], ["1", "0.5"], [["x", "1"], ["2", None]]]
    assert [texts for (texts,) in pg.sql("select l from move.t order by n")] == arrived


# ── modes ───────────────────────────────────────────────────────────────────────────────────────


NEW = "select * from (values (1, 'one'), (2, 'two'), (3, 'three'), (2, 'latest')) v(id, name)"


def test_upsert_replaces_rows_with_the_key_and_the_later_of_two_wins(pg: Postgres) -> None:
    pg.sql(OLD)
    data = move(from_query(pg, NEW), to(pg), mode="upsert", chunk_size=1)
    assert (data["rows_transferred"], data["rows_inserted"], data["rows_updated"]) == (4, 2, 1)
    assert pg.sql("select id, name, note from move.to_t order by id") == [
        (1, "one", "new"), (2, "latest", "kept"), (3, "three", "new"), (9, "stays", "kept"),
    ]  # fmt: skip
    again = move(from_query(pg, NEW), to(pg), mode="upsert", key="id")
    assert (again["rows_inserted"], again["rows_updated"]) == (0, 3)


def test_upsert_into_a_partitioned_table_with_an_identity(pg: Postgres) -> None:
    pg.sql(
        "create table move.parts(id int generated always as identity primary key, name text) partition by range (id);"
        " create table move.low partition of move.parts for values from (0) to (3);"
        " create table move.high partition of move.parts for values from (3) to (100)"
    )
    first = move(from_query(pg, NEW), to(pg, "move.parts"), mode="upsert")
    second = move(from_query(pg, NEW), to(pg, "move.parts"), mode="upsert")
    assert (first["rows_inserted"], first["rows_updated"]) == (3, 0)
    assert (second["rows_inserted"], second["rows_updated"]) == (0, 3)
    assert pg.sql("select id, name from move.parts order by id") == [(1, "one"), (2, "latest"), (3, "three")]


def test_upsert_into_duckdb(pg: Postgres, file: str) -> None:
    target = into(file)
    first = move(from_query(pg, NEW), target, mode="upsert", key=["id"], chunk_size=3)
    assert (first["rows_inserted"], first["rows_updated"]) == (3, 0)
    in_duckdb(file, "update t set name = 'old' where id = 1")
    second = move(from_query(pg, NEW), target, mode="upsert")  # by the primary key it was made with
    assert (second["rows_inserted"], second["rows_updated"]) == (0, 3)
    assert in_duckdb(file, "select id, name from t order by id") == [(1, "one"), (2, "latest"), (3, "three")]


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_upsert_counts_a_key_once_in_postgres_and_duckdb(pg: Postgres, file: str, chunk_size: int) -> None:
    pg.sql(OLD)
    in_duckdb(file, "create table t(id int primary key, name text); insert into t values (2, 'old'), (9, 'stays')")
    for target in (to(pg), into(file)):
        data = move(from_query(pg, NEW), target, mode="upsert", chunk_size=chunk_size)
        assert (data["rows_transferred"], data["rows_inserted"], data["rows_updated"]) == (4, 2, 1)


def test_replace_empties_the_table_even_when_there_are_no_new_rows(pg: Postgres, file: str, server: ToolServer) -> None:
    pg.sql(OLD)
    move(from_query(pg, "select 5 as id"), to(pg), mode="replace")
    assert pg.sql("select id from move.to_t") == [(5,)]
    move(from_query(pg, "select 5 as id where false"), to(pg), mode="replace")
    assert pg.sql("select id from move.to_t") == []
    in_duckdb(file, "create table t(id int primary key); insert into t values (1), (2)")
    target = into(file)
    move(from_query(pg, "select 2 as id"), target, mode="replace")
    assert in_duckdb(file, "select id from t") == [(2,)]
    url = answering(server, [])
    assert move({"type": "http", "url": url}, target, mode="replace")["rows_transferred"] == 0
    assert in_duckdb(file, "select id from t") == []
    pg.sql(OLD)
    move({"type": "http", "url": url}, {**to(pg), "mapping": {"id": "id"}}, mode="replace")
    assert pg.sql("select id from move.to_t") == []


def test_upsert_goes_by_the_key_columns_of_a_primary_key_that_includes_others(pg: Postgres) -> None:
    pg.sql("create table move.t(name text, b int, a int, note text, primary key (a, b) include (name))")
    query = "select 1 as a, 2 as b, 'n{}' as name"
    move(from_query(pg, query.format(1)), to(pg, "move.t"), mode="upsert")
    move(from_query(pg, query.format(2)), to(pg, "move.t"), mode="upsert")
    assert pg.sql("select a, b, name from move.t") == [(1, 2, "n2")]


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("a.b", {"a": {}}, "Path segment 'b' not found in JSON; correct 'data_path'"),
        (None, "text", "HTTP response data must be an array or object; set 'data_path'"),
        (None, [1, 2], "Cannot determine columns from HTTP data: a row is int"),
        (None, [{}], "Cannot determine columns from HTTP data: its rows have no fields"),
        ("a", {"a": {}}, "Cannot determine columns from HTTP data: its rows have no fields"),
    ],
)
def test_answers_without_rows_are_told(
    pg: Postgres, server: ToolServer, path: str | None, body: Any, message: str
) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        move({"type": "http", "url": answering(server, body), "data_path": path}, to(pg))
    assert caught.value.kind == "schema"


def test_answer_that_was_cut_fails_the_transfer(pg: Postgres, server: ToolServer) -> None:
    url = answering(server, [{"id": n} for n in range(1000)])
    with pytest.raises(ToolError, match="source: the answer was cut; raise 'max_response_bytes'") as caught:
        move({"type": "http", "url": url, "max_response_bytes": 100}, to(pg))
    assert caught.value.kind == "resource"
    assert pg.sql("select count(*) from move.to_t") == [(0,)]


def test_refused_request_fails_the_transfer(pg: Postgres, server: ToolServer) -> None:
    with pytest.raises(ToolError, match="source: HTTP 404"):
        move({"type": "http", "url": server.url("/nothing")}, to(pg))


def test_aliases_of_both_ends_are_resolved(pg: Postgres) -> None:
    filled(pg)
    from psycopg.conninfo import conninfo_to_dict

    known = conninfo_to_dict(pg.uri)
    data = {"type": "postgres", "db_host": known["host"], "db_user": "postgres", "db_name": known["dbname"]}
    config = {
        "source": {"tool": "postgres", "auth": "a", "query": "select id, name from move.from_t"},
        "target": {"kind": "postgres", "credential": "b", "schema": "move", "table": "to_t"},
    }
    result = run_tool("snowflake_transfer", config, credentials={"a": data, "b": data})
    assert result.data["rows_transferred"] == 5


def test_table_names_are_read_as_sql_has_them() -> None:
    assert table_parts("t") == ["t"]
    assert table_parts('a."b.""c".d') == ["a", 'b."c', "d"]
    assert table_parts('a"b.c"d') == ["ab.cd"]
    assert table_parts("") == [""]
    assert table_parts("a\nb\n") == ["a\nb\n"]
