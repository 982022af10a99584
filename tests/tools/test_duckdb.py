"""Kind `duckdb`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import arun_tool, run_tool, tool_context
from noetl_worker.tools.registry import Registry

pytest.importorskip("duckdb")

ENDLESS = "select count(*) from range(100000000000) a where sin(a.range) > 0.5"


def query(text: Any, **config: Any) -> dict[str, Any]:
    data = run_tool("duckdb", {"query": text, **config}).data
    assert isinstance(data, dict)
    return data


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


def test_changes_are_counted_and_an_empty_result_keeps_its_columns() -> None:
    data = query("create table t as select * from range(4) r(i); update t set i = i + 1 where i > 0")
    assert (data["affected_rows"], data["rows"]) == (3, [])
    data = query("select 1 as a where false")
    assert (data["columns"], data["rows"], data["row_count"]) == (["a"], [], 0)


def test_values_have_a_json_form() -> None:
    row = query(
        "select 1.50::decimal(5,2) d, date '2026-01-02' dd, timestamp '2026-01-02 03:04:05' ts, [1,2] l, {'a': 1} s,"
        " 'ab'::blob b, 170141183460469231731687303715884105727::hugeint h, 'nan'::double n, null z, true t"
    )["rows"][0]
    assert row == {
        "d": "1.50", "dd": "2026-01-02", "ts": "2026-01-02T03:04:05", "l": [1, 2], "s": {"a": 1}, "b": "YWI=",
        "h": "170141183460469231731687303715884105727", "n": None, "z": None, "t": True,
    }  # fmt: skip


def test_parameters_and_rows_as_lists() -> None:
    assert query("select ? + 1 as a", params=[41])["rows"] == [{"a": 42}]
    assert query("select $x as a, 2 as b", params={"x": "y"}, as_objects=False)["rows"] == [["y", 2]]


def test_too_many_rows_are_left_out_and_marked() -> None:
    data = query("select * from range(100)", max_rows=10)
    assert (data["row_count"], data["truncated"]) == (10, True)


def test_database_file_keeps_and_memory_does_not(tmp_path: Path) -> None:
    file = str(tmp_path / "a.duckdb")
    query("create table t as select 1 as i", db_path=file)
    assert query("select i from t", database=file)["rows"] == [{"i": 1}]
    query("create table t as select 1 as i")
    with pytest.raises(ToolError, match="Table with name t does not exist"):
        query("select i from t")


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


def test_nothing_to_run_and_no_file() -> None:
    with pytest.raises(ConfigurationError, match="has no statement"):
        query("  -- nothing\n")
    with pytest.raises(ToolError, match=r"Failed to open database '/no/such/x\.db'"):
        query("select 1", database="/no/such/x.db")


def test_timeout_interrupts_the_query() -> None:
    began = time.monotonic()
    result = run_tool("duckdb", {"query": ENDLESS, "timeout": 0.3})
    assert result.status is ToolStatus.TIMEOUT
    assert time.monotonic() - began < 10


def test_cancelled_call_interrupts_the_query() -> None:
    async def scenario() -> float:
        registry = Registry(plugins=False)
        call = asyncio.ensure_future(registry.run_tool("duckdb", {"query": ENDLESS}, tool_context(registry=registry)))
        while not call.done() and not registry._tools:
            await asyncio.sleep(0)
        began = time.monotonic()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await registry.aclose()
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 10


def test_many_at_once() -> None:
    async def scenario() -> list[Any]:
        found = await asyncio.gather(*(arun_tool("duckdb", {"query": f"select {n} as n"}) for n in range(20)))
        return [result.data["rows"][0]["n"] for result in found]

    assert asyncio.run(scenario()) == list(range(20))


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'noetl-worker\[duckdb\]'"):
        query("select 1")
