"""Kind `transfer`: every direction that can be had here, its modes, and that a failing row leaves no trace."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import run_tool, tool_context
from noetl_worker.tools.registry import Registry
from noetl_worker.tools.transfer.plan import table_parts

from .databases import Postgres

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("psycopg")


COLUMNS = "id, name, amount, at, doc, tags"


@pytest.fixture
def pg(postgres: Postgres) -> Postgres:
    postgres.sql(
        "drop schema if exists move cascade; create schema move;"
        " create table move.from_t(id int, name text, amount numeric(10,2), at timestamptz, doc jsonb, tags text[]);"
        " create table move.to_t(id int primary key, name text, amount numeric(10,2), at timestamptz, doc jsonb,"
        " tags text[], note text default 'new')"
    )
    return postgres


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "a.duckdb")


def filled(pg: Postgres, rows: int = 5) -> None:
    pg.sql(
        "insert into move.from_t select i, 'n' || i, i + 0.25,"
        " timestamptz '2026-01-02 03:04:05+00' + i * interval '1 d',"
        f" jsonb_build_object('i', i), array['a', i::text] from generate_series(1, {rows}) i"
    )


def in_duckdb(file: str, text: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(file) as connection:
        rows: list[tuple[Any, ...]] = connection.execute(text).fetchall()
        return rows


def move(source: dict[str, Any], target: dict[str, Any], **config: Any) -> dict[str, Any]:
    result = run_tool("transfer", {"source": source, "target": target, **config})
    assert result.status is ToolStatus.SUCCESS
    assert isinstance(result.data, dict)
    return result.data


def of(pg: Postgres, query: str = "select * from move.from_t order by id") -> dict[str, Any]:
    return {"type": "postgres", "connection_string": pg.uri, "query": query}


def to(pg: Postgres, table: str = "move.to_t") -> dict[str, Any]:
    return {"type": "postgres", "connection_string": pg.uri, "table": table}


# ── directions ──────────────────────────────────────────────────────────────────────────────────


def test_postgres_to_postgres_keeps_every_value(pg: Postgres) -> None:
    filled(pg)
    data = move(of(pg), to(pg), chunk_size=2)
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
    columns = "id, name, amount, at, doc, tags"
    assert pg.sql(f"select {columns} from move.to_t order by id") == pg.sql(
        f"select {columns} from move.from_t order by id"
    )
    assert pg.sql("select distinct note from move.to_t") == [("new",)]


ODD = (
    "select 1::int2 a, 'NaN'::float8 b, interval '1 mon 2 days' c, date 'infinity' d, '\\x00ff'::bytea e,"
    " int4range(1,5) f, inet '10.0.0.1' g, '[1]'::jsonb h, '\"x\"'::jsonb i, array[[1,2],[3,4]] j, null::int k,"
    " e'a\\tb\\\\n\\n\"c' l,"
    " 'f'::bool m, '00000000-0000-0000-0000-000000000001'::uuid n, 1e20::numeric o, array[null, '']::text[] p"
)


def test_odd_values_arrive_as_they_were(pg: Postgres) -> None:
    pg.sql(f"create table move.odd as {ODD}; create table move.odd_copy (like move.odd)")
    move(of(pg, "select * from move.odd"), to(pg, "move.odd_copy"))
    assert pg.sql("select o::text from move.odd o") == pg.sql("select o::text from move.odd_copy o")


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
            move(of(pg, f"select i from {source}"), to(pg, "move.whole"), mode="replace", timeout=20)
        move(of(pg, f"select i + 1 as i from {source}"), to(pg, "move.whole"), timeout=20)
        assert pg.sql("select i from move.whole order by i") == [(1,), (2,)]
        move(of(pg, "select 5 as i"), to(pg, "move.whole"), mode="replace", timeout=20)
        assert pg.sql("select i from move.whole") == [(5,)]
    finally:
        pg.sql("drop table move.whole cascade")


def test_moments_that_python_cannot_hold_go_to_duckdb_and_back(pg: Postgres, file: str) -> None:
    columns = "(d date, t timestamp, z timestamptz)"
    pg.sql(f"create table move.ends {columns}; create table move.ends_copy {columns}")
    pg.sql("insert into move.ends values ('infinity', '-infinity', 'infinity'), ('9999-12-31', '0001-01-01', null)")
    move(of(pg, "select * from move.ends"), {"type": "duckdb", "database": file, "table": "t"})
    assert in_duckdb(file, "select count(*) from t where isinf(d) and isinf(t) and isinf(z)") == [(1,)]
    move({"type": "duckdb", "database": file, "query": "select * from t"}, to(pg, "move.ends_copy"))
    text = "select o::text from move.{} o order by d"
    assert pg.sql(text.format("ends_copy")) == pg.sql(text.format("ends"))


def test_nanoseconds_go_from_one_duckdb_to_another(file: str) -> None:
    made = "create table t as select timestamp_ns '2026-01-02 03:04:05.123456789' as a, time_ns '03:04:05.1' as b"
    run_tool("duckdb", {"database": file, "query": made})
    move(
        {"type": "duckdb", "database": file, "query": "select * from t"},
        {"type": "duckdb", "database": file + "2", "table": "t"},
    )
    assert in_duckdb(file + "2", "select a::text, b::text from t") == [("2026-01-02 03:04:05.123456789", "03:04:05.1")]


def test_postgres_to_a_new_duckdb_table_and_back(pg: Postgres, file: str) -> None:
    filled(pg)
    move(of(pg), {"type": "duckdb", "database": file, "table": "t"}, chunk_size=2)
    types = in_duckdb(file, "select column_name, data_type from information_schema.columns order by ordinal_position")
    assert types == [
        ("id", "INTEGER"), ("name", "VARCHAR"), ("amount", "DECIMAL(10,2)"), ("at", "TIMESTAMP WITH TIME ZONE"),
        ("doc", "JSON"), ("tags", "VARCHAR[]"),
    ]  # fmt: skip
    assert in_duckdb(file, "select id, amount::text, doc->>'i', tags[2] from t where id = 3") == [(3, "3.25", "3", "3")]
    move({"type": "duckdb", "database": file, "query": "select * from t"}, to(pg))
    columns = "id, name, amount, at, doc, tags"
    assert pg.sql(f"select {columns} from move.to_t order by id") == pg.sql(
        f"select {columns} from move.from_t order by id"
    )


def test_duckdb_types_survive_the_way_to_postgres_and_back(pg: Postgres, file: str) -> None:
    in_duckdb(
        file,
        "create table d as select 170141183460469231731687303715884105727::hugeint h, 'ab'::blob b, [1, null] l,"
        " {'a': 1, 'b': 'x'} s, date '2026-01-02' dd, time '03:04:05' t, interval '90 minutes' i, 'nan'::double n,"
        " uuid '00000000-0000-0000-0000-000000000001' u, true y, 1.50::decimal(5,2) c, map {'k': 2} m",
    )
    pg.sql(
        "create table move.d(h numeric, b bytea, l int[], s jsonb, dd date, t time, i interval, n float8, u uuid,"
        " y bool, c numeric, m jsonb)"
    )
    move({"type": "duckdb", "database": file, "query": "select * from d"}, to(pg, "move.d"))
    assert pg.sql("select d::text from move.d d") == [
        (
            '(170141183460469231731687303715884105727,"\\\\x6162","{1,NULL}","{""a"": 1, ""b"": ""x""}",'
            '2026-01-02,03:04:05,01:30:00,NaN,00000000-0000-0000-0000-000000000001,t,1.50,"{""k"": 2}")',
        )
    ]
    in_duckdb(file, "create table back as from d limit 0")
    query = "select h, b, l, s, dd, t, n, u, y, c, m from move.d"
    move(of(pg, query), {"type": "duckdb", "database": file, "table": "back"})
    columns = query[7:-12]
    assert in_duckdb(file, f"select count(*) from (select {columns} from d intersect select {columns} from back)") == [
        (1,)
    ]


EXACT = [
    '{"n": 18446744073709551615}', "0.12345678901234567890", "null", '"{\\"a\\":1}"', '"[1]"',
    "123456789012345678901234567890", '[1.10, null, {"b": 1e400}]', "true", '"x"',
]  # fmt: skip
ONE_KEY_TWICE = '{"a":1,"a":2}'


def exact_rows(column: str = "j", *texts: str) -> str:
    rows = ", ".join(f"({number}, '{text}'::{column})" for number, text in enumerate([*EXACT, *texts]))
    return f"select id, v as j from (values {rows}) as t(id, v)"


def test_json_goes_from_postgres_to_postgres_without_a_change(pg: Postgres) -> None:
    pg.sql("create table move.j(id int, j jsonb); create table move.t(id int, j json)")
    move(of(pg, exact_rows("jsonb")), to(pg, "move.j"))
    came, sent = "select id, j::text from move.j order by id", exact_rows("jsonb")
    assert pg.sql(came) == pg.sql(f"select id, j::text from ({sent}) s order by id")
    move(of(pg, exact_rows("json", ONE_KEY_TWICE)), to(pg, "move.t"))
    assert [text for (text,) in pg.sql("select j::text from move.t order by id")] == [*EXACT, ONE_KEY_TWICE]


def test_json_goes_from_duckdb_to_postgres_without_a_change(pg: Postgres) -> None:
    pg.sql("create table move.t(id int, j json)")
    move({"type": "duckdb", "query": exact_rows("json", ONE_KEY_TWICE)}, to(pg, "move.t"))
    assert [text for (text,) in pg.sql("select j::text from move.t order by id")] == [*EXACT, ONE_KEY_TWICE]


def test_json_goes_from_postgres_to_duckdb_without_a_change(pg: Postgres, file: str) -> None:
    target = {"type": "duckdb", "database": file, "table": "t"}
    move(of(pg, exact_rows("json", ONE_KEY_TWICE)), target)
    came = [text for (text,) in in_duckdb(file, "select j::varchar from t order by id")]
    assert came == [*EXACT, ONE_KEY_TWICE]


def test_null_that_is_no_json_stays_null(pg: Postgres, file: str) -> None:
    pg.sql("create table move.t(j jsonb)")
    move(of(pg, "select null::jsonb as j"), to(pg, "move.t"))
    move({"type": "duckdb", "query": "select null::json as j"}, to(pg, "move.t"))
    assert pg.sql("select j is null from move.t") == [(True,), (True,)]


def test_arrays_of_json_keep_what_is_in_them(pg: Postgres, file: str) -> None:
    pg.sql("create table move.t(j json[])")
    query = """select array['{"n": 18446744073709551615}', 'null', null, '"[1]"']::json[] as j"""
    move(of(pg, query), to(pg, "move.t"))
    assert pg.sql("select j::text from move.t") == pg.sql(query.replace(" as j", "::text"))
    move(of(pg, query), {"type": "duckdb", "database": file, "table": "t"})
    assert in_duckdb(file, "select j[1]::varchar, j[4]::varchar from t") == [('{"n":18446744073709551615}', '"[1]"')]


def test_json_in_other_columns_is_its_text(pg: Postgres, file: str) -> None:
    pg.sql("create table move.t(a text, b text, c text, d int[], e date, f numeric)")
    query = (
        """select '{"n": 1.10}'::jsonb a, '"x"'::jsonb b, 'null'::jsonb c, '[1, null]'::jsonb d,"""
        """ '"2026-01-02"'::jsonb e, '0.12345678901234567890'::jsonb f"""
    )
    move(of(pg, query), to(pg, "move.t"))
    expected = [('{"n": 1.10}', "x", None, "{1,NULL}", "2026-01-02", "0.12345678901234567890")]
    assert pg.sql("select a, b, c, d::text, e::text, f::text from move.t") == expected
    in_duckdb(file, "create table t(a text, b text, c text, d int[], e date, f decimal(30,20))")
    move(of(pg, query), {"type": "duckdb", "database": file, "table": "t"})
    expected = [('{"n": 1.10}', "x", None, "[1, NULL]", "2026-01-02", "0.12345678901234567890")]
    assert in_duckdb(file, "select a, b, c, d::text, e::text, f::text from t") == expected


def test_path_into_json_keeps_what_is_there(pg: Postgres) -> None:
    pg.sql("create table move.t(a jsonb, b jsonb, c text, d jsonb, e numeric)")
    query = """select '{"a": {"n": 18446744073709551615}, "b": "{}", "c": "x", "e": 1.10}'::jsonb as doc"""
    move(of(pg, query), to(pg, "move.t"), mapping={one: f"doc.{one}" for one in "abcde"})
    assert pg.sql("select a::text, b::text, c, d::text, e::text from move.t") == [
        ('{"n": 18446744073709551615}', '"{}"', "x", None, "1.10")
    ]


@pytest.fixture
def service() -> Iterator[tuple[str, dict[str, Any]]]:
    answers: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, {}))
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *arguments: Any) -> None:
            del arguments

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_http_to_postgres_by_path_and_mapping(pg: Postgres, service: tuple[str, dict[str, Any]]) -> None:
    url, answers = service
    people = [
        {"id": 1, "who": {"name": "{{ a }}"}, "doc": ["x"], "amount": "1.5"},
        {"id": 2, "who": None, "doc": "text", "amount": 2, "further": True},
    ]
    answers["/people"] = (200, {"data": {"items": people}})
    source = {"type": "http", "url": f"{url}/people", "data_path": "data.items"}
    target = {**to(pg), "mapping": {"id": "id", "name": "who.name", "doc": "doc", "amount": "amount"}}
    assert move(source, target)["rows_transferred"] == 2
    assert pg.sql("select id, name, doc, amount::text from move.to_t order by id") == [
        (1, "{{ a }}", ["x"], "1.50"),
        (2, None, "text", "2.00"),
    ]


def test_http_to_a_new_duckdb_table_takes_the_types_of_the_values(
    file: str, service: tuple[str, dict[str, Any]]
) -> None:
    url, answers = service
    answers["/rows"] = (200, [{"i": 1, "f": 1, "s": "a", "o": {"a": 1}, "b": True}, {"i": 2, "f": 0.5, "n": None}])
    move({"type": "http", "url": f"{url}/rows"}, {"type": "duckdb", "database": file, "table": "main.r"})
    types = in_duckdb(file, "select column_name, data_type from information_schema.columns order by ordinal_position")
    assert dict(types) == {"i": "BIGINT", "f": "DOUBLE", "s": "VARCHAR", "o": "JSON", "b": "BOOLEAN", "n": "VARCHAR"}
    assert in_duckdb(file, "select i, f, s, o->>'a', b from r order by i") == [
        (1, 1.0, "a", "1", True),
        (2, 0.5, None, None, None),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", "id,name\n1,x\n2,y\n"), ("a.jsonl", '{"id": 1, "name": "x"}\n{"id": 2, "name": "y"}\n')],
)
def test_files_to_postgres(pg: Postgres, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert move({"type": "file", "path": str(tmp_path / name)}, to(pg))["rows_transferred"] == 2
    assert pg.sql("select id, name from move.to_t order by id") == [(1, "x"), (2, "y")]


def test_parquet_by_a_query_of_a_duckdb_in_memory(pg: Postgres, tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"copy (select 7 as id, 'p' as name) to '{target}'")
    move({"type": "duckdb", "query": f"select * from '{target}'"}, to(pg))
    assert pg.sql("select id, name from move.to_t") == [(7, "p")]


# ── modes ───────────────────────────────────────────────────────────────────────────────────────

OLD = "insert into move.to_t(id, name, note) values (2, 'old', 'kept'), (9, 'stays', 'kept')"
NEW = "select * from (values (1, 'one'), (2, 'two'), (3, 'three'), (2, 'latest')) v(id, name)"


def test_upsert_replaces_rows_with_the_key_and_the_later_of_two_wins(pg: Postgres) -> None:
    pg.sql(OLD)
    data = move(of(pg, NEW), to(pg), mode="upsert", chunk_size=1)
    assert (data["rows_transferred"], data["rows_inserted"], data["rows_updated"]) == (4, 2, 1)
    assert pg.sql("select id, name, note from move.to_t order by id") == [
        (1, "one", "new"), (2, "latest", "kept"), (3, "three", "new"), (9, "stays", "kept"),
    ]  # fmt: skip
    again = move(of(pg, NEW), to(pg), mode="upsert", key="id")
    assert (again["rows_inserted"], again["rows_updated"]) == (0, 3)


def test_upsert_into_a_partitioned_table_with_an_identity(pg: Postgres) -> None:
    pg.sql(
        "create table move.parts(id int generated always as identity primary key, name text) partition by range (id);"
        " create table move.low partition of move.parts for values from (0) to (3);"
        " create table move.high partition of move.parts for values from (3) to (100)"
    )
    first = move(of(pg, NEW), to(pg, "move.parts"), mode="upsert")
    second = move(of(pg, NEW), to(pg, "move.parts"), mode="upsert")
    assert (first["rows_inserted"], first["rows_updated"]) == (3, 0)
    assert (second["rows_inserted"], second["rows_updated"]) == (0, 3)
    assert pg.sql("select id, name from move.parts order by id") == [(1, "one"), (2, "latest"), (3, "three")]


def test_upsert_into_duckdb(pg: Postgres, file: str) -> None:
    target = {"type": "duckdb", "database": file, "table": "t"}
    first = move(of(pg, NEW), target, mode="upsert", key=["id"], chunk_size=3)
    assert (first["rows_inserted"], first["rows_updated"]) == (3, 0)
    in_duckdb(file, "update t set name = 'old' where id = 1")
    second = move(of(pg, NEW), target, mode="upsert")  # by the primary key it was made with
    assert (second["rows_inserted"], second["rows_updated"]) == (0, 3)
    assert in_duckdb(file, "select id, name from t order by id") == [(1, "one"), (2, "latest"), (3, "three")]


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_upsert_counts_a_key_once_in_postgres_and_duckdb(pg: Postgres, file: str, chunk_size: int) -> None:
    pg.sql(OLD)
    in_duckdb(file, "create table t(id int primary key, name text); insert into t values (2, 'old'), (9, 'stays')")
    for target in (to(pg), {"type": "duckdb", "database": file, "table": "t"}):
        data = move(of(pg, NEW), target, mode="upsert", chunk_size=chunk_size)
        assert (data["rows_transferred"], data["rows_inserted"], data["rows_updated"]) == (4, 2, 1)


def test_replace_empties_the_table_even_when_there_are_no_new_rows(
    pg: Postgres, file: str, service: tuple[str, dict[str, Any]]
) -> None:
    pg.sql(OLD)
    move(of(pg, "select 5 as id"), to(pg), mode="replace")
    assert pg.sql("select id from move.to_t") == [(5,)]
    move(of(pg, "select 5 as id where false"), to(pg), mode="replace")
    assert pg.sql("select id from move.to_t") == []
    in_duckdb(file, "create table t(id int primary key); insert into t values (1), (2)")
    target = {"type": "duckdb", "database": file, "table": "t"}
    move(of(pg, "select 2 as id"), target, mode="replace")
    assert in_duckdb(file, "select id from t") == [(2,)]
    url, answers = service
    answers["/none"] = (200, [])
    assert move({"type": "http", "url": f"{url}/none"}, target, mode="replace")["rows_transferred"] == 0
    assert in_duckdb(file, "select id from t") == []
    pg.sql(OLD)
    move({"type": "http", "url": f"{url}/none"}, {**to(pg), "mapping": {"id": "id"}}, mode="replace")
    assert pg.sql("select id from move.to_t") == []


# ── one transaction ─────────────────────────────────────────────────────────────────────────────

BREAKS = "select i + 10 as id, case when i = 2500 then 'x' else i::text end as amount from generate_series(1, 5000) i"


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_failing_row_in_the_middle_leaves_the_postgres_table_as_it_was(pg: Postgres, mode: str) -> None:
    pg.sql(OLD)
    with pytest.raises(ToolError, match='invalid input syntax for type numeric: "x"') as caught:
        move(of(pg, BREAKS), to(pg), mode=mode, chunk_size=100)
    assert "line 2500" in str(caught.value)
    assert pg.sql("select id, name from move.to_t order by id") == [(2, "old"), (9, "stays")]


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_failing_row_in_the_middle_leaves_the_duckdb_table_as_it_was(pg: Postgres, file: str, mode: str) -> None:
    in_duckdb(file, "create table t(id int primary key, amount decimal(10,2)); insert into t values (9999, 1)")
    with pytest.raises(ToolError, match="Could not convert string"):
        move(of(pg, BREAKS), {"type": "duckdb", "database": file, "table": "t"}, mode=mode, chunk_size=100)
    assert in_duckdb(file, "select id from t") == [(9999,)]


def test_source_that_fails_in_the_middle_leaves_the_table_as_it_was(pg: Postgres) -> None:
    broken = "select i as id, 1 / (3000 - i) as amount from generate_series(1, 5000) i"
    with pytest.raises(ToolError, match="division by zero"):
        move(of(pg, broken), to(pg), chunk_size=100)
    assert pg.sql("select count(*) from move.to_t") == [(0,)]


def test_timeout_leaves_the_table_as_it_was_and_ends_the_source(pg: Postgres) -> None:
    slow = "select i as id, pg_sleep(0.01)::text as name from generate_series(1, 100000) i /* slow_source */"
    config = {"source": of(pg, slow), "target": to(pg), "chunk_size": 10, "timeout": 0.5}
    assert run_tool("transfer", config).status is ToolStatus.TIMEOUT
    assert pg.sql("select count(*) from move.to_t") == [(0,)]
    running = "select count(*) from pg_stat_activity where query like '%slow_source%' and state = 'active'"
    assert pg.sql(f"{running} and pid <> pg_backend_pid()") == [(0,)]


def test_cancelled_transfer_into_duckdb_lets_go_of_the_file(pg: Postgres, file: str) -> None:
    slow = "select i as id, pg_sleep(0.001)::text as name from generate_series(1, 100000) i"
    config = {"source": of(pg, slow), "target": {"type": "duckdb", "database": file, "table": "t"}, "chunk_size": 10}

    async def scenario() -> None:
        registry = Registry(plugins=False)
        call = asyncio.ensure_future(registry.run_tool("transfer", config, tool_context(registry=registry)))
        await asyncio.wait({call}, timeout=0.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await registry.aclose()

    asyncio.run(scenario())
    assert in_duckdb(file, "select count(*) from information_schema.tables") == [(0,)]


def test_many_rows_do_not_gather_in_memory(pg: Postgres, file: str) -> None:
    """40 MB go through; not even a quarter of that is Python's at one time."""
    import tracemalloc

    big = "select i as id, repeat('x', 10000) as name from generate_series(1, 4000) i"
    tracemalloc.start()
    try:
        data = move(of(pg, big), {"type": "duckdb", "database": file, "table": "t"}, chunk_size=50)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data["rows_transferred"] == 4000
    assert peak < 10_000_000, peak


# ── what is refused ─────────────────────────────────────────────────────────────────────────────

SOURCE = {"type": "postgres", "host": "h", "query": "select 1"}
TARGET = {"type": "postgres", "host": "h", "table": "t"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"source": SOURCE}, "transfer: field 'target' is missing"),
        ({"source": {}, "target": TARGET}, "transfer: source: field 'type' is missing"),
        ({"source": SOURCE, "target": {"type": "postgres"}}, "transfer: target: Target table name required"),
        (
            {"source": {"type": "postgres", "host": "h"}, "target": TARGET},
            "transfer: source: field 'query' is missing: the SELECT of a postgres source",
        ),
        ({"source": {"type": "http"}, "target": TARGET}, "transfer: source: Source URL required for HTTP transfer"),
        (
            {"source": {"type": "oracle"}, "target": TARGET},
            "transfer: Unsupported transfer direction: oracle to postgres",
        ),
        (
            {"source": SOURCE, "target": {"type": "http", "table": "t"}},
            "transfer: Unsupported transfer direction: postgres to http",
        ),
        ({"source": SOURCE, "target": TARGET, "chunk_size": 0}, "transfer: 'chunk_size' is 0: give 1 to 100000"),
        (
            {"source": SOURCE, "target": TARGET, "mode": "merge"},
            "transfer: field 'mode' must be one of 'append', 'replace', 'upsert', not 'merge' (str)",
        ),
        ({"source": SOURCE, "target": TARGET, "key": "id"}, "transfer: 'key' belongs to mode 'upsert', not 'append'"),
        (
            {"source": {"type": "postgres", "hots": "x", "query": "select 1"}, "target": TARGET},
            "transfer: source: no connection; give 'auth', 'host' or 'connection_string' "
            "(transfer: source: unknown field 'hots' is ignored; did you mean 'host'?)",
        ),
        ({"source": "here", "target": TARGET}, "transfer: field 'source' must be an object, not text"),
        (
            {"source": {"type": "postgres", "query": "{{ q }}"}, "target": {"type": "file", "table": "t"}},
            "transfer: Unsupported transfer direction: postgres to file",
        ),
        (
            {"source": SOURCE, "target": {"type": "duckdb", "table": "t"}},
            "transfer: target: field 'database' is missing: a DuckDB target is a file",
        ),
        (
            {"source": {"type": "file", "path": "a.xml"}, "target": TARGET},
            "transfer: source: 'format' of 'a.xml' is not known; give csv, json or parquet",
        ),
        (
            {"source": {"type": "postgres", "query": "select 1"}, "target": TARGET},
            "transfer: source: no connection; give 'auth', 'host' or 'connection_string'",
        ),
        (
            {
                "source": {"type": "duckdb", "database": "a.db", "query": "select 1"},
                "target": {"type": "duckdb", "database": "a.db", "table": "t"},
            },
            "transfer: source and target are one DuckDB file; use kind duckdb with INSERT INTO ... SELECT",
        ),
    ],
)
def test_broken_config_is_told_exactly(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run_tool("transfer", config)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("query", "change", "config", "message"),
    [
        ("select 1 as id", {"table": "move.none"}, {}, "transfer: target table 'move.none' does not exist"),
        (
            "select 1 as nope",
            {},
            {},
            "transfer: table 'move.to_t' has no column 'nope'; it has: id, name, amount, at, doc, tags, note",
        ),
        (
            "select 1 as id, 2 as name, 3 as name, 4 as id",
            {},
            {},
            "transfer: the source has several columns 'id', 'name': give each a name of its own with AS",
        ),
        (
            "select 1 as id, '{}'::json as doc, '{}'::json as doc, 3 as name, 4 as name",
            {},
            {"mapping": {"id": "id", "name": "doc.a"}},
            "transfer: the source has several columns 'doc': give each a name of its own with AS",
        ),
        ("select 1 as id", {}, {"mapping": {"id": "x"}}, "transfer: the source has no column 'x'; it has: id"),
        (
            "select 1 as name",
            {},
            {"mode": "upsert"},
            "transfer: the rows have no key column 'id'",
        ),
        (
            "select 1 as id",
            {"table": "move.from_t"},
            {"mode": "upsert"},
            "transfer: table 'move.from_t' has no primary key; give 'key' for upsert",
        ),
        (
            'select 1 as id, 2 as a, 3 as "A"',
            {},
            {"mapping": {"id": "id", "name": "a", "NAME": "A"}},
            "transfer: two source columns go to one column of 'move.to_t': id, name, name",
        ),
    ],
)
def test_what_does_not_fit_the_table_is_told_exactly(
    pg: Postgres, query: str, change: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        move(of(pg, query), {**to(pg), **change}, **config)
    assert str(caught.value) == message


def test_key_without_a_unique_index_is_the_databases_word(pg: Postgres) -> None:
    with pytest.raises(ToolError, match="no unique or exclusion constraint matching the ON CONFLICT"):
        move(of(pg, "select 1 as id"), to(pg, "move.from_t"), mode="upsert", key="id")


def test_part_of_a_whole_number_is_refused_by_duckdb_targets_too(pg: Postgres, file: str) -> None:
    in_duckdb(file, "create table t(id int)")
    with pytest.raises(ToolError, match=r"'1.5' is no INTEGER") as caught:
        move(of(pg, "select 1.5 as id"), {"type": "duckdb", "database": file, "table": "t"})
    assert caught.value.kind == "transform"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("a.b", {"a": {}}, "Path segment 'b' not found in JSON"),
        (None, "text", "HTTP response data must be an array or object"),
        (None, [1, 2], "Cannot determine columns from HTTP data: a row is int"),
    ],
)
def test_answers_without_rows_are_told(
    pg: Postgres, service: tuple[str, dict[str, Any]], path: str | None, body: Any, message: str
) -> None:
    url, answers = service
    answers["/x"] = (200, body)
    with pytest.raises(ToolError, match=message) as caught:
        move({"type": "http", "url": f"{url}/x", "data_path": path}, to(pg))
    assert caught.value.kind == "schema"


def test_answer_that_was_cut_fails_the_transfer(pg: Postgres, service: tuple[str, dict[str, Any]]) -> None:
    url, answers = service
    answers["/x"] = (200, [{"id": n} for n in range(1000)])
    with pytest.raises(ToolError, match="source: the answer was cut; raise 'max_response_bytes'") as caught:
        move({"type": "http", "url": f"{url}/x", "max_response_bytes": 100}, to(pg))
    assert caught.value.kind == "resource"
    assert pg.sql("select count(*) from move.to_t") == [(0,)]


def test_refused_request_fails_the_transfer(pg: Postgres, service: tuple[str, dict[str, Any]]) -> None:
    with pytest.raises(ToolError, match="source: HTTP 404"):
        move({"type": "http", "url": f"{service[0]}/nothing"}, to(pg))


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
    assert isinstance(result.data, dict)
    assert result.data["rows_transferred"] == 5


def test_table_names_are_read_as_sql_has_them() -> None:
    assert table_parts("t") == ["t"]
    assert table_parts('a."b.""c".d') == ["a", 'b."c', "d"]
