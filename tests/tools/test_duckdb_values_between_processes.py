"""Each value of a DuckDB arrives in the worker as the library gives it."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.tools.kinds.duckdb import typed_values

VALUES = [
    "NULL",
    "true",
    "'-128'::TINYINT",
    "9223372036854775807::BIGINT",
    "'-9223372036854775808'::BIGINT",
    "170141183460469231731687303715884105727::HUGEINT",
    "340282366920938463463374607431768211455::UHUGEINT",
    "0.1::FLOAT",
    "1e-7::DOUBLE",
    "'-inf'::DOUBLE",
    "1.50::DECIMAL(38,2)",
    "'a\"b\\ü\n😀'",
    "'\\x00\\xFF'::BLOB",
    "DATE '0001-01-01'",
    "TIME '23:59:59.999999'",
    "TIMETZ '12:00:00+02:30'",
    "TIMESTAMP '2020-02-29 12:30:45.123456'",
    "TIMESTAMPTZ '2020-02-29 12:30:45.123456+05:30'",
    "INTERVAL '-1 day 3 seconds'",
    "'5f2b8a4e-0000-4000-8000-000000000001'::UUID",
    "[1, NULL, 3]",
    "[[1.5::DECIMAL(3,1)], []]",
    "array_value(1, 2)",
    "{'a': DATE '2020-01-01', 'b': [{'c': 'x'::BLOB}]}",
    "MAP {1: 'one', 2: NULL}",
    "MAP {DATE '2020-01-01': 1.5::DECIMAL(3,1)}",
    "'{\"a\": 1}'::JSON",
    "'101'::BIT",
    "union_value(n := 1)",
]


@pytest.mark.parametrize("value", VALUES)
def test_value_is_the_same_after_it_was_written_and_read(value: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        [[given]] = connection.execute(f"SELECT {value}").fetchall()
    read = typed_values.read(json.loads(json.dumps(typed_values.written(given))))
    assert (read, type(read)) == (given, type(given))


def test_what_is_no_number_stays_none() -> None:
    read = typed_values.read(json.loads(json.dumps(typed_values.written(math.nan))))
    assert math.isnan(read)


@pytest.mark.parametrize(
    "value", [{}, {"date": "x"}, {"date": 1}, {"eval": "1"}, {"a": 1, "b": 2}, {"object": [1]}, {"decimal": []}]
)
def test_what_no_duckdb_gives_is_refused(value: Any) -> None:
    with pytest.raises(ToolError, match="an unknown encoding"):
        typed_values.read(value)


def test_value_of_another_type_is_named() -> None:
    with pytest.raises(TypeError, match="unexpected type timezone"):
        typed_values.written(datetime.timezone.utc)
