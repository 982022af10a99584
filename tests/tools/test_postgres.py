"""Kind `postgres`, against a Postgres of our own (skipped where its wheel is absent)."""

from __future__ import annotations

import asyncio
import base64
import os
import pwd
import subprocess
import sys
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import Dialect, ToolStatus
from noetl_worker.testing import arun_tool, run_tool, tool_context
from noetl_worker.tools.kinds.postgres.address import conninfo
from noetl_worker.tools.kinds.postgres.postgres import PostgresConfig
from noetl_worker.tools.registry import Registry

from .databases import Postgres, queries

pytest.importorskip("psycopg")
from psycopg.conninfo import conninfo_to_dict, make_conninfo


def test_data_is_the_last_statements(query: Any) -> None:
    data = query("create temp table t as select generate_series(1, 3) n; select n, n * 2 as d from t where n > 1")
    assert data["columns"] == ["n", "d"]
    assert data["rows"] == [{"n": 2, "d": 4}, {"n": 3, "d": 6}]
    assert (data["row_count"], data["statement_count"]) == (2, 2)
    assert data["statements"][0] == {"statement": "SELECT 3", "row_count": 0, "affected_rows": 3}


def test_writes_have_the_python_workers_row_count_on_its_plane(address: str) -> None:
    def python(text: str) -> tuple[Any, ...]:
        config = {"query": "create temp table w (id int); insert into w values (1), (2);" + text}
        data = run_tool("postgres", {**config, "connection_string": address}, dialect=Dialect.PYTHON).data
        return data["status"], data["row_count"], data.get("message"), data["affected_rows"]

    # recorded: pg-writes
    said = "Command executed. 2 rows affected."
    assert python("update w set id = 3") == ("success", 2, said, 2)
    assert python("delete from w where id = 9") == ("success", 0, said.replace("2", "0"), 0)
    assert python("drop table w") == ("success", -1, said.replace("2", "-1"), None)
    assert python("insert into w values (4) returning id") == ("success", 1, None, 1)
    assert python("select * from w where id = 77") == ("success", 0, None, None)


def test_statement_that_changes_no_rows_has_changed_0_on_the_rust_plane(query: Any) -> None:
    assert query("create temp table none_changed (id int)")["affected_rows"] == 0  # recorded: pg-writes
    assert query("select 1 as a")["affected_rows"] is None


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


@pytest.mark.parametrize("params", [[], [1]])
@pytest.mark.parametrize("count", [0, 2, 1000, 2500])
def test_rows_of_a_change_are_counted_and_its_command_named(query: Any, count: int, params: list[int]) -> None:
    start = "$1::int" if params else "1"
    text = f"create temp table t(i int); insert into t select generate_series({start}, {count}) returning i"
    data = query(text, params=params)
    assert (data["row_count"], data["affected_rows"]) == (count, count)
    assert data["statements"][1]["statement"] == f"INSERT 0 {count}"


def test_each_statement_of_a_text_has_its_own_command_and_count(query: Any) -> None:
    data = query(
        "create temp table t as select generate_series(1, 4) i; update t set i = 0 where i > 1 returning i; select 1;"
        "delete from t where i = 9 returning i; explain select 1; delete from t returning i",
        max_rows=1,
    )
    found = [(one["statement"], one["affected_rows"]) for one in data["statements"]]
    assert found == [
        ("SELECT 4", 4), ("UPDATE 3", 3), ("SELECT 1", None), ("DELETE 0", 0), ("EXPLAIN", None), ("DELETE 4", 4),
    ]  # fmt: skip
    assert query("explain select $1::int", params=[1])["affected_rows"] is None


TYPES: list[tuple[str, Any]] = [
    ("1::int2", 1), ("9223372036854775807::int8", 2**63 - 1), ("7::oid", 7), ("true", True),
    ("1.5::float4", 1.5), ("'nan'::float8", "NaN"), ("'-infinity'::float8", "-Infinity"),
    ("1.50::numeric(5,2)", "1.50"), ("'nan'::numeric", "NaN"), ("'infinity'::numeric", "Infinity"),
    ("10::numeric ^ 30", "1000000000000000000000000000000"),
    ("date '2026-01-02'", "2026-01-02"), ("date 'infinity'", "infinity"), ("date '0044-03-15 BC'", "0044-03-15 BC"),
    ("time '03:04:05.5'", "03:04:05.500000"), ("time '24:00'", "24:00:00"),
    ("timetz '03:04:05+02'", "03:04:05+02:00"), ("timestamp '2026-01-02 03:04:05'", "2026-01-02T03:04:05"),
    ("timestamp '-infinity'", "-infinity"), ("timestamp '12026-01-01'", "12026-01-01 00:00:00"),
    ("timestamptz '2026-01-02 03:04:05+00' at time zone 'UTC'", "2026-01-02T03:04:05"),
    ("interval '1 year 2 mons -3 days 04:05:06.7'", "P1Y2M-3DT4H5M6.7S"), ("interval '-90 minutes'", "PT-1H-30M"),
    ("interval '0'", "PT0S"), ("interval '5 days'", "P5D"), ("interval '0.25 seconds'", "PT0.25S"),
    ("array[1,2,null]", [1, 2, None]), ("'{ {a,b},{c,d} }'::text[]", [["a", "b"], ["c", "d"]]),
    ("array[interval '1 mon']", ["P1M"]), ("array['nan'::float8]", ["NaN"]), ("array[1.10]", ["1.10"]),
    ("'{\"a\": [1, null]}'::jsonb", {"a": [1, None]}), ("'[1]'::json", [1]), ("'null'::jsonb", None),
    ("'\\x6162'::bytea", "YWI="),
    ("'00000000-0000-0000-0000-000000000001'::uuid", "00000000-0000-0000-0000-000000000001"),
    ("inet '10.0.0.1/8'", "10.0.0.1/8"), ("cidr '10.0.0.0/8'", "10.0.0.0/8"),
    ("macaddr '08:00:2b:01:02:03'", "08:00:2b:01:02:03"),
    ("int4range(1, 10)", "[1,10)"), ("daterange('2026-01-01', null)", "[2026-01-01,)"),
    ("'{[1,2),[5,6)}'::int4multirange", "{[1,2),[5,6)}"), ("'happy'::mood", "happy"),
    ("row(1, 'a b')::pair", '(1,"a b")'), ("array['sad']::mood[]", "{sad}"), ("7::positive", 7),
    ("point '(1,2)'", "(1,2)"), ("b'101'", "101"), ("'a b'::tsvector", "'a' 'b'"),
    ("'x'::\"char\"", "x"), ("'n'::name", "n"), ("pg_sleep(0)", ""), ("null", None), ("''", ""),
]  # fmt: skip


@pytest.fixture
def own_types(postgres: Postgres) -> None:
    if not postgres.sql("select 1 from pg_type where typname = 'mood'"):
        postgres.sql(
            "create type mood as enum ('sad', 'happy'); create type pair as (a int, b text);"
            " create domain positive as int check (value > 0)"
        )


@pytest.mark.usefixtures("own_types")
def test_every_type_has_a_json_form_and_only_null_is_null(query: Any) -> None:
    row = query("select " + ", ".join(f"{text} as v{number}" for number, (text, _) in enumerate(TYPES)))["rows"][0]
    assert {text: row[f"v{number}"] for number, (text, _) in enumerate(TYPES)} == dict(TYPES)


def test_time_zone_of_the_session_is_in_the_text(query: Any) -> None:
    text = "set timezone = 'Asia/Tokyo'; select timestamptz '2026-01-02 03:04:05+00' as t"
    assert query(text)["rows"] == [{"t": "2026-01-02T12:04:05+09:00"}]


def test_other_styles_of_dates_and_intervals_stay_the_servers_text(query: Any) -> None:
    text = "set intervalstyle = 'postgres_verbose'; set datestyle = 'SQL, DMY'; "
    row = query(text + "select interval '1 day' as i, timestamp '2026-01-02 03:04' as t, date '2026-01-02' as d")[
        "rows"
    ]
    assert row == [{"i": "@ 1 day", "t": "02/01/2026 03:04:00", "d": "02/01/2026"}]


def test_failed_statement_undoes_the_ones_before_it_in_the_text(query: Any, postgres: Postgres) -> None:
    postgres.sql("drop table if exists undone; create table undone(i int)")
    with pytest.raises(ToolError, match=r": statement 2: division by zero \(SQLSTATE 22012\)"):
        query("insert into undone values (1); select 1 / 0")
    assert postgres.sql("select count(*) from undone") == [(0,)]
    with pytest.raises(ToolError, match="division by zero"):
        query("begin; insert into undone values (1); commit; select 1 / 0")
    assert postgres.sql("select count(*) from undone") == [(1,)]


def test_statement_that_no_transaction_takes_stands_alone(query: Any, postgres: Postgres) -> None:
    """Seen live (pg-apart): the published worker runs the last statement of a text by itself."""
    postgres.sql("drop table if exists alone; create table alone(i int)")
    data = query("vacuum alone")
    assert data["affected_rows"] == 0
    assert data["statements"] == [{"statement": "VACUUM", "row_count": 0, "affected_rows": None}]
    with pytest.raises(ToolError, match="SQLSTATE 25001"):
        query("select 1; vacuum alone")


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("a b", '"a b"'),
        ("Sales", "sales"),
        ('"Sales"', '"Sales"'),
        ("a,B , public", "a, b, public"),
        ('"x, ""y""", "$user"', '"x, ""y""", "$user"'),
        ("a; drop table b", '"a; drop table b"'),
    ],
)
def test_schema_is_read_as_sql_reads_it(query: Any, schema: str, path: str) -> None:
    """Seen live (pg-schema); what SQL does not read is one name, never SQL."""
    assert query("show search_path", schema=schema)["rows"] == [{"search_path": path}]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("insert into pg_temp.t values (3) returning i", [{"i": 3}]),
        ("explain (costs off) select 1", [{"QUERY PLAN": "Result"}]),
        ("show server_encoding", [{"server_encoding": "UTF8"}]),
        ("values (1), (2)", [{"column1": 1}, {"column1": 2}]),
        ("table pg_temp.t", []),
        ("with x as (select 1 as a) select a from x -- it's", [{"a": 1}]),
        ("delete from pg_temp.t returning i", []),
        ("select 1 as a, 2 as a", [{"a": 1, "a_2": 2}]),
    ],
)
def test_whatever_gives_rows_gives_rows(query: Any, text: str, rows: list[Any]) -> None:
    assert query(f"create temp table t(i int);\n{text}")["rows"] == rows


@pytest.mark.parametrize("name", ["query_b64", "command_b64", "commands_b64", "sql_b64"])
def test_base64_spellings_are_decoded_and_not_rendered(address: str, name: str) -> None:
    text = base64.b64encode("select '{{ a }}' as a, 'ü' as u".encode()).decode()
    result = run_tool("postgres", {name: text, "connection_string": address}, variables={"a": "rendered"})
    assert result.data["rows"] == [{"a": "{{ a }}", "u": "ü"}]


def test_too_many_rows_are_left_out_and_marked(query: Any) -> None:
    data = query("select * from generate_series(1, 100) n", max_rows=10)
    assert (data["row_count"], len(data["rows"]), data["truncated"]) == (10, 10, True)
    assert "truncated" not in query("select * from generate_series(1, 10) n", max_rows=10)


def test_rows_that_are_not_kept_are_not_held_either(address: str) -> None:
    """200 MB of rows pass; the process grows by less than a tenth of it."""
    text = "select i, repeat('x', 1000) from generate_series(1, 200000) i; select 1 as one"
    code = (
        "import resource, sys; from noetl_worker.testing import run_tool\n"
        f"config = {{'query': {text!r}, 'connection_string': {address!r}, 'max_rows': 10}}\n"
        "run_tool('postgres', {**config, 'query': 'select 1'})\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "data = run_tool('postgres', config).data\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "print(data['statements'][0]['row_count'], data['rows'], grown)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *told, grown_kib = done.stdout.split()
    assert " ".join(told) == "10 [{'one': 1}]"
    assert int(grown_kib) < 20_000


def test_text_of_comments_alone_has_no_statement(query: Any) -> None:
    with pytest.raises(ConfigurationError, match="postgres: 'query' has no statement"):
        query("-- nothing")


def test_empty_template_value_is_an_error_with_its_place(query: Any) -> None:
    with pytest.raises(ToolError, match=r'syntax error at or near "," \(SQLSTATE 42601\) at line 2, column 3'):
        query("select 'x',\n  {{ nobody.here }}, 1")


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
        ("select nxt(1)", "db_syntax", "42883", r"at line 1, column 8 \| HINT: No function matches"),
        ("do $$ begin perform 1 / 0; end $$", "db_error", "22012", r"WHERE: (?s:.*)PL/pgSQL function"),
        ("copy pg_class from stdin", "db_error", None, "COPY with STDIN or STDOUT needs a client; use kind transfer"),
        ("select 1 / 0", "db_error", "22012", "division by zero"),
    ],
)
def test_failed_statement_tells_what_the_server_said(query: Any, text: str, kind: str, code: str, message: str) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        query(text)
    assert (caught.value.kind, caught.value.code, caught.value.retryable) == (kind, code, False)


def test_credential_alias_in_both_spellings(address: str) -> None:
    parts = conninfo_to_dict(address)
    plain = {name: parts[name] for name in ("host", "port", "user", "password") if parts.get(name)}
    prefixed = {f"db_{name}": value for name, value in plain.items()}
    for data in ({**plain, "database": parts["dbname"]}, {**prefixed, "db_name": parts["dbname"]}):
        credentials = {"pg": {"type": "postgres", **data}}
        config = {"auth": "pg", "command": "select current_database() as d"}
        result = run_tool("postgres", config, credentials=credentials)
        assert result.data["rows"] == [{"d": parts["dbname"]}]


def test_timeout_cancels_the_statement_on_the_server(query: Any, address: str) -> None:
    config = {"query": "select pg_sleep(1000) as marker_of_test", "connection_string": address, "timeout": 0.3}
    assert run_tool("postgres", config).status is ToolStatus.TIMEOUT
    running = (
        "select count(*) as n from pg_stat_activity where state = 'active' and query like '%marker_of_' || 'test%'"
    )
    assert query(running)["rows"] == [{"n": 0}]


async def test_many_at_once(address: str) -> None:
    config = {"connection_string": address, "query": "select {{ n }} as n"}
    found = await asyncio.gather(*(arun_tool("postgres", config, variables={"n": n}) for n in range(20)))
    assert [result.data["rows"][0]["n"] for result in found] == list(range(20))


def test_statement_timeout_of_the_playbook_is_a_timeout_too(query: Any, address: str) -> None:
    config = {"query": "set statement_timeout = 50; select pg_sleep(20)", "connection_string": address}
    assert run_tool("postgres", config).status is ToolStatus.TIMEOUT


def test_server_ends_a_statement_by_itself_after_the_commands_time(query: Any) -> None:
    assert query("show statement_timeout", timeout=20)["rows"] == [{"statement_timeout": "32s"}]


def test_config_does_not_show_its_secrets() -> None:
    registry = Registry(plugins=False)
    secret = {"password": "hush-1", "connection_string": "host=h password=hush-2", "auth": {"password": "hush-3"}}
    prepared = registry.prepare("postgres", {"query": "select 1", **secret}, tool_context(registry=registry))
    assert "hush" not in repr(prepared.config)


@pytest.mark.parametrize(
    ("change", "kind", "retryable", "message"),
    [
        ({"host": "127.0.0.1", "port": 1}, "connection", True, "Connection refused"),
        ({"host": "nowhere.invalid"}, "connection", True, "cannot connect: "),
        ({"database": "absent"}, "not_found", False, 'database "absent" does not exist'),
        ({"user": "nobody_here"}, "auth", False, 'role "nobody_here" does not exist'),
    ],
)
def test_no_connection_says_why(address: str, change: Any, kind: str, retryable: bool, message: str) -> None:
    parts = conninfo_to_dict(address)
    config = {"query": "select 1", "host": parts["host"], "user": "postgres", "database": "postgres", **change}
    with pytest.raises(ToolError, match=message) as caught:
        run_tool("postgres", config)
    assert (caught.value.kind, caught.value.retryable) == (kind, retryable)


@pytest.mark.parametrize(
    ("given", "user", "database"),
    [
        ({"host": "h"}, "postgres", "postgres"),
        ({"host": "h", "user": "ada"}, "ada", "postgres"),
        ({"auth": {"db_host": "h", "db_name": "sales"}}, "postgres", "sales"),
        ({"connection_string": "host=h"}, None, None),
    ],
)
async def test_user_and_database_are_postgres_unless_given(given: Any, user: str | None, database: str | None) -> None:
    """Of a `connection_string` the published worker's library makes what libpq does."""
    config = PostgresConfig(query="select 1", **given)
    parts = conninfo_to_dict(await conninfo("postgres", config, tool_context()))
    assert (parts.get("user"), parts.get("dbname")) == (user, database)


def test_login_by_the_user_of_the_process_works(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "of-the-worker")
    user = pwd.getpwuid(os.geteuid()).pw_name
    postgres.add_role(user, "none", local="peer")
    config = {"host": conninfo_to_dict(postgres.uri)["host"], "user": user, "database": "postgres"}
    assert run_tool("postgres", {**config, "query": "select 7 as n"}).data["rows"] == [{"n": 7}]


def test_text_goes_in_the_encoding_of_the_connection(postgres: Postgres) -> None:
    query = queries(make_conninfo(postgres.uri, client_encoding="latin1"))
    assert query("select 'é' as \"ü\", length('é') as n")["rows"] == [{"ü": "é", "n": 1}]
    assert query("select 'é' = $1 as a, $2::text[] as b", params=["é", ["ü"]])["rows"] == [{"a": True, "b": ["ü"]}]
    for params in ([], ["x"]):
        with pytest.raises(ToolError, match=r"latin.* lacks this character") as caught:
            query(f"select '€'{', $1' if params else ''}", params=params)
        assert caught.value.kind == "db_error"
