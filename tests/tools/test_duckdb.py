"""Kind `duckdb`: statements, rows and their types, secrets, stops."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import Dialect, ToolStatus
from noetl_worker.testing import tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.kinds.duckdb import secrets as duckdb_secrets
from noetl_worker.tools.registry import Registry
from tool_settings import tool_settings

from .databases import Postgres, duckdb_extensions, query
from .one_template import run_tool

pytest.importorskip("duckdb")

ENDLESS = "select count(*) from range(1000000000000000) a where sin(a.range) > 0.5"


def test_row_count_of_a_write_is_the_number_of_rows_on_the_python_plane() -> None:
    text = "create table t (i int); insert into t values (1), (2), (3)"
    counts = [run_tool("duckdb", {"query": text}, dialect=plane).data["row_count"] for plane in Dialect]
    assert counts == [3 if plane is Dialect.PYTHON else 0 for plane in Dialect]


def test_data_is_the_last_statements() -> None:
    data = query("create table t as select * from range(3) r(i); select i, i * 2 as d from t order by i;")
    assert data["columns"] == ["i", "d"]
    assert data["rows"] == [{"i": 0, "d": 0}, {"i": 1, "d": 2}, {"i": 2, "d": 4}]
    assert (data["row_count"], data["affected_rows"], data["statement_count"]) == (3, None, 2)
    assert data["statements"][0] == {
        "statement": "create table t as select * from range(3) r(i)", "row_count": 0, "affected_rows": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("-- it's a comment; really\nselect 1 as a", [{"a": 1}]),
        ("select $$a;b$$ as a", [{"a": "a;b"}]),
        ("values (1)", [{"col0": 1}]),
        ("create table t(i int); insert into t values (7) returning i", [{"i": 7}]),
        ("select 1 as a, 2 as a", [{"a": 1, "a_2": 2}]),
        (["create table t(i int);", "insert into t values (1);", "select i from t"], [{"i": 1}]),
    ],
)
def test_rows_of(text: Any, rows: list[dict[str, Any]]) -> None:
    assert query(text)["rows"] == rows


TABLE = "create table t as select 1::bigint as i; "


@pytest.mark.parametrize(
    ("text", "column", "values"),
    [
        ("select 1 as a where false", "a", []),
        ("select 42 as Success", "Success", [42]),
        ("select 42 as Success where false", "Success", []),
        ("select 5 as Count", "Count", [5]),
        (TABLE + "insert into t values (7), (8) returning i as Count", "Count", [7, 8]),
        (TABLE + "update t set i = 3 returning i as Count", "Count", [3]),
        (TABLE + "delete from t returning i as Success", "Success", [1]),
        (TABLE + "delete from t where i = 9 returning i as Success", "Success", []),
        (TABLE + "prepare p as select 5 as Count; execute p", "Count", [5]),
        ("pivot (values ('Count')) t(x) on x", "Count", [1]),
    ],
)
def test_no_name_of_a_column_makes_its_rows_vanish(text: str, column: str, values: list[int]) -> None:
    data = query(text)
    assert (data["columns"], data["rows"]) == ([column], [{column: value} for value in values])
    assert data["row_count"] == len(values)
    assert data["affected_rows"] == (len(values) if "returning" in text else None)


def test_rows_of_a_change_are_counted_beyond_those_that_are_kept() -> None:
    data = query("create table t(i int); insert into t from range(25000) returning i", max_rows=3)
    assert (data["affected_rows"], data["row_count"], data["truncated"]) == (25000, 3, True)


@pytest.mark.parametrize(
    ("text", "affected"),
    [
        (TABLE + "insert into t values (7), (8)", 2),
        (TABLE + "insert into t select 7 -- returning i\n", 1),
        ("create table t as select * from range(4) r(i); update t set i = i + 1 where i > 0", 3),
        ("create table t(s text); insert into t values ('returning'), (' returning ')", 2),
        ("create table t as select * from range(3)", 3),
        ("create table t(i int)", 0),
        (TABLE + "delete from t where i = 9", 0),
        ("set threads = 1", None),
        ("begin; commit", None),
        ("checkpoint", None),
    ],
)
def test_what_only_counts_has_no_columns(text: str, affected: int | None) -> None:
    data = query(text)
    assert (data["columns"], data["rows"], data["affected_rows"]) == ([], [], affected)


TYPES: list[tuple[str, Any]] = [
    ("1.50::decimal(5,2)", "1.50"), ("date '2026-01-02'", "2026-01-02"), ("true", True), ("null", None),
    ("timestamp '2026-01-02 03:04:05'", "2026-01-02T03:04:05"), ("time '03:04:05.5'", "03:04:05.500000"),
    ("[1, null]", [1, None]), ("[['a'], []]", [["a"], []]), ("array_value(1, 2)", [1, 2]),
    ("{'a': 1, 'b': {'c': 1.10}}", {"a": 1, "b": {"c": "1.10"}}), ("map {'a': 1}", {"a": 1}),
    ("map {1: 'x'}", {"1": "x"}), ("map {date '2026-01-02': true}", {"2026-01-02": True}),
    ("'ab'::blob", "YWI="), ("'{\"a\": [1, null]}'::json", {"a": [1, None]}),
    ("170141183460469231731687303715884105727::hugeint", "170141183460469231731687303715884105727"),
    ("7::hugeint", 7), ("18446744073709551615::ubigint", "18446744073709551615"),
    ("'nan'::double", "NaN"), ("'-infinity'::float", "-Infinity"), ("['nan'::double]", ["NaN"]),
    ("interval '2 days 90 minutes'", "P2DT1H30M"), ("interval '-1 second'", "PT-1S"), ("interval '0 days'", "PT0S"),
    ("uuid '00000000-0000-0000-0000-000000000001'", "00000000-0000-0000-0000-000000000001"),
    ("'101'::bit", "101"), ("'x'::enum('x', 'y')", "x"), ("union_value(a := 1)", 1),
    ("date '0044-01-01 (BC)'", "0044-01-01 (BC)"), ("''", ""),
]  # fmt: skip


def test_every_type_has_a_json_form_and_only_null_is_null() -> None:
    row = query("select " + ", ".join(f"{text} as v{number}" for number, (text, _) in enumerate(TYPES)))["rows"][0]
    assert {text: row[f"v{number}"] for number, (text, _) in enumerate(TYPES)} == dict(TYPES)


def test_moment_with_time_zone_has_its_offset() -> None:
    text = "set timezone = 'Asia/Tokyo'; select timestamptz '2026-01-02 03:04:05+00' as t"
    assert query(text)["rows"] == [{"t": "2026-01-02T12:04:05+09:00"}]


def test_parameters_and_rows_as_lists() -> None:
    assert query("select ? + 1 as a", params=[41])["rows"] == [{"a": 42}]
    assert query("select $x as a, 2 as b", params={"x": "y"}, as_objects=False)["rows"] == [["y", 2]]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("selec 1", "db_syntax", "SQL does not parse: Parser Error"),
        ("select 1; select nope", "db_syntax", r"statement 2 \(select nope\): Binder Error"),
        ("create table t(i int primary key); insert into t values (1), (1)", "db_constraint", "statement 2"),
    ],
)
def test_failed_statement_is_named(text: str, kind: str, message: str) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        query(text)
    assert caught.value.kind == kind


def test_transaction_that_is_left_open_fails(file: str) -> None:
    query("create table t(i int)", database=file)
    with pytest.raises(ToolError, match="the SQL leaves a transaction open, which was rolled back") as caught:
        query("begin; insert into t values (1)", database=file)
    assert caught.value.kind == "db_transaction"
    query("begin; insert into t values (2); commit", database=file)
    assert query("begin; rollback; select i from t", database=file)["rows"] == [{"i": 2}]


@pytest.mark.parametrize("text", ["insert into t values (1); commit", "rollback", "begin; begin"])
def test_text_whose_transaction_is_wrong_is_not_to_be_tried_again(file: str, text: str) -> None:
    query("create table t(i int)", database=file)
    with pytest.raises(ToolError, match="transaction") as caught:
        query(text, database=file)
    assert (caught.value.kind, caught.value.retryable) == ("db_transaction", False)


def test_variables_of_the_worker_are_no_tables() -> None:
    with pytest.raises(ToolError, match="Table with name connection does not exist"):
        query("SELECT * FROM connection")


def test_secret_of_one_execution_is_never_kept_for_the_next() -> None:
    with pytest.raises(ToolError, match=r"(?i)persistent secrets are.* disabled"):
        query("CREATE PERSISTENT SECRET left_behind (TYPE http, BEARER_TOKEN 'x')")


def test_query_of_a_comment_alone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^'query' has no statement; write one$"):
        query("-- nothing\n")


def test_memory_limit_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="duckdb: memory_limit = 'much' is refused: "):
        query("select 1", memory_limit="much")


def test_memory_limit_of_the_worker_names_its_variable() -> None:
    settings, text = tool_settings(NOETL_DUCKDB_MEMORY_LIMIT="200MB"), "select current_setting('memory_limit') as m"
    for config, shown in (({}, "190.7 MiB"), ({"memory_limit": "100MB"}, "95.3 MiB")):
        found: Any = run_tool("duckdb", {"query": text, **config}, settings=settings).data
        assert found["rows"] == [{"m": shown}]
    with pytest.raises(ConfigurationError, match="duckdb: NOETL_DUCKDB_MEMORY_LIMIT = 'some' is refused: "):
        run_tool("duckdb", {"query": "select 1"}, settings=ToolSettings(duckdb_memory_limit="some"))


def test_extension_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    variables = {"DIRECTORY": str(tmp_path), "REPOSITORY": str(tmp_path / "mirror")}
    settings = tool_settings(**{f"NOETL_DUCKDB_EXTENSION_{name}": text for name, text in variables.items()})
    message = (
        r"duckdb: extension 'nothing_like_it' is not installed and cannot be fetched: .*; install it for DuckDB "
        r"[\d.]+ where the worker runs, or name a directory that has it in NOETL_DUCKDB_EXTENSION_DIRECTORY"
    )
    with pytest.raises(ConfigurationError, match=message):
        run_tool("duckdb", {"query": "select 1", "extensions": ["nothing_like_it"]}, settings=settings)


def test_extension_that_is_there_is_loaded() -> None:
    assert query("select json_extract('{\"a\": 1}', '$.a')::int as a", extensions=["json"])["rows"] == [{"a": 1}]


@pytest.mark.parametrize("name", ["query_b64", "command_b64", "commands_b64", "sql_b64"])
def test_base64_spellings_are_decoded_and_not_rendered(name: str) -> None:
    text = base64.b64encode("select '{{ a }}' as a, 'ü' as u".encode()).decode()
    data: Any = run_tool("duckdb", {name: text}, variables={"a": "rendered"}).data
    assert data["rows"] == [{"a": "{{ a }}", "u": "ü"}]


def test_more_than_memory_allows_is_a_resource_failure() -> None:
    text = "set temp_directory = ''; select count(distinct i) from range(30000000) r(i)"
    with pytest.raises(ToolError, match="Out of Memory Error") as caught:
        query(text, memory_limit="30MB", threads=1)
    assert caught.value.kind == "resource"
    assert query("select current_setting('memory_limit') as m", memory_limit="100MB")["rows"] == [{"m": "95.3 MiB"}]


def test_too_many_rows_are_marked_and_not_read_to_their_end() -> None:
    """To its end it takes longer than this test lasts."""
    text = "select i, repeat('x', 1000) as x from range(1000000000000) r(i)"
    data = query(text, max_rows=5, memory_limit="200MB")
    assert (len(data["rows"]), data["row_count"], data["truncated"]) == (5, 5, True)


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────


async def test_credentials_become_secrets_and_their_values_stay_out_of_messages() -> None:
    credentials = {
        "pg-main": {"type": "postgres", "db_host": "h", "db_port": 5433, "db_password": "p'w#1", "db_name": "d"},
        "hmac": {"type": "gcs_hmac", "key_id": "K", "secret": "SS99"},
    }
    seen: set[str] = set()

    async def scenario(auth: Any) -> list[Any]:
        return await duckdb_secrets.fetch_secrets("duckdb", auth, tool_context(credentials=credentials, secrets=seen))

    [one] = await scenario("pg-main")
    assert one.statement() == (
        'CREATE OR REPLACE TEMPORARY SECRET "pg_main" '
        "(TYPE postgres, HOST 'h', PORT '5433', DATABASE 'd', PASSWORD 'p''w#1')"
    )
    several = {"a": {"source": "credential", "key": "pg-main"}, "b": {"credential": "hmac", "scope": "gs://x"}}
    names = [(secret.name, secret.kind, secret.extension) for secret in await scenario(several)]
    assert names == [("a", "postgres", "postgres"), ("b", "gcs", "httpfs")]
    assert "p'w#1" not in repr(one)
    assert one.redacted_error("bad p'w#1 in 5433") == "bad *** in 5433"
    assert seen == {"p'w#1", "SS99"}


def test_postgres_is_attached_by_a_secret(tmp_path: Path, postgres: Postgres) -> None:
    extensions = str(duckdb_extensions(tmp_path, "postgres_scanner"))
    settings = tool_settings(NOETL_DUCKDB_EXTENSION_DIRECTORY=extensions)
    from psycopg.conninfo import conninfo_to_dict

    known = conninfo_to_dict(postgres.uri)
    data = {"type": "postgres", "db_host": known["host"], "db_user": "postgres", "db_name": "postgres"}
    text = "attach '' as pg (type postgres, secret pg_k8s); select * from postgres_query('pg', 'select 7 as n')"
    config = {"query": text, "auth": "pg_k8s"}
    found: Any = run_tool("duckdb", config, credentials={"pg_k8s": data}, settings=settings).data
    assert found["rows"] == [{"n": 7}]


def test_timeout_ends_the_query() -> None:
    result = run_tool("duckdb", {"query": ENDLESS, "timeout": 0.3})
    assert result.status is ToolStatus.TIMEOUT


async def test_many_at_once(registry: Registry) -> None:
    context = tool_context(registry=registry)
    queries = [{"query": f"select {n} as n"} for n in range(20)]
    found = await asyncio.gather(*(registry.run_tool("duckdb", query, context) for query in queries))
    assert [result.data["rows"][0]["n"] for result in found] == list(range(20))
