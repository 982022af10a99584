"""Values of DuckDB that its library for Python cannot hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from noetl_worker.errors import ToolError

from .databases import query
from .one_template import run_tool

pytest.importorskip("duckdb")


MOMENTS: list[tuple[str, str, Any]] = [
    ("date 'infinity'", "DATE", "infinity"), ("date '-infinity'", "DATE", "-infinity"),
    ("date '9999-12-31'", "DATE", "9999-12-31"), ("date '0001-01-01'", "DATE", "0001-01-01"),
    ("timestamp 'infinity'", "TIMESTAMP", "infinity"), ("timestamp '-infinity'", "TIMESTAMP", "-infinity"),
    ("timestamp '9999-12-31 23:59:59.999999'", "TIMESTAMP", "9999-12-31T23:59:59.999999"),
    ("timestamptz '-infinity'", "TIMESTAMPTZ", "-infinity"), ("timestamp_s '2026-01-02'", "TIMESTAMP_S", ANY),
    ("timestamp_ns 'infinity'", "TIMESTAMP_NS", "infinity"), ("null::timestamp_ns", "TIMESTAMP_NS", None),
    ("timestamp_ns '2026-01-02 03:04:05.123456789'", "TIMESTAMP_NS", "2026-01-02T03:04:05.123456789"),
    ("timestamp_ns '2026-01-02 03:04:05.1'", "TIMESTAMP_NS", "2026-01-02T03:04:05.100000"),
    ("timestamp_ns '2026-01-02'", "TIMESTAMP_NS", "2026-01-02T00:00:00"),
    ("time_ns '03:04:05.123456789'", "TIME_NS", "03:04:05.123456789"), ("time_ns '03:04:05'", "TIME_NS", "03:04:05"),
    ("timestamptz_ns '2026-01-02 03:04:05.123456789+00'", "TIMESTAMPTZ_NS", "2026-01-02T03:04:05.123456789+00:00"),
]  # fmt: skip


def test_moments_that_python_cannot_hold_are_whole() -> None:
    text = "set timezone = 'UTC'; select " + ", ".join(f"{text} as v{n}" for n, (text, _, _) in enumerate(MOMENTS))
    row = query(text)["rows"][0]
    assert [(text, row[f"v{n}"]) for n, (text, _, _) in enumerate(MOMENTS)] == [(text, one) for text, _, one in MOMENTS]


@pytest.mark.parametrize(
    ("text", "params", "rows"),
    [
        ("select date 'infinity' as a, 1 as a", [], [{"a": "infinity", "a_2": 1}]),
        ("select ?::date as a -- as it is\n;", ["infinity"], [{"a": "infinity"}]),
        ("select $d::date as a", {"d": "infinity"}, [{"a": "infinity"}]),
        ("with x as (select date 'infinity' as d) from x /* ; */", [], [{"d": "infinity"}]),
        ("values (date 'infinity')", [], [{"col0": "infinity"}]),
        ("(select date 'infinity' as d) union all (select null) order by 1", [], [{"d": "infinity"}, {"d": None}]),
        (
            "select i, date '2026-01-01' + i::int as d from range(3) r(i) order by i desc",
            [],
            [{"i": i, "d": f"2026-01-0{i + 1}"} for i in (2, 1, 0)],
        ),
        (
            "create sequence s; create table t as select date 'infinity' as d; "
            "select nextval('s') as n, d from t; select nextval('s') as n, d from t",
            [],
            [{"n": 2, "d": "infinity"}],
        ),
        ("select ['{\"a\": 1}'::json, null] as a, [['[]'::json]] as b", [], [{"a": [{"a": 1}, None], "b": [[[]]]}]),
    ],
)
def test_whole_moments_come_from_every_select(text: str, params: Any, rows: list[dict[str, Any]]) -> None:
    assert query(text, params=params)["rows"] == rows


def test_what_the_guide_says_of_moments_within_other_values() -> None:
    values = "[date 'infinity'] as a, {'x': timestamp '-infinity'} as b, {'x': '{}'::json} as c"
    assert query(f"select {values}")["rows"] == [
        {"a": ["9999-12-31"], "b": {"x": "0001-01-01T00:00:00"}, "c": {"x": "{}"}}
    ]


def test_what_may_run_when_it_is_described_is_run_as_it_is() -> None:
    macro = "create macro my_query() as table select date 'infinity' as d; "
    assert query(macro + "select d from my_query()")["rows"] == [{"d": "9999-12-31"}]
    assert query(macro + "select d, 'my_query()' as s from (from my_query ())")["rows"][0]["d"] == "9999-12-31"


def test_value_beyond_pythons_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"statement 1 \(select to_days.* CAST it to VARCHAR") as caught:
        query("select to_days(2000000000) as a")
    assert caught.value.kind == "db_error"
    source = {"type": "duckdb", "query": "select to_days(2000000000) as a"}
    target = {"type": "duckdb", "database": str(tmp_path / "a.duckdb"), "table": "t"}
    with pytest.raises(ToolError, match=r"source: .* CAST it to VARCHAR") as caught:
        run_tool("transfer", {"source": source, "target": target})
    assert caught.value.kind == "db_error"
    assert query("select to_days(2000000000)::varchar as a")["rows"] == [{"a": "2000000000 days"}]
