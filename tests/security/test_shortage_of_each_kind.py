"""A kind finds no descriptor or thread before it has any effect."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ResourceShortage, ToolError
from noetl_worker.testing import tool_context
from noetl_worker.tools.kinds.artifact import files as artifact_files
from noetl_worker.tools.process.shortage import is_shortage, is_shortage_text, started
from noetl_worker.tools.registry import Registry
from patience import PATIENCE_S
from tool_settings import tool_settings
from tools.databases import duckdb_extensions
from tools.fake_snowflake import FakeSnowflake, OperationalError

from .commands import placed

NOWHERE = "127.0.0.1:9"
CLUSTER = {"url": f"http://{NOWHERE}", "token": "t"}
FILE = "file://{directory}/file.json"
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "postgres": ("postgres", {"host": "127.0.0.1", "port": 9, "user": "u", "database": "d", "query": "SELECT 1"}),
    "nats": ("nats", {"url": f"nats://{NOWHERE}", "operation": "js_publish", "subject": "s", "data": "x"}),
    "subscription": ("subscription", {"source": "nats", "url": f"nats://{NOWHERE}", "stream": "S", "consumer": "c"}),
    "mcp": ("mcp", {"endpoint": f"http://{NOWHERE}/mcp", "method": "tools/list"}),
    "mcp health": ("mcp", {"endpoint": f"http://{NOWHERE}/mcp", "method": "health"}),
    "duckdb": ("duckdb", {"database": "{directory}/a.duckdb", "query": "SELECT 1"}),
    "transfer from duckdb": (
        "transfer",
        {
            "source": {"type": "duckdb", "query": "SELECT * FROM '{directory}/rows.csv'"},
            "target": {"type": "duckdb", "database": "{directory}/t.duckdb", "table": "t"},
        },
    ),
    "transfer to duckdb": (
        "transfer",
        {
            "source": {"type": "postgres", "host": "127.0.0.1", "port": 9, "user": "u", "database": "d", "query": "x"},
            "target": {"type": "duckdb", "database": "{directory}/t.duckdb", "table": "t"},
        },
    ),
    "ducklake": (
        "ducklake",
        {
            "catalog_connection": "{directory}/meta.ducklake",
            "data_path": "{directory}/data",
            "query": "CREATE TABLE IF NOT EXISTS t (a INT)",
        },
    ),
    "artifact get file": ("artifact", {"action": "get", "uri": FILE}),
    "artifact put file": ("artifact", {"action": "put", "uri": FILE, "data": {"a": 1}}),
    "artifact get": ("artifact", {"action": "get", "uri": f"http://{NOWHERE}/a"}),
    "artifact put": ("artifact", {"action": "put", "uri": f"http://{NOWHERE}/a", "data": {"a": 1}}),
    "container": ("container", {"image": "busybox", "auth": CLUSTER}),
    "script": ("script", {"script": "print(1)", "job": {"image": "python"}, "auth": CLUSTER}),
}


@contextmanager
def without_descriptors() -> Iterator[None]:
    """Nothing more can be opened by this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("name", CONFIGS)
async def test_kind_that_finds_no_descriptor_has_its_command_returned(name: str, tmp_path: Path) -> None:
    """Others use up the descriptors."""
    (kind, config), settings = CONFIGS[name], tool_settings()
    for library in {"postgres": ["psycopg"], "duckdb": ["duckdb"], "transfer": ["duckdb", "psycopg"]}.get(kind, []):
        pytest.importorskip(library)
    if kind == "ducklake":
        pytest.importorskip("duckdb")
        settings = tool_settings(NOETL_DUCKDB_EXTENSION_DIRECTORY=str(duckdb_extensions(tmp_path, "ducklake")))
    config = placed(config, directory=tmp_path)
    (tmp_path / "file.json").write_text("{}")
    (tmp_path / "rows.csv").write_text("a\n1\n")
    registry = Registry(plugins=False, settings=settings)
    context = tool_context(registry=registry)
    try:
        with suppress(ToolError):  # nobody is there; from now on what it needs is loaded
            await registry.run_tool(kind, config, context)
        with without_descriptors(), pytest.raises(ResourceShortage):
            await registry.run_tool(kind, config, context)
    finally:
        await registry.aclose()
    assert (tmp_path / "file.json").read_text() in ("{}", '{"a":1}')
    assert not list(tmp_path.glob(".*.part"))


def test_file_is_not_written_by_a_put_that_is_returned(tmp_path: Path) -> None:
    """(no attack) It is run again, and has to find what was there before."""
    place = tmp_path / "file"
    place.write_bytes(b"before")
    with without_descriptors(), pytest.raises(ToolError) as caught:
        artifact_files.write_file(place, b"after", threading.Event())
    assert is_shortage(caught.value)
    assert place.read_bytes() == b"before"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_words_of_a_library_in_c_are_known(number: int) -> None:
    """(no attack) libpq and DuckDB give a text and no number."""
    assert is_shortage_text(f'connection to server at "::1" failed: could not create socket: {os.strerror(number)}')
    assert not is_shortage_text(os.strerror(errno.ECONNREFUSED))


async def test_shortage_of_a_server_is_not_that_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """(no attack) A Postgres without descriptors says so in the same words: no reason to run fewer slots here."""
    pytest.importorskip("psycopg")
    import psycopg

    from noetl_worker.tools.kinds.postgres import connection as postgres_connection

    async def connect(*_: Any, **__: Any) -> Any:
        raise psycopg.OperationalError(f'FATAL: could not open file "global/1": {os.strerror(errno.EMFILE)} in system')

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
    with pytest.raises(ToolError) as caught:
        await postgres_connection.connect("host=x")
    assert not isinstance(caught.value, ResourceShortage)


# ── a refused thread ──


def refused(thread: Any) -> None:
    raise RuntimeError("can't start new thread")  # as `threading.Thread.start` says it


THREADED: dict[str, tuple[str, dict[str, Any]]] = {
    "snowflake": ("snowflake", {"account": "a", "user": "u", "password": "p", "query": "SELECT 1"}),
    "transfer from snowflake": (
        "transfer",
        {
            "source": {"type": "snowflake", "account": "a", "user": "u", "password": "p", "query": "SELECT 1"},
            "target": {"type": "duckdb", "database": "{directory}/t.duckdb", "table": "t"},
        },
    ),
}


@pytest.mark.parametrize("name", THREADED)
async def test_kind_that_is_refused_a_thread_has_its_command_returned(
    name: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others use up processes and threads."""
    pytest.importorskip("duckdb")
    account = FakeSnowflake()
    account.install(monkeypatch)
    (tmp_path / "rows.csv").write_text("a\n1\n")
    kind, config = THREADED[name]
    context = tool_context(registry=registry)
    await registry.run_tool("noop", {}, context)
    with monkeypatch.context() as short:
        short.setattr("threading.Thread.start", refused)
        with pytest.raises(ResourceShortage):
            await registry.run_tool(kind, placed(config, directory=tmp_path), context)
    await registry.run_tool("noop", {}, context)
    assert account.connected == []
    assert not (tmp_path / "t.duckdb").exists()
    assert not (tmp_path / "meta.ducklake").exists()


def test_call_that_was_refused_a_thread_never_runs() -> None:
    """(no attack) The pool keeps it in its queue, from where the next thread would take it."""
    ran: list[str] = []
    executor = ThreadPoolExecutor(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("threading.Thread.start", refused)
        with pytest.raises(ResourceShortage, match="lacks resources to start a thread"):
            started(executor, lambda: ran.append("returned"))
    assert started(executor, lambda: "next").result(timeout=PATIENCE_S) == "next"
    executor.shutdown(wait=True)
    assert ran == []
    with pytest.raises(RuntimeError, match="after shutdown"):  # a bug of ours is no shortage
        started(executor, lambda: None)


async def test_snowflake_that_finds_no_descriptor_has_its_command_returned(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(no attack) The connector tries until the time is up, or says that it could not connect, and not why."""
    pytest.importorskip("duckdb")
    account = FakeSnowflake()
    account.install(monkeypatch)
    account.refuse = OperationalError("250001: Could not connect to Snowflake backend after 2 attempt(s)")
    kind, config = THREADED["snowflake"]
    seen, context = [], tool_context(registry=registry)
    for around in (nullcontext, without_descriptors):
        with pytest.raises(ToolError) as caught, around():
            await registry.run_tool(kind, config, context)
        seen.append(caught.type)
    assert seen == [ToolError, ResourceShortage]
