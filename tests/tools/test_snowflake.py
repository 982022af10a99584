"""Kind `snowflake` against a stand-in for its connector: there is no Snowflake to be had here."""

from __future__ import annotations

import asyncio
import gc
import io
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import arun_tool, run_tool
from patience import PATIENCE_S

from .databases import Postgres
from .fake_snowflake import CODES, FakeSnowflake, OperationalError, ProgrammingError
from .transfers import from_query, move, to  # it skips where DuckDB is not installed

SIGN_IN = {"account": "org-acc", "user": "u", "password": "pass-word-1"}


@pytest.fixture
def snow(monkeypatch: pytest.MonkeyPatch) -> FakeSnowflake:
    account = FakeSnowflake()
    account.install(monkeypatch)
    return account


def query(text: Any, **config: Any) -> dict[str, Any]:
    data: dict[str, Any] = run_tool("snowflake", {"query": text, **SIGN_IN, **config}).data
    return data


def test_data_is_the_last_statements_in_one_session(snow: FakeSnowflake) -> None:
    data = query("create table t(i int); insert into t values (1), (2); select i, i * 2 as d from t order by i")
    assert (data["columns"], data["rows"]) == (["I", "D"], [{"I": 1, "D": 2}, {"I": 2, "D": 4}])
    assert [one["affected_rows"] for one in data["statements"]] == [None, 2, None]
    assert data["statement_count"] == 3
    assert (len(snow.connected), snow.closed) == (1, 1)


@pytest.mark.parametrize("text", ["begin; insert into t values (1)", "/* first */ START transaction"])
def test_transaction_that_is_left_open_fails(snow: FakeSnowflake, text: str) -> None:
    snow.database.execute("create table t(i int)")
    with pytest.raises(ToolError, match=r"the SQL leaves a transaction open, which was rolled back") as caught:
        query(text)
    assert caught.value.kind == "db_transaction"


def test_transaction_that_ends_is_kept_and_reading_alone_asks_for_nothing_more(snow: FakeSnowflake) -> None:
    query("create table t(i int); begin; insert into t values (1); commit")
    assert query("use main; (select i from t)")["rows"] == [{"I": 1}]
    assert snow.ran.count("SELECT CURRENT_TRANSACTION()") == 1


def test_columns_named_like_counts_are_rows(snow: FakeSnowflake) -> None:
    data = query('select count(*) as "Number of orders", 2 as "number of rows inserted" from range(3)')
    assert data["rows"] == [{"Number of orders": 3, "number of rows inserted": 2}]
    assert query("create table t(i int); -- more\ninsert into t values (1), (2)")["affected_rows"] == 2


def test_session_is_asked_for_with_what_the_playbook_says(snow: FakeSnowflake) -> None:
    query("select 1", database="D", role="R", timeout=90)
    [given] = snow.connected
    assert given == {
        "account": "org-acc",
        "user": "u",
        "password": "pass-word-1",
        "warehouse": "COMPUTE_WH",
        "database": "D",
        "schema": "PUBLIC",
        "role": "R",
        "application": "noetl_worker",
        "session_parameters": {
            "ABORT_DETACHED_QUERY": True,
            "QUERY_TAG": "noetl-worker",
            "STATEMENT_TIMEOUT_IN_SECONDS": 90,
        },
        "login_timeout": 60,
    }


def test_credential_in_both_spellings_and_its_secret_is_kept(snow: FakeSnowflake) -> None:
    seen: set[str] = set()
    for data in (
        {"sf_account": "a", "sf_user": "b", "sf_password": "c0de", "sf_warehouse": "W"},
        {"account": "a", "user": "b", "password": "c0de", "warehouse": "W"},
    ):
        config = {"auth": "sf", "command": "select 1"}
        run_tool("snowflake", config, credentials={"sf": {"type": "snowflake", **data}}, secrets=seen)
        given = snow.connected[-1]
        assert [given[name] for name in ("account", "user", "password", "warehouse")] == ["a", "b", "c0de", "W"]
    assert "c0de" in seen


def test_key_pair_is_handed_over_as_der(snow: FakeSnowflake) -> None:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"open-sesame"),
    ).decode()
    config = {"account": "a", "user": "u", "query": "select 1", "private_key": pem}
    run_tool("snowflake", {**config, "private_key_passphrase": "open-sesame"})
    given = snow.connected[-1]
    assert serialization.load_der_private_key(given["private_key"], None).key_size == 2048
    assert "private_key_passphrase" not in given
    with pytest.raises(ConfigurationError, match="'private_key' is no PEM key, or its passphrase is wrong") as caught:
        run_tool("snowflake", {**config, "private_key_passphrase": "wrong"})
    assert caught.value.__suppress_context__


def test_values_have_a_json_form(snow: FakeSnowflake) -> None:
    text = "select '{\"a\": [1]}'::json as v, date '2026-01-02' as d, 1.50::decimal(5,2) as n, null as z, true as b"
    assert query(text)["rows"] == [{"V": {"a": [1]}, "D": "2026-01-02", "N": "1.50", "Z": None, "B": True}]


def test_parameters_base64_and_truncation(snow: FakeSnowflake) -> None:
    assert query("create table p(i int); select %s + 1 as a", params=[41])["rows"] == [{"A": 42}]
    assert run_tool("snowflake", {"command_b64": "c2VsZWN0IDcgYXMgYQ==", **SIGN_IN}).data["rows"] == [{"A": 7}]
    data = query("select * from range(10) r(i)", max_rows=3, as_objects=False)
    assert (data["rows"], data["truncated"]) == ([[0], [1], [2]], True)


def test_failed_statement_ends_the_command_and_is_told(snow: FakeSnowflake) -> None:
    with pytest.raises(ToolError, match=r"select nope: (?s:.*)\(query 01b2-query\)") as caught:
        query("select 1; select nope; create table never(i int)")
    assert (caught.value.kind, caught.value.code) == ("db_syntax", "42S02")
    assert not any("never" in text for text in snow.ran)
    assert snow.closed == 1


def test_refused_and_unreachable_are_told_apart(snow: FakeSnowflake) -> None:
    snow.refuse = ProgrammingError("250001 (08001): Incorrect username or password was specified.", 250001)
    with pytest.raises(ToolError, match=r"cannot connect: .*Incorrect username") as caught:
        query("select 1")
    assert (caught.value.kind, caught.value.retryable) == ("auth", False)
    snow.refuse = OperationalError("250003: could not connect to org-acc.snowflakecomputing.com")
    with pytest.raises(ToolError, match=r"cannot connect: .*could not connect") as caught:
        query("select 1")
    assert (caught.value.kind, caught.value.retryable) == ("connection", True)


def test_statement_that_snowflake_ended_is_a_timeout(snow: FakeSnowflake) -> None:
    snow.fail["slow"] = ProgrammingError("SQL execution canceled", 604, "57014")
    assert run_tool("snowflake", {"query": "select 'slow'", **SIGN_IN}).status is ToolStatus.TIMEOUT


class Gate:
    """Holds a thread of the connector until it is opened."""

    def __init__(self) -> None:
        self.is_reached, self.is_open = threading.Event(), threading.Event()

    def hold(self) -> None:
        self.is_reached.set()
        self.is_open.wait(PATIENCE_S)


async def cancelled_at(gate: Gate) -> None:
    """A command that is cancelled there."""
    call = asyncio.ensure_future(arun_tool("snowflake", {"query": "select 1", **SIGN_IN}))
    await asyncio.to_thread(gate.is_reached.wait, PATIENCE_S)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_cancelled_command_closes_its_session(snow: FakeSnowflake) -> None:
    gate = Gate()
    snow.before = gate.hold
    await cancelled_at(gate)
    assert snow.closed == 1
    gate.is_open.set()


async def test_session_that_opens_after_its_command_was_cancelled_is_closed(
    snow: FakeSnowflake, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()

    def connect(**settings: Any) -> Any:
        gate.hold()
        return snow.connect(**settings)

    monkeypatch.setattr(sys.modules["snowflake.connector"], "connect", connect)
    await cancelled_at(gate)
    gate.is_open.set()
    for thread in threading.enumerate():
        if thread.name.startswith("snowflake"):
            thread.join(PATIENCE_S)
    assert (len(snow.connected), snow.closed) == (1, 1)


async def test_session_that_does_not_end_takes_no_thread_that_names_are_looked_up_in(snow: FakeSnowflake) -> None:
    loop, is_closing, let_go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hang() -> None:
        loop.call_soon_threadsafe(is_closing.set)
        let_go.wait()

    snow.before_close = hang
    with ThreadPoolExecutor(1) as only:
        loop.set_default_executor(only)
        running = asyncio.create_task(arun_tool("snowflake", {"query": "select 1 as i", **SIGN_IN}))
        await is_closing.wait()
        looking = asyncio.ensure_future(loop.getaddrinfo("localhost", 1))
        await asyncio.wait({looking}, timeout=20)
        was_found = looking.done()
        let_go.set()
        await asyncio.wait({running, looking})
    assert was_found


async def test_session_that_cannot_be_closed_is_no_error_of_the_loop(snow: FakeSnowflake) -> None:
    snow.fail_to_close = OperationalError("no connection", 250001, "08001")
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, problem: told.append(problem))
    assert (await arun_tool("snowflake", {"query": "select 1 as i", **SIGN_IN})).data["rows"] == [{"I": 1}]
    gc.collect()
    assert told == []


def test_connector_has_the_names_that_are_used() -> None:
    connector = pytest.importorskip("snowflake.connector")
    from snowflake.connector.util_text import split_statements

    assert issubclass(connector.errors.OperationalError, connector.errors.DatabaseError)
    assert issubclass(connector.errors.ProgrammingError, connector.errors.DatabaseError)
    assert {"name", "type_code", "precision", "scale"} <= set(connector.cursor.ResultMetadata._fields)
    assert callable(connector.connect)
    text = "select ';' -- it's\n; select $$a;b$$; select 'it\\'s; one'"
    found = [one.strip() for one, _ in split_statements(io.StringIO(text))]
    assert [one.rstrip(";").strip() for one in found if one] == [
        "select ';' -- it's", "select $$a;b$$", "select 'it\\'s; one'",
    ]  # fmt: skip


# ── as an end of a transfer ─────────────────────────────────────────────────────────────────────

END = {"type": "snowflake", **SIGN_IN}
INTO_T = {**END, "table": "T"}


def test_postgres_to_snowflake_and_back(snow: FakeSnowflake, postgres: Postgres) -> None:
    postgres.sql("drop table if exists from_snow; create table from_snow(id int primary key, name text)")
    snow.database.execute("create table T(ID int, NAME varchar)")
    move(from_query(postgres, "select * from (values (1, 'a'), (2, 'b')) v(id, name)"), INTO_T)
    assert snow.connected[-1]["autocommit"] is False
    assert snow.ran[-1] == "COMMIT"
    data = move({**END, "query": "select * from T"}, to(postgres, "from_snow"), mode="upsert")
    assert (data["direction"], data["rows_inserted"]) == ("snowflake_to_postgres", 2)
    assert postgres.sql("select id, name from from_snow order by id") == [(1, "a"), (2, "b")]


def test_upsert_into_snowflake_merges_by_key(snow: FakeSnowflake, postgres: Postgres) -> None:
    snow.database.execute("create table T(ID int, NAME varchar); insert into T values (2, 'old'), (9, 'stays')")
    source = from_query(postgres, "select * from (values (1, 'one'), (2, 'two'), (2, 'latest')) v(id, name)")
    with pytest.raises(ConfigurationError, match="no unique key to go by; give 'key' for upsert"):
        move(source, INTO_T, mode="upsert")
    data = move(source, INTO_T, mode="upsert", key="id", chunk_size=2)
    assert (data["rows_inserted"], data["rows_updated"]) == (1, 1)
    found = snow.database.execute("select ID, NAME from T order by ID").fetchall()
    assert found == [(1, "one"), (2, "latest"), (9, "stays")]


def test_failed_transfer_into_snowflake_commits_nothing(snow: FakeSnowflake, postgres: Postgres) -> None:
    snow.database.execute("create table T(ID int)")
    source = from_query(postgres, "select 10 / (3 - i) as id from generate_series(1, 5) i")
    with pytest.raises(ToolError, match="division by zero"):
        move(source, INTO_T, chunk_size=1, mode="replace")
    assert "COMMIT" not in snow.ran
    assert snow.closed == 1


def test_null_in_a_key_of_an_upsert_into_snowflake_is_refused(snow: FakeSnowflake, postgres: Postgres) -> None:
    snow.database.execute("create table T(ID int, NAME varchar)")
    with pytest.raises(ToolError, match="transfer: key column 'ID' is NULL in a row"):
        move(from_query(postgres, "select null::int as id, 'a' as name"), INTO_T, mode="upsert", key="id")
    assert "COMMIT" not in snow.ran


def test_array_with_undefined_stays_the_text_that_the_connector_gives(
    snow: FakeSnowflake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CODES, "VARCHAR", 10)  # an ARRAY: its NULL is `undefined` in the text
    assert query("select '[\n  1,\n  undefined\n]' as v, '[1]' as w")["rows"] == [
        {"V": "[\n  1,\n  undefined\n]", "W": [1]}
    ]
