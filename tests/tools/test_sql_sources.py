"""SQL from somewhere else than the step: the `script` field of `postgres` and `duckdb`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError

from .databases import Postgres
from .http_server import Answer, ToolServer
from .one_template import run_tool

pytest.importorskip("duckdb")


def duckdb(config: dict[str, Any], **context: Any) -> Any:
    return run_tool("duckdb", config, **context).data


def test_sql_of_a_file_is_run_with_its_templates_rendered(tmp_path: Path) -> None:
    file = tmp_path / "two.sql"
    file.write_text("create table t as select {{ n }} as n;\nselect n + 1 as more from t;\n")
    script = {"uri": "{{ folder }}/two.sql", "source": {"type": "file"}}
    data = duckdb({"script": script}, variables={"folder": str(tmp_path), "n": 41})
    assert (data["rows"], data["statement_count"]) == ([{"more": 42}], 2)


def test_script_is_taken_before_the_steps_own_sql(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("select 'script' as origin")
    config = {"script": str(tmp_path / "a.sql"), "query": "select 'query' as origin"}
    assert duckdb(config)["rows"] == [{"origin": "script"}]


@pytest.fixture(params=["duckdb", "postgres"])
def sql(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs a config of one of the kinds that read SQL from elsewhere, and gives its data."""
    if request.param == "duckdb":
        return duckdb
    uri = request.getfixturevalue("postgres").uri

    def run(config: dict[str, Any], **context: Any) -> Any:
        return run_tool("postgres", {"connection_string": uri, **config}, **context).data

    return run


SQL = b"create temp table made as select {{ n }} as n; select n + 1 as more from made"


@pytest.mark.parametrize("source_type", ["file", "http", "s3", "gcs"])
def test_each_kind_reads_its_sql_from_each_source(
    source_type: str,
    sql: Callable[..., Any],
    server: ToolServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the stand-ins of the same sources of the python kind (test_python_sources.py)."""
    if source_type == "s3":
        pytest.importorskip("botocore")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{server.port}")
    (tmp_path / "a.sql").write_bytes(SQL)
    for path in ("/sql/a.sql", "/bucket/jobs/a.sql", "/storage/v1/b/bucket/o/jobs%2Fa.sql"):
        server.routes[path] = lambda seen: Answer(200, SQL)
    script: dict[str, Any] = {
        "file": {"uri": str(tmp_path / "a.sql"), "source": {}},
        "http": {"uri": "a.sql", "source": {"endpoint": server.url("/sql/a.sql")}},
        "s3": {
            "uri": "s3://bucket/jobs/a.sql",
            "source": {"endpoint": server.url("/"), "region": "eu-1", "auth": "aws"},
        },
        "gcs": {"uri": "gs://bucket/jobs/a.sql", "source": {"auth": "google_oauth"}},
    }[source_type]
    script["source"]["type"] = source_type
    credentials = {
        "aws": {"type": "aws", "access_key_id": "AKIDEXAMPLE", "secret_access_key": "s3cret-key"},
        "google_oauth": {"type": "google_oauth", "access_token": "g"},
    }
    data = sql({"script": script}, variables={"n": 41}, credentials=credentials)
    assert data["rows"] == [{"more": 42}]
    asked = [seen.headers.get("authorization", "none").split("/")[0] for seen in server.requests]
    signed = {"file": [], "http": ["none"], "s3": ["AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE"], "gcs": ["Bearer g"]}
    assert asked == signed[source_type]


def test_script_that_cannot_be_read_is_told_with_the_kind(server: ToolServer) -> None:
    with pytest.raises(ConfigurationError, match=r"duckdb: script: '/no/such.sql' cannot be read: No such file"):
        duckdb({"script": {"uri": "/no/such.sql", "source": {"type": "file"}}})
    with pytest.raises(ToolError, match=r"duckdb: script '.+/status/404' cannot be fetched: HTTP 404"):
        duckdb({"script": server.url("/status/404")})


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_script_that_names_no_place_is_refused(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{kind}: 'script' needs 'uri', or 'source' with 'code'"):
        run_tool(kind, {"script": {"source": {"type": "file"}}, "connection_string": "postgresql://h/d"})


def test_file_without_a_statement_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("\n")
    with pytest.raises(ConfigurationError, match=r"duckdb: the script '.+a.sql' has no statement"):
        duckdb({"script": str(tmp_path / "a.sql")})


def test_values_that_a_postgres_script_does_not_take_are_refused(postgres: Postgres, tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("select $1::int as n")
    config = {"script": str(tmp_path / "a.sql"), "connection_string": postgres.uri}
    assert run_tool("postgres", {**config, "params": [5]}).data["rows"] == [{"n": 5}]
    with pytest.raises(ConfigurationError, match=r"'params' has 2 values, but the statement does not use \$2"):
        run_tool("postgres", {**config, "params": [5, 6]})
