"""Values beside the text of kind `postgres`: lists, parameters and their place holders."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.tools.kinds.postgres.errors import statement_failure

from .databases import Postgres

pytest.importorskip("psycopg")


@pytest.mark.parametrize("place", ["$1", "%s", "%(v)s"])
@pytest.mark.parametrize(
    ("value", "expression", "given"),
    [
        ([], "{}::jsonb", []),
        ([], "{}::json", []),
        ([], "{}::int[]", []),
        ([], "1 = any ({}::int[])", False),
        ([1, "a", None], "{}::jsonb", [1, "a", None]),
        ([[]], "{}::jsonb", [[]]),
        ([{"a": []}], "{}::jsonb", [{"a": []}]),
        ([[[{"a": 1}]]], "{}::jsonb", [[[{"a": 1}]]]),
        ([{"a": 1}, [], None], "{}::jsonb[]", [{"a": 1}, [], None]),
        ([{"a": 1}], "json_array_length({})", 1),
        ([1, 2.5, None], "{}::float8[]", [1.0, 2.5, None]),
        ([[1, 2.5], [3, 4]], "{}::float8[]", [[1.0, 2.5], [3.0, 4.0]]),
        ([1, 2.5], "{}", [1.0, 2.5]),
        ([2**53 + 1, 2.5], "{}::numeric[]", ["9007199254740993", "2.5"]),
        ([1, 2], "to_jsonb({})", [1, 2]),
        ([1, 2], "cardinality({})", 2),
        ({"a": 1}, "{}::jsonb -> 'a'", 1),
    ],
)
def test_a_list_or_object_is_what_the_server_expects(
    query: Any, place: str, value: Any, expression: str, given: Any
) -> None:
    params = {"v": value} if "v" in place else [value]
    assert query(f"select {expression.format(place)} as a", params=params)["rows"] == [{"a": given}]
    # After other statements of the text, in its transaction, which a list of unknown type must not end.
    assert query(f"select 1; select {expression.format(place)} as a", params=params)["rows"] == [{"a": given}]


def test_a_list_goes_into_a_column_of_its_type(query: Any) -> None:
    table = "create temp table t(i int, j jsonb, a int[]);"
    data = query(f"{table} insert into t values ($1, $2, $3) returning *", params=[1, [], []])
    assert data["rows"] == [{"i": 1, "j": [], "a": []}]


def test_values_without_a_place_are_refused(query: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"has 4 values, but the statement does not use \$2, \$4: leave out"):
        query("select 2; select $1::int, $3::int", params=[1, 2, 3, 4])
    assert query("select $1::int as a, $1::int + $2::int as b", params=[1, 2])["rows"] == [{"a": 1, "b": 3}]


def test_parameters_in_both_styles_take_the_columns_types(query: Any) -> None:
    assert query("select $1::int4 + 1 as a, $2 as b", params=[41, "x"])["rows"] == [{"a": 42, "b": "x"}]
    assert query("select %s::date as a", params=["2026-01-02"])["rows"] == [{"a": "2026-01-02"}]
    assert query("select %(n)s::int as a", params={"n": 4}, as_objects=False)["rows"] == [[4]]


def test_parameters_go_to_the_last_statement_and_all_are_one_transaction(query: Any, postgres: Postgres) -> None:
    postgres.sql("drop table if exists atomic; create table atomic(i int primary key, note text)")
    rows = query(
        ["insert into atomic values (1, 'a;b')", "insert into atomic values ($1, $2) returning i"], params=[2, "c"]
    )["rows"]
    assert rows == [{"i": 2}]
    with pytest.raises(ToolError, match=r"Key \(i\)=\(1\) already exists"):
        query("insert into atomic values (3, $$x;y$$) /* ; */; insert into atomic values (%s, 'x')", params=[1])
    assert postgres.sql("select i from atomic order by i") == [(1,), (2,)]


@pytest.mark.parametrize(
    "text",
    [
        "select id, name from (values (1, 'a smith'), (2, 'b smith')) t(id, name) where name like '%smith' and id = $1",
        "select $1::int as id, 'a smith' as name /* not %s */ -- and not %s",
        "select $1::int + 5 %size - 5 as id, 'a smith' as name from (values (9)) t(size)",
    ],
)
def test_percent_sign_beside_a_numbered_place_holder_is_only_text(query: Any, text: str) -> None:
    assert query(text, params=[1])["rows"] == [{"id": 1, "name": "a smith"}]


def test_place_holder_in_a_string_is_only_text(query: Any) -> None:
    assert query("select '%s' as x, $1::int as y", params=[3])["rows"] == [{"x": "%s", "y": 3}]
    assert query("select '$1' as x, %s::int as y", params=[3])["rows"] == [{"x": "$1", "y": 3}]


def test_place_holders_of_two_kinds_are_refused(query: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"two kinds, \$1 and %s: write all of them as \$1, \$2"):
        query("select $1::int, %s::int", params=[1, 2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select 1", r"0 placeholders but 1 parameters were passed; give one value in 'params' .* write %% for a perc"),
        ("select %s::int, 'a%'", r"'.*; beside %s write %% for a percent sign, or use \$1, \$2 as place holders"),
        ("select %s::int, 'a%b %c'", r"are allowed as placeholders.*; beside %s write %% for a percent sign"),
    ],
)
def test_place_holders_that_are_not_understood_say_what_to_write(query: Any, text: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        query(text, params=[1])


def test_too_few_values_are_the_playbooks_error_and_no_lost_connection(query: Any) -> None:
    with pytest.raises(ToolError, match=r"SQLSTATE 08P01.* give one value in 'params' for each place holder") as caught:
        query("select $1::int, $2::int", params=[1])
    assert (caught.value.kind, caught.value.retryable, caught.value.code) == ("db_syntax", False, "08P01")


def test_protocol_violation_that_ends_the_session_is_a_lost_connection() -> None:
    said = {"message_primary": "invalid frontend message type 0", "severity_nonlocalized": "FATAL"}
    others = ("statement_position", "message_detail", "message_hint", "context")
    error = SimpleNamespace(sqlstate="08P01", diag=SimpleNamespace(**said, **dict.fromkeys(others)))
    told = statement_failure(error, "select 1")
    assert (told.kind, told.retryable) == ("connection", True)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("select %(a_long_name)s::int, nope", {"a_long_name": 1}),
        ("select 1;\n\nselect nope, $1::int", [1]),
        ("select 1;\n\nselect nope;\nselect $1::int", [1]),
    ],
)
def test_no_place_is_told_where_the_server_saw_another_text(query: Any, text: str, params: Any) -> None:
    with pytest.raises(ToolError, match=r'column "nope" does not exist \(SQLSTATE 42703\)$'):
        query(text, params=params)
