"""A playbook names files of the worker's machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.testing import arun_tool
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.kinds.artifact.files import artifact_path
from noetl_worker.tools.kinds.duckdb.limits import keep_to_roots
from noetl_worker.tools.process import landlock
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.registry import Registry
from tool_settings import tool_settings
from tools.fake_snowflake import FakeSnowflake
from tools.one_template import run_tool

from .commands import placed

NOTHING_SET = tool_settings()
OURS = "{temporary}/noetl-worker-outbox-0/x.sqlite3"


def there(text: str) -> str:
    return text.replace("{temporary}", tempfile.gettempdir())


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """The one directory that playbooks may use; beside it is a file that they may not."""
    root = tmp_path / "inside"
    root.mkdir()
    (root / "a.csv").write_text("x\n1\n")
    (tmp_path / "secret.csv").write_text("x\n2\n")
    (root / "link.csv").symlink_to(tmp_path / "secret.csv")
    return root


@pytest.fixture
def rooted(inside: Path) -> ToolSettings:
    return tool_settings(NOETL_WORKER_FILE_ROOTS=f"{inside.parent / 'other'}{os.pathsep}{inside}")


def query(sql: str, settings: ToolSettings = NOTHING_SET, **config: Any) -> Any:
    pytest.importorskip("duckdb")
    return run_tool("duckdb", {"query": sql, **config}, settings=settings).data


async def confined(sql: str, settings: ToolSettings = NOTHING_SET, **config: Any) -> Any:
    """As `query`, in a worker with NOETL_WORKER_ISOLATION=basic."""
    pytest.importorskip("duckdb")
    registry = Registry(plugins=False, confinement=Confinement("basic"), settings=settings)
    return (await arun_tool("duckdb", {"query": sql, **config}, registry=registry)).data


async def read_by_each_kind(file: str, settings: ToolSettings = NOTHING_SET) -> list[str]:
    """What each kind says about the file."""
    said = []
    configs: list[tuple[str, dict[str, Any]]] = [
        ("artifact", {"uri": file}),
        ("http", {"url": "http://h/", "method": "POST", "files": {"f": file}}),
        ("http", {"url": "https://h/", "client_cert": file}),
        ("http", {"url": "https://h/", "ca_file": file}),
    ]
    for kind, config in configs:
        with pytest.raises(ConfigurationError) as caught:
            await arun_tool(kind, config, settings=settings)
        said.append(str(caught.value))
    return said


@pytest.mark.parametrize("file", ["/proc/self/environ", "/proc/self/../self/mem", "/sys/kernel/notes", OURS])
async def test_kernels_and_workers_files_are_no_artifact_upload_or_certificate(file: str) -> None:
    """/proc/self/environ or the outbox as artifact, upload or certificate."""
    assert all("not a file for playbooks" in said for said in await read_by_each_kind(there(file)))


async def test_file_outside_of_the_roots_is_no_artifact_upload_or_certificate(
    inside: Path, rooted: ToolSettings
) -> None:
    """Files outside of NOETL_WORKER_FILE_ROOTS, also through a link."""
    for file in (inside.parent / "secret.csv", inside / "link.csv", inside / ".." / "secret.csv"):
        said = await read_by_each_kind(str(file), rooted)
        assert all("is outside NOETL_WORKER_FILE_ROOTS=" in one for one in said)
    assert artifact_path(str(inside / "a.csv"), rooted) == inside / "a.csv"


def test_root_of_artifacts_narrows_the_roots_of_all(inside: Path, rooted: ToolSettings) -> None:
    """(no attack) NOETL_ARTIFACT_ROOT is what it was."""
    rooted = replace(rooted, artifact_root=str(inside / "deep"))
    with pytest.raises(ConfigurationError, match="is outside NOETL_ARTIFACT_ROOT"):
        artifact_path(str(inside / "a.csv"), rooted)
    assert artifact_path(str(inside / "deep" / "a.csv"), rooted) == inside / "deep" / "a.csv"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/proc/self/environ')",
        "SELECT * FROM read_blob('file:///proc/self/mem')",
        "SELECT * FROM read_blob('file://localhost/proc/self/mem')",
        "SELECT * FROM read_blob('/tmp/a://../../proc/self/mem')",
        f"SELECT * FROM read_text('~{'/..' * 20}/proc/self/environ')",
        'SELECT * FROM "/proc/self/environ"',
        "SELECT * FROM read_text($$/proc/self/environ$$)",
        "SELECT * FROM read_text('/tmp/../proc/1/environ')",
        "SELECT * FROM glob('/proc/*/environ')",
        "SELECT * FROM read_text('/p*c/self/environ')",
        "COPY (SELECT 1) TO '/sys/x'",
        "ATTACH '/proc/self/mem' AS m",
        f"SELECT * FROM read_blob('{OURS}')",
    ],
)
def test_sql_that_names_a_file_of_the_kernel_or_the_worker_is_refused(sql: str) -> None:
    """`read_text('/proc/self/environ')` in DuckDB."""
    with pytest.raises(ConfigurationError, match="not a file for playbooks"):
        query(there(sql))


def test_parameters_and_databases_are_looked_at_too() -> None:
    """The file as a parameter, or as the database."""
    with pytest.raises(ConfigurationError, match="not a file for playbooks"):
        query("SELECT * FROM read_text(?)", params=["/proc/self/environ"])
    with pytest.raises(ConfigurationError, match="not a file for playbooks"):
        query("SELECT 1", database=there(OURS))


@pytest.mark.skipif(not landlock.is_there(), reason="no Landlock of Linux 5.19 or later")
async def test_pattern_finds_no_file_of_the_kernel(tmp_path: Path) -> None:
    """`glob` over all processes."""
    (tmp_path / "directory").symlink_to("/proc")
    assert (await confined("SELECT * FROM glob('/pr' || 'oc/*/environ')"))["rows"] == []
    assert (await confined(f"SELECT * FROM glob('{tmp_path}/dir*/*/environ')"))["rows"] == []


async def test_confined_duckdb_works_with_files_as_before(tmp_path: Path) -> None:
    """(no attack) Files, databases, links to them and moves between directories; and the worker reads /proc itself."""
    file, database = tmp_path / "a.parquet", tmp_path / "a.duckdb"
    (tmp_path / "link.parquet").symlink_to(file)
    await confined(f"COPY (SELECT range AS x FROM range(100000)) TO '{file}'")
    await confined(f"CREATE TABLE t AS SELECT * FROM '{tmp_path}/link.parquet'; CHECKPOINT", database=str(database))
    assert (await confined("SELECT count(*) AS n FROM t", database=str(database), read_only=True))["rows"] == [
        {"n": 100000}
    ]
    assert (await confined("SELECT current_setting('threads') AS n"))["rows"][0]["n"] >= 1
    assert Path("/proc/self/environ").exists()


def test_other_texts_with_slashes_are_texts(tmp_path: Path) -> None:
    """(no attack) Dates, addresses, JSON paths, files of one's own."""
    file = tmp_path / "o.csv"
    query(f"COPY (SELECT 'a/b' AS x, 'https://a.test/proc' AS y, '/tmp' AS z) TO '{file}'")
    assert query(f"SELECT * FROM '{file}'")["rows"] == [{"x": "a/b", "y": "https://a.test/proc", "z": "/tmp"}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{out}/secret.csv'",
        "SELECT * FROM '{root}/link.csv'",
        "SELECT * FROM read_text('/pr' || 'oc/self/environ')",
        "SELECT * FROM glob('/' || '*')",
        "COPY (SELECT 1) TO '{out}/new.csv'",
        "ATTACH '{out}/new.db' AS n",
        "SET enable_external_access = true; SELECT * FROM '{out}/secret.csv'",
        "RESET allowed_directories; SELECT * FROM '{out}/secret.csv'",
        "SET allowed_paths = ['{out}/secret.csv']; SELECT * FROM '{out}/secret.csv'",
        "SET lock_configuration = false",
        "SET extension_directory = '{out}'",
        "SET secret_directory = '{out}'",
        "SET home_directory = '{out}'; SELECT * FROM '~/secret.csv'",
        "SET log_query_path = '{out}/new.log'",
        "SET enable_profiling = 'json'; SET profiling_output = '{out}/new.json'; SELECT 1",
        "EXPORT DATABASE '{out}/new'",
        "SET python_enable_replacements = true",
        "INSTALL httpfs",
        "SELECT * FROM 'https://elsewhere.test/a.csv'",
    ],
)
def test_sql_reaches_nothing_outside_of_the_roots(inside: Path, rooted: ToolSettings, sql: str) -> None:
    """With roots: built names, links, settings that lift the limit."""
    with pytest.raises(ToolError):
        query(sql.format(root=inside, out=inside.parent), settings=rooted)
    assert sorted(path.name for path in inside.parent.iterdir()) == ["inside", "secret.csv"]


def test_sql_works_within_the_roots(inside: Path, rooted: ToolSettings) -> None:
    """(no attack) Tables, files and databases where they may be."""
    query("CREATE TABLE t AS SELECT * FROM range(100000)", database=str(inside / "d.db"), settings=rooted)
    assert query("SELECT count(*) AS n FROM t", database=str(inside / "d.db"), settings=rooted)["rows"] == [
        {"n": 100_000}
    ]
    assert query("SELECT count(*) AS n FROM t", database=str(inside / "d.db"), read_only=True, settings=rooted)[
        "rows"
    ] == [{"n": 100_000}]
    assert query(f"SELECT * FROM '{inside}/a.csv'", settings=rooted)["rows"] == [{"x": 1}]
    assert query("SET TimeZone = 'UTC'; SET threads = 1; SELECT 1 AS x", settings=rooted)["rows"] == [{"x": 1}]


async def test_confined_sql_works_within_the_roots(inside: Path, rooted: ToolSettings) -> None:
    """(no attack) Tables, files, what is spilled and an extension, in a process that reaches the roots alone."""
    database = str(inside / "d.db")
    limits = "SET threads = 1; SET memory_limit = '40MB'; "  # a sort needs memory for each thread, spilled or not
    spilling = "CREATE TABLE t AS SELECT range AS i FROM range(3000000) ORDER BY hash(range)"
    await confined(limits + spilling, database=database, settings=rooted)
    assert (await confined("SELECT count(*) AS n FROM t", database=database, read_only=True, settings=rooted))[
        "rows"
    ] == [{"n": 3_000_000}]
    assert (await confined(f"SELECT * FROM '{inside}/a.csv'", extensions=["json"], settings=rooted))["rows"] == [
        {"x": 1}
    ]
    assert (await confined("SET TimeZone = 'Asia/Kathmandu'; SELECT '2020-01-01'::TIMESTAMPTZ AS t", settings=rooted))[
        "rows"
    ] == [{"t": "2020-01-01T00:00:00+05:45"}]
    rooted = replace(rooted, data_dir=str(inside.parent / "data"))
    await confined("CREATE TABLE t AS SELECT 1 AS i", settings=rooted)
    with pytest.raises(ToolError, match="Permission"):
        await confined(f"SELECT * FROM '{inside.parent}/secret.csv'", settings=rooted)


@pytest.mark.skipif(not landlock.is_there(), reason="no Landlock of Linux 5.19 or later")
def test_kernel_keeps_a_process_to_the_roots_and_libraries(inside: Path) -> None:
    """The same where DuckDB's own limit is got around, as by a library that it loads."""
    program = """
import sys
from pathlib import Path
from noetl_worker.tools.process import landlock
landlock.restrict((), (sys.argv[1],))
import fractions  # is loaded now
for name in sys.argv[2:]:
    try:
        with Path(name).open("ab" if "new" in name else "rb"):
            print("opened")
    except OSError as error:
        print(type(error).__name__)
"""
    reached = [inside / "a.csv", inside / "new.csv"]
    refused = [
        inside / "link.csv",
        inside.parent / "secret.csv",
        inside.parent / "new.csv",
        "/etc/fstab",
        "/proc/1/maps",
    ]
    arguments = [str(inside), *map(str, (*reached, *refused))]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["opened"] * len(reached) + ["PermissionError"] * len(refused), done.stderr


def test_database_of_an_execution_is_reached_wherever_the_operator_has_it(inside: Path, rooted: ToolSettings) -> None:
    """(no attack) NOETL_DATA_DIR is the operator's, and need not be in the roots."""
    rooted = replace(rooted, data_dir=str(inside.parent / "data"))
    query("CREATE TABLE t AS SELECT * FROM range(100000)", settings=rooted)
    assert query("INSERT INTO t VALUES (1); SELECT count(*) AS n FROM t", settings=rooted)["rows"] == [{"n": 100_001}]


def test_duckdb_that_cannot_keep_to_the_roots_is_not_used(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(no attack) DuckDB before 1.5 follows links out of the roots, and has no list of settings that are free."""

    class Error(Exception):
        pass

    class Old:
        def execute(self, text: str, values: object = None) -> Any:
            if "allowed_configs" in text:
                raise Error("unrecognized configuration parameter")
            return self

        def fetchall(self) -> list[Any]:
            return [("threads",)]

    library = SimpleNamespace(Error=Error, __version__="1.4.4")
    with pytest.raises(ConfigurationError, match=r"NOETL_WORKER_FILE_ROOTS needs DuckDB 1\.5 .* not 1\.4\.4:"):
        keep_to_roots(library, Old(), "duckdb", ["/data"])


@pytest.mark.parametrize(
    "sql",
    [
        "CALL enable_logging(storage = 'file', storage_config = {'path': '/nowhere/at/all'})",
        'SELECT * FROM "Enable_Logging"()',
        "SET logging_storage = 'file'",
    ],
)
def test_log_of_duckdb_ends_no_more_than_its_own_command(sql: str) -> None:
    """A DuckDB log that cannot be written: abort()."""
    with suppress(ToolError):
        query(f"{sql}; SELECT 1")
    assert query("SELECT 1 AS x")["rows"] == [{"x": 1}]


# ── the other kinds that have a DuckDB, or read a file by its name ──────────────────────────────

LAKE = {"catalog_connection": "{root}/meta.ducklake", "data_path": "{root}/data", "query": "SELECT 1"}
MOVED = {
    "source": {"type": "duckdb", "query": "SELECT * FROM '{root}/a.csv'"},
    "target": {"type": "duckdb", "database": "{root}/t.db", "table": "t"},
}
PLACES: list[tuple[str, dict[str, Any]]] = [
    ("duckdb", {"query": "SELECT 1", "database": "{file}"}),
    ("duckdb", {"query": "SELECT 1", "database": "{file}", "read_only": True}),
    ("duckdb", {"script": "{file}"}),
    ("postgres", {"script": "{file}", "connection_string": "host=127.0.0.1 port=1"}),
    ("python", {"script": "{file}"}),
    ("python", {"script": {"source": {"type": "file", "uri": "file://{file}"}}}),
    ("ducklake", {**LAKE, "catalog_connection": "{file}"}),
    ("ducklake", {**LAKE, "catalog_connection": "sqlite:{file}"}),
    ("ducklake", {**LAKE, "data_path": "{file}"}),
    ("transfer", {**MOVED, "target": {"type": "duckdb", "database": "{file}", "table": "t"}}),
    ("transfer", {**MOVED, "source": {"type": "duckdb", "database": "{file}", "query": "SELECT 1 AS x"}}),
]
each_place = pytest.mark.parametrize(
    ("kind", "config"), PLACES, ids=[f"{number}-{kind}" for number, (kind, _) in enumerate(PLACES)]
)


def needs_duckdb(kind: str) -> None:
    """A transfer says first that the library is missing."""
    if kind == "transfer":
        pytest.importorskip("duckdb")


@each_place
@pytest.mark.parametrize("file", ["/proc/self/environ", OURS])
def test_no_kind_opens_a_file_of_the_kernel_or_the_worker(
    tmp_path: Path, kind: str, config: dict[str, Any], file: str
) -> None:
    """/proc/self/environ or the outbox as database, catalog, lake or script."""
    (tmp_path / "a.csv").write_text("x\n1\n")
    needs_duckdb(kind)
    with pytest.raises(ConfigurationError, match="not a file for playbooks"):
        run_tool(kind, placed(config, root=tmp_path, file=there(file)))


@each_place
def test_no_kind_opens_a_file_outside_of_the_roots(
    inside: Path, rooted: ToolSettings, kind: str, config: dict[str, Any]
) -> None:
    """The same outside of the roots, also through a link."""
    needs_duckdb(kind)
    for file in (inside.parent / "secret.csv", inside / "link.csv"):
        with pytest.raises(ConfigurationError, match="is outside NOETL_WORKER_FILE_ROOTS="):
            run_tool(kind, placed(config, root=inside, file=file), settings=rooted)


def test_lake_with_roots_is_in_them(inside: Path, rooted: ToolSettings) -> None:
    """A lake's files at an address that DuckDB opens itself."""
    with pytest.raises(ConfigurationError, match=r"'s3://b/x' is an address; NOETL_WORKER_FILE_ROOTS allows only"):
        run_tool("ducklake", placed({**LAKE, "data_path": "s3://b/x"}, root=inside), settings=rooted)


@pytest.mark.parametrize("path", ["{root}/link.csv", "{out}/*.csv", "https://elsewhere.test/a.csv"])
def test_transfer_reads_nothing_outside_of_the_roots(inside: Path, rooted: ToolSettings, path: str) -> None:
    """Files of a transfer, or the SQL of its source."""
    pytest.importorskip("duckdb")
    where = path.format(root=inside, out=inside.parent)
    source = {"type": "duckdb", "query": f"SELECT * FROM '{where}'"}
    with pytest.raises(ToolError):
        run_tool("transfer", placed({**MOVED, "source": source}, root=inside), settings=rooted)


def test_transfer_reads_no_file_of_the_kernel() -> None:
    """The same without roots."""
    needs_duckdb("transfer")
    source = {"type": "duckdb", "query": "SELECT * FROM read_text('/proc/self/environ')"}
    with pytest.raises(ConfigurationError, match="not a file for playbooks"):
        run_tool("transfer", placed({**MOVED, "source": source}, root="/tmp"))


def test_transfer_works_within_the_roots(inside: Path, rooted: ToolSettings) -> None:
    """(no attack) From a file to a table."""
    pytest.importorskip("duckdb")
    assert run_tool("transfer", placed(MOVED, root=inside), settings=rooted).data["rows_transferred"] == 1


ACCOUNT = {"account": "a", "user": "u", "password": "p"}
NAMED = "PUT file:///proc/self/environ @~"


@pytest.mark.parametrize(
    ("query", "params"),
    [
        (NAMED, None),
        ("SELECT 1; get @~/x 'file:///tmp'", None),
        ("  /* a */ /* b\n */\n PuT file:///etc/passwd @~", None),
        ("-- a\nPUT file:///etc/passwd @~", None),
        ("/* /* */ PUT file:///etc/passwd @~", None),
        ("/* %s */ SELECT 1", [f"*/ {NAMED} /*"]),
    ],
)
def test_sql_of_snowflake_has_its_connector_open_no_file(
    query: str, params: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PUT and GET open files in Snowflake's connector."""
    needs_duckdb("transfer")
    account = FakeSnowflake()
    account.install(monkeypatch)
    with suppress(ToolError):
        run_tool("snowflake", {**ACCOUNT, "query": query, "params": params})
    assert [text for text in account.ran if "PUT" in text.upper() or "GET" in text.upper()] == []
    assert [text for text in account.ran if params and text.startswith("/*")] == []
    if params is None:
        source = {"type": "snowflake", **ACCOUNT, "query": query.rpartition(";")[2]}
        with pytest.raises(ToolError, match="PUT and GET open files of the worker's machine"):
            run_tool("transfer", placed({**MOVED, "source": source}, root="/tmp"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("sslcrldir={place}", "'sslcrldir' is not for playbooks.*give the list as 'sslcrl'"),
        ("sslkeylogfile={place}/anything", "'sslkeylogfile' is not for playbooks"),
        ("passfile=/proc/self/environ", "not a file for playbooks"),
        ("passfile=" + OURS, "not a file for playbooks"),
    ],
)
def test_address_of_postgres_writes_no_file_and_sends_none(more: str, said: str, tmp_path: Path) -> None:
    """libpq writes TLS keys to a file, or sends a file."""
    pytest.importorskip("psycopg")
    given = there(more).format(place=tmp_path)
    with pytest.raises(ConfigurationError, match=said):
        run_tool("postgres", {"connection_string": f"host=127.0.0.1 port=9 {given}", "query": "SELECT 1"})


@pytest.mark.parametrize("name", ["passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl"])
def test_files_of_a_postgres_connection_are_those_for_playbooks(inside: Path, rooted: ToolSettings, name: str) -> None:
    """The same with files that libpq opens, also outside of the roots."""
    pytest.importorskip("psycopg")
    for file in (inside.parent / "secret.csv", inside / "link.csv", "/proc/self/environ", there(OURS)):
        address = f"host=127.0.0.1 port=9 {name}={file}"
        end = {"type": "postgres", "connection_string": address}
        steps: list[tuple[str, dict[str, Any]]] = [
            ("postgres", {"connection_string": address, "query": "SELECT 1"}),
            ("transfer", {"source": {**end, "query": "SELECT 1"}, "target": {**end, "table": "t"}}),
        ]
        for kind, config in steps:
            with pytest.raises(ConfigurationError, match=r"is outside NOETL_WORKER_FILE_ROO|not a file for playbook"):
                run_tool(kind, config, settings=rooted)


def test_key_of_a_postgres_connection_is_a_file(tmp_path: Path) -> None:
    """libpq has OpenSSL load a program library, `sslkey=/tmp/mine.so:key`."""
    pytest.importorskip("psycopg")
    for key in (f"{tmp_path}/mine.so:key", "dynamic:key"):
        with pytest.raises(ConfigurationError, match="'sslkey' must name a file, not an OpenSSL engine"):
            run_tool("postgres", {"connection_string": f"host=127.0.0.1 port=9 sslkey={key}", "query": "SELECT 1"})
