"""Kind `transfer`: what arrives is what was there, whatever its type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .databases import Postgres
from .one_template import run_tool
from .transfers import from_query, in_duckdb, into, move, out_of, to

pytest.importorskip("psycopg")


ODD = (
    "select 1::int2 a, 'NaN'::float8 b, interval '1 mon 2 days' c, date 'infinity' d, '\\x00ff'::bytea e,"
    " int4range(1,5) f, inet '10.0.0.1' g, '[1]'::jsonb h, '\"x\"'::jsonb i, array[[1,2],[3,4]] j, null::int k,"
    " e'a\\tb\\\\n\\n\"c' l,"
    " 'f'::bool m, '00000000-0000-0000-0000-000000000001'::uuid n, 1e20::numeric o, array[null, '']::text[] p"
)


def test_odd_values_arrive_as_they_were(pg: Postgres) -> None:
    pg.sql(f"create table move.odd as {ODD}; create table move.odd_copy (like move.odd)")
    move(from_query(pg, "select * from move.odd"), to(pg, "move.odd_copy"))
    assert pg.sql("select o::text from move.odd o") == pg.sql("select o::text from move.odd_copy o")


def test_moments_that_python_cannot_hold_go_to_duckdb_and_back(pg: Postgres, file: str) -> None:
    columns = "(d date, t timestamp, z timestamptz)"
    pg.sql(f"create table move.ends {columns}; create table move.ends_copy {columns}")
    pg.sql("insert into move.ends values ('infinity', '-infinity', 'infinity'), ('9999-12-31', '0001-01-01', null)")
    move(from_query(pg, "select * from move.ends"), into(file))
    assert in_duckdb(file, "select count(*) from t where isinf(d) and isinf(t) and isinf(z)") == [(1,)]
    move(out_of(file), to(pg, "move.ends_copy"))
    text = "select o::text from move.{} o order by d"
    assert pg.sql(text.format("ends_copy")) == pg.sql(text.format("ends"))


def test_nanoseconds_go_from_one_duckdb_to_another(file: str) -> None:
    made = "create table t as select timestamp_ns '2026-01-02 03:04:05.123456789' as a, time_ns '03:04:05.1' as b"
    run_tool("duckdb", {"database": file, "query": made})
    move(out_of(file), into(file + "2"))
    assert in_duckdb(file + "2", "select a::text, b::text from t") == [("2026-01-02 03:04:05.123456789", "03:04:05.1")]


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
    move(out_of(file, "select * from d"), to(pg, "move.d"))
    assert pg.sql("select d::text from move.d d") == [
        (
            '(170141183460469231731687303715884105727,"\\\\x6162","{1,NULL}","{""a"": 1, ""b"": ""x""}",'
            '2026-01-02,03:04:05,01:30:00,NaN,00000000-0000-0000-0000-000000000001,t,1.50,"{""k"": 2}")',
        )
    ]
    in_duckdb(file, "create table back as from d limit 0")
    query = "select h, b, l, s, dd, t, n, u, y, c, m from move.d"
    move(from_query(pg, query), into(file, "back"))
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
    move(from_query(pg, exact_rows("jsonb")), to(pg, "move.j"))
    came, sent = "select id, j::text from move.j order by id", exact_rows("jsonb")
    assert pg.sql(came) == pg.sql(f"select id, j::text from ({sent}) s order by id")
    move(from_query(pg, exact_rows("json", ONE_KEY_TWICE)), to(pg, "move.t"))
    assert [text for (text,) in pg.sql("select j::text from move.t order by id")] == [*EXACT, ONE_KEY_TWICE]


def test_json_goes_from_duckdb_to_postgres_without_a_change(pg: Postgres) -> None:
    pg.sql("create table move.t(id int, j json)")
    move({"type": "duckdb", "query": exact_rows("json", ONE_KEY_TWICE)}, to(pg, "move.t"))
    assert [text for (text,) in pg.sql("select j::text from move.t order by id")] == [*EXACT, ONE_KEY_TWICE]


def test_json_goes_from_postgres_to_duckdb_without_a_change(pg: Postgres, file: str) -> None:
    move(from_query(pg, exact_rows("json", ONE_KEY_TWICE)), into(file))
    came = [text for (text,) in in_duckdb(file, "select j::varchar from t order by id")]
    assert came == [*EXACT, ONE_KEY_TWICE]


def test_null_that_is_no_json_stays_null(pg: Postgres, file: str) -> None:
    pg.sql("create table move.t(j jsonb)")
    move(from_query(pg, "select null::jsonb as j"), to(pg, "move.t"))
    move({"type": "duckdb", "query": "select null::json as j"}, to(pg, "move.t"))
    assert pg.sql("select j is null from move.t") == [(True,), (True,)]


def test_arrays_of_json_keep_what_is_in_them(pg: Postgres, file: str) -> None:
    pg.sql("create table move.t(j json[])")
    query = """select array['{"n": 18446744073709551615}', 'null', null, '"[1]"']::json[] as j"""
    move(from_query(pg, query), to(pg, "move.t"))
    assert pg.sql("select j::text from move.t") == pg.sql(query.replace(" as j", "::text"))
    move(from_query(pg, query), into(file))
    assert in_duckdb(file, "select j[1]::varchar, j[4]::varchar from t") == [('{"n":18446744073709551615}', '"[1]"')]


def test_lists_of_a_json_file_with_items_of_several_kinds_arrive_as_they_were(pg: Postgres, tmp_path: Path) -> None:
    pg.sql("create table move.t(id int, v jsonb, w text[])")
    lists = [[1, "a", None], [{"b": 2}], [[0.5], [True]]]
    lines = [json.dumps({"id": number, "v": value, "w": value}) for number, value in enumerate(lists)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    move({"type": "duckdb", "query": f"from read_json('{tmp_path}/a.jsonl')"}, to(pg, "move.t"))
    texts = [["1", "a", None], ['{"b":2}'], ["[0.5]", "[true]"]]
    assert pg.sql("select v, w from move.t order by id") == list(zip(lists, texts, strict=True))


def test_json_in_other_columns_is_its_text(pg: Postgres, file: str) -> None:
    pg.sql("create table move.t(a text, b text, c text, d int[], e date, f numeric)")
    query = (
        """select '{"n": 1.10}'::jsonb a, '"x"'::jsonb b, 'null'::jsonb c, '[1, null]'::jsonb d,"""
        """ '"2026-01-02"'::jsonb e, '0.12345678901234567890'::jsonb f"""
    )
    move(from_query(pg, query), to(pg, "move.t"))
    expected = [('{"n": 1.10}', "x", None, "{1,NULL}", "2026-01-02", "0.12345678901234567890")]
    assert pg.sql("select a, b, c, d::text, e::text, f::text from move.t") == expected
    in_duckdb(file, "create table t(a text, b text, c text, d int[], e date, f decimal(30,20))")
    move(from_query(pg, query), into(file))
    expected = [('{"n": 1.10}', "x", None, "[1, NULL]", "2026-01-02", "0.12345678901234567890")]
    assert in_duckdb(file, "select a, b, c, d::text, e::text, f::text from t") == expected


def test_path_into_json_keeps_what_is_there(pg: Postgres) -> None:
    pg.sql("create table move.t(a jsonb, b jsonb, c text, d jsonb, e numeric)")
    query = """select '{"a": {"n": 18446744073709551615}, "b": "{}", "c": "x", "e": 1.10}'::jsonb as doc"""
    move(from_query(pg, query), to(pg, "move.t"), mapping={one: f"doc.{one}" for one in "abcde"})
    assert pg.sql("select a::text, b::text, c, d::text, e::text from move.t") == [
        ('{"n": 18446744073709551615}', '"{}"', "x", None, "1.10")
    ]


KEY = "abcdef00-0000-0000-0000-000000000001"


def test_uuid_in_a_text_column_is_as_the_server_writes_it(pg: Postgres) -> None:
    pg.sql(
        f"create table move.t(id text primary key, ids text[], v varchar(9)); insert into move.t(id) values ('{KEY}')"
    )
    data = move(
        from_query(pg, f"select '{KEY}'::uuid id, array['{KEY}', null]::uuid[] ids, 'a' v"),
        to(pg, "move.t"),
        mode="upsert",
    )
    assert (data["rows_inserted"], data["rows_updated"]) == (0, 1)
    assert pg.sql("select * from move.t") == [(KEY, [KEY, None], "a")]


@pytest.mark.parametrize("kind", ["text", "varchar"])
def test_values_in_a_text_column_are_as_the_server_writes_them(pg: Postgres, kind: str) -> None:
    pg.sql(f"create table move.t(a {kind}, b {kind}, c {kind}, d {kind}[], e {kind}[])")
    query = "select true a, 0.0000001 b, 'NaN'::numeric c, array[false, null] d, array[1e-9, 1e20]::numeric[] e"
    move(from_query(pg, query), to(pg, "move.t"))
    expected = ("true", "0.0000001", "NaN", ["false", None], ["0.000000001", "100000000000000000000"])
    assert pg.sql("select * from move.t") == [expected]


def test_bytes_within_a_list_or_struct_stay_what_they_are_in_duckdb(file: str) -> None:
    made = "{'b': 'a\\x00\\xFF'::blob, 't': 'a'}"
    query = f"select ['\\x00\\xFFa\\x5C'::blob, null, ''::blob] a, {made} s, map {{'k': 'ab'::blob}} m, [[{made}]] d"
    in_duckdb(file, f"create table s as {query}")
    target = file + "2"
    move(out_of(file, "select * from s"), into(target))
    assert in_duckdb(target, "from t") == in_duckdb(file, "from s")
