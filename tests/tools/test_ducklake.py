"""Kind `ducklake`. The tests with a catalog need the extension: they run where the `duckdb-extension-ducklake` wheel of
the installed DuckDB is (and `duckdb-extension-postgres-scanner` for a catalog in Postgres)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.testing import arun_tool, tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.kinds.ducklake.ducklake import DucklakeConfig, lake_opening
from tool_settings import tool_settings

from .databases import Postgres, duckdb_extensions
from .one_template import run_tool

pytest.importorskip("duckdb")


@pytest.fixture
def settings(tmp_path: Path) -> ToolSettings:
    return tool_settings(NOETL_DUCKDB_EXTENSION_DIRECTORY=str(duckdb_extensions(tmp_path, "ducklake")))


@pytest.fixture
def lake(tmp_path: Path, settings: ToolSettings) -> Any:
    return in_lake(tmp_path, settings)


def in_lake(directory: Path, settings: ToolSettings, **fixed: Any) -> Any:
    where = {"catalog_connection": str(directory / "meta.ducklake"), "data_path": str(directory / "data"), **fixed}

    def run(text: Any, **config: Any) -> dict[str, Any]:
        data: dict[str, Any] = run_tool("ducklake", {"commands": text, **where, **config}, settings=settings).data
        return data

    return run


def test_catalog_keeps_tables_between_commands(lake: Any, tmp_path: Path) -> None:
    data = lake("create table t as select range as i from range(3); insert into t values (7)")
    assert (data["affected_rows"], data["statement_count"]) == (1, 2)
    assert data["catalog"] == {"name": "lake", "data_path": str(tmp_path / "data")}
    assert lake("select i from t order by i desc limit 1")["rows"] == [{"i": 7}]
    assert lake("select count(*) as n from l2.t", catalog_name="l2", use_catalog=False)["rows"] == [{"n": 4}]


def test_failed_statement_keeps_those_before_it_and_ends_the_command(lake: Any) -> None:
    lake("create table t(i int)")
    with pytest.raises(ToolError, match=r"statement 2 \(select nope from t\)"):
        lake("insert into t values (1); select nope from t; insert into t values (2)")
    assert lake("select i from t")["rows"] == [{"i": 1}]


def test_absent_catalog_is_not_made_when_that_is_not_wanted(lake: Any) -> None:
    with pytest.raises(ToolError, match=r"cannot attach the catalog: .* does not exist") as caught:
        lake("select 1", create_catalog=False)
    assert caught.value.kind == "not_found"


def test_catalog_for_reading_refuses_to_write(lake: Any) -> None:
    lake("create table t(i int)")
    with pytest.raises(ToolError, match="read-only"):
        lake("insert into t values (1)", read_only=True)


async def test_parallel_commands_of_one_catalog_file_take_turns(
    lake: Any, settings: ToolSettings, tmp_path: Path
) -> None:
    lake("create table t(i int)")
    where = {"catalog_connection": str(tmp_path / "meta.ducklake"), "data_path": str(tmp_path / "data")}
    configs = [{"query": f"insert into t values ({n})", **where} for n in range(5)]
    await asyncio.gather(*(arun_tool("ducklake", config, settings=settings) for config in configs))
    assert lake("select count(*) as n from t")["rows"] == [{"n": 5}]


def test_lake_works_within_the_file_roots_and_reaches_nothing_else(
    lake: Any, settings: ToolSettings, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.csv").write_text("x\n1\n")
    inside = tmp_path / "inside"
    inside.mkdir()
    kept = in_lake(inside, replace(settings, file_roots=str(inside)))
    kept("create table t as select range as i from range(100000)")
    assert kept("insert into t values (7); select count(*) as n from t")["rows"] == [{"n": 100_001}]
    for text in (f"from '{outside}/a.csv'", f"attach 'ducklake:{outside}/m' as o (data_path '{inside}')"):
        with pytest.raises(ToolError, match="Cannot access"):
            kept(text)


def test_catalog_in_postgres_by_credential_and_by_address(tmp_path: Path, postgres: Postgres) -> None:
    found = duckdb_extensions(tmp_path, "ducklake", "postgres_scanner")
    settings = tool_settings(NOETL_DUCKDB_EXTENSION_DIRECTORY=str(found))
    from psycopg.conninfo import conninfo_to_dict

    known = conninfo_to_dict(postgres.uri)
    postgres.sql("drop database if exists lake")
    postgres.sql("create database lake")
    credentials = {"pg": {"type": "postgres", "db_host": known["host"], "db_user": "postgres", "db_name": "lake"}}
    config: dict[str, Any] = {"auth": "pg", "data_path": str(tmp_path / "data")}
    config["query"] = "create table t as select 1 as i"
    run_tool("ducklake", config, credentials=credentials, settings=settings)
    settings = replace(settings, file_roots=str(tmp_path / "data"))  # the catalog's server is no file
    pairs = f"postgres:host={known['host']} user=postgres dbname=lake"
    by_address = {**config, "auth": None, "catalog_connection": pairs, "query": "select i from t"}
    assert run_tool("ducklake", by_address, settings=settings).data["rows"] == [{"i": 1}]
    wrong = {**config, "auth": None, "catalog_connection": "postgresql://u:hunter2-secret@127.0.0.1:1/lake"}
    with pytest.raises(ToolError, match="Connection refused") as caught:
        run_tool("ducklake", wrong, settings=settings)
    assert (caught.value.kind, caught.value.retryable) == ("connection", True)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_credential_that_is_of_no_catalog_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'auth' has no credential of type postgres or mysql; give 'catalog_c"):
        run_tool("ducklake", {"query": "select 1", "data_path": "d", "auth": {"type": "s3", "key_id": "k"}})


SECRET = 'CREATE OR REPLACE TEMPORARY SECRET "ducklake_catalog" (TYPE postgres, '


@pytest.mark.parametrize(
    ("given", "metadata", "secret", "password"),
    [
        (
            "postgresql://u:p%40w@h:5433/db",
            "postgres:",
            [SECRET + "HOST 'h', PORT '5433', DATABASE 'db', USER 'u', PASSWORD 'p@w')"],
            {"p@w"},
        ),
        (
            "ducklake:postgres:dbname=db host=h password='a b'",
            "postgres:",
            [SECRET + "DATABASE 'db', HOST 'h', PASSWORD 'a b')"],
            {"a b"},
        ),
        ("sqlite:m.db", "sqlite:{here}/m.db", [], set()),
    ],
)
def test_address_of_a_catalog_stands_in_a_secret(
    given: str, metadata: str, secret: list[str], password: set[str]
) -> None:
    seen: set[str] = set()
    config = DucklakeConfig(query="select 1", data_path="d", catalog_connection=given)
    opening, _ = lake_opening(config, [], tool_context(secrets=seen))
    assert [one.statement() for one in opening.secrets] == secret
    assert opening.attach is not None
    attach = opening.attach.text
    assert attach.startswith(f"ATTACH 'ducklake:{metadata.replace('{here}', str(Path.cwd()))}' ")
    assert not any(one in attach for one in password)
    assert seen == password
