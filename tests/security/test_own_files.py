"""A playbook names the worker's own files, outbox and secrets."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.pipeline.command import tool_rules
from noetl_worker.pipeline.outbox.directory import outbox_directory
from noetl_worker.settings.settings import Settings, load_settings
from noetl_worker.testing import arun_tool, tool_context
from noetl_worker.tools.process import landlock
from tools.databases import duckdb_extensions

from .test_files import read_by_each_kind

needs_landlock = pytest.mark.skipif(not landlock.is_there(), reason="no Landlock of Linux 5.19 or later")
FILES = {
    "NATS_CREDS": "creds",
    "NATS_KEY": "nats-key",
    "NOETL_TLS_CLIENT_KEY": "key",
    "NOETL_INTERNAL_API_TOKEN_FILE": "token",
    "NOETL_SECRET_A_FILE": "password",
    "NOETL_SECRETS_DIR": "secrets",
    "GOOGLE_APPLICATION_CREDENTIALS": "google.json",
    "NOETL_WORKER_OUTBOX_DIR": "outbox",
    "NATS_CERT": "public",
    "NOETL_TLS_CLIENT_CERT": "public",
}
DIRECTORIES = ("outbox", "secrets")
OWN = [
    *(name for name in dict.fromkeys(FILES.values()) if name not in (*DIRECTORIES, "public")),
    *(".env", "service-token", "secrets/database", "outbox/outbox-1.sqlite3"),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """`worker` has the worker's own files, `data` those of playbooks. It is below no directory that both use."""
    place = Path(tempfile.mkdtemp(prefix="tests-own-files-", dir="/var/tmp")).resolve()
    (place / "data").mkdir()
    (place / "data" / "a.csv").write_text("x\n1\n")
    (place / "data" / "link").symlink_to(place / "worker" / "outbox")
    for name in DIRECTORIES:
        (place / "worker" / name).mkdir(parents=True)
    for name in (*OWN, "public"):
        (place / "worker" / name).write_text("WORKER_POOL_NAME=own")
    yield place
    shutil.rmtree(place)


@pytest.fixture
def settings(place: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(tool_rules, "_IDENTITIES", (str(place / "worker" / "service-token"),))
    variables = {variable: str(place / "worker" / name) for variable, name in FILES.items()}
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", variables.pop("GOOGLE_APPLICATION_CREDENTIALS"))
    return load_settings({"NOETL_SECRET_A_HOSTS": "h", **variables}, dotenv=place / "worker" / ".env")


async def data_of(settings: Settings, kind: str, config: dict[str, Any]) -> Any:
    """Of a command of a worker with these settings."""
    return (await arun_tool(kind, config, registry=tool_rules.make_registry(settings))).data


async def query(settings: Settings, sql: str) -> Any:
    pytest.importorskip("duckdb")
    return (await data_of(settings, "duckdb", {"query": sql}))["rows"]


@pytest.mark.parametrize("name", OWN)
async def test_own_files_are_no_artifact_upload_or_certificate(settings: Settings, place: Path, name: str) -> None:
    """The worker's key or password file as artifact, upload or certificate."""
    tools = tool_rules.make_registry(settings).settings
    said = await read_by_each_kind(str(place / "worker" / name), tools)
    assert all("not a file for playbooks" in one for one in said)


async def refused(settings: Settings, statements: list[str], words: str) -> None:
    """Each statement ends with an error that says so, all in one worker."""
    pytest.importorskip("duckdb")
    registry = tool_rules.make_registry(settings)
    for sql in statements:
        with pytest.raises(ToolError, match=words):
            await registry.run_tool("duckdb", {"query": sql}, tool_context(registry=registry))
    await registry.aclose()


async def test_sql_that_names_an_own_file_is_refused(settings: Settings, place: Path) -> None:
    """The same in SQL, as it is written."""
    statements = [f"SELECT * FROM read_blob('{place}/worker/{name}')" for name in OWN]
    await refused(settings, statements, r"Permission denied|not a file for playbooks")


@needs_landlock
async def test_sql_cannot_reach_an_own_file_by_a_name_that_it_puts_together(settings: Settings, place: Path) -> None:
    """SQL builds the name."""
    await refused(
        settings, [f"SELECT * FROM read_blob('{place}/wor' || 'ker/{name}')" for name in OWN], "Permission denied"
    )


@needs_landlock
async def test_pattern_finds_no_own_file(settings: Settings, place: Path) -> None:
    """`glob` over what is beside the data."""
    assert await query(settings, f"SELECT * FROM glob('{place}/wor' || 'ker/*')") == []
    assert await query(settings, f"SELECT * FROM glob('{place}/data/li' || 'nk/*')") == []
    assert await query(settings, "SELECT * FROM glob('/de' || 'v/*')") == []


@needs_landlock
@pytest.mark.parametrize("kind", ["ducklake", "transfer"])
async def test_other_kinds_that_have_a_duckdb_reach_none_either(
    settings: Settings, place: Path, kind: str, tmp_path: Path
) -> None:
    """The SQL of a lake, or of a transfer's source."""
    pytest.importorskip("duckdb")
    sql = f"SELECT content FROM read_text('{place}/wor' || 'ker/creds')"
    config: dict[str, Any] = {
        "ducklake": {"catalog_connection": f"{place}/data/m.ducklake", "data_path": f"{place}/data", "query": sql},
        "transfer": {
            "source": {"type": "duckdb", "query": sql},
            "target": {"type": "duckdb", "database": f"{place}/data/t.db", "table": "t"},
        },
    }[kind]
    if kind == "ducklake":
        extensions = str(duckdb_extensions(tmp_path, "ducklake"))
        settings = replace(settings, duckdb_extension_directory=extensions)
    with pytest.raises(ToolError, match="Permission denied"):
        await data_of(settings, kind, config)


@needs_landlock
async def test_files_beside_the_own_ones_are_read_and_written_as_before(settings: Settings, place: Path) -> None:
    """(no attack) Also what is made later directly above an own file: each command looks anew at what there is."""
    assert await query(settings, f"SELECT * FROM '{place}/data/*.csv'") == [{"x": 1}]
    await query(settings, f"COPY (SELECT 2 AS x) TO '{place}/data/new.csv'")
    assert await query(settings, f"SELECT * FROM '{place}/data/new.csv'") == [{"x": 2}]
    assert await query(settings, f"SELECT * FROM read_text('{place}/worker/public')") != []
    (place / "later.csv").write_text("x\n3\n")
    assert await query(settings, f"SELECT * FROM '{place}/later.csv'") == [{"x": 3}]


@pytest.mark.parametrize(("version", "is_enough"), [(0, False), (1, False), (2, True), (5, True), (6, True), (7, True)])
async def test_kernel_without_landlock_is_named_at_the_start(
    settings: Settings, place: Path, version: int, is_enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(no attack) 0: before 5.13, or not permitted; 1: before 5.19. There SQL is looked at as it is written. 5: before
    6.12."""
    monkeypatch.setattr(landlock, "landlock_version", lambda: version)
    monkeypatch.setattr(landlock, "is_there", landlock.is_there.__wrapped__)
    with capture_logs() as lines:
        tool_rules.log_what_is_not_confined(settings)
    lacking = [one for line in lines for one in line.get("not_on_this_system", ())]
    files = [] if is_enough else ["/proc, /sys and the worker's own files hidden from DuckDB"]
    assert lacking == [*files, *(["signals kept inside a command"] if version < 6 else [])]
    if not is_enough:
        assert await query(settings, f"SELECT * FROM '{place}/data/a.csv'") == [{"x": 1}]
        with pytest.raises(ConfigurationError, match="not a file for playbooks"):
            await query(settings, f"SELECT * FROM read_blob('{place}/worker/creds')")


def reached(settings: Settings) -> list[list[str]]:
    with capture_logs() as lines:
        tool_rules.log_what_is_not_confined(settings)
    return [line["files"] for line in lines if line["event"] == "own_files_within_reach"]


@needs_landlock
def test_own_files_where_playbooks_make_files_are_named_at_the_start(
    settings: Settings, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(no attack) Hiding these would hide what playbooks make beside them."""
    assert reached(settings) == []
    for changed in (replace(settings, data_dir=str(place)), replace(settings, file_roots=str(place))):
        assert [len(files) for files in reached(changed)] == [len(OWN)]
    with monkeypatch.context() as home:
        home.setenv("HOME", str(place))
        assert [len(files) for files in reached(settings)] == [len(OWN)]
    default = load_settings({}, dotenv=Path(os.devnull))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    assert reached(default) == [[str(outbox_directory(""))]]
    for variables in ({"NOETL_WORKER_ISOLATION": "off"}, {"NOETL_WORKER_KINDS": "shell"}):
        assert reached(load_settings(variables, dotenv=Path(os.devnull))) == []
