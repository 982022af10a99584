"""The servers and files of tests; every failure of a built-in tool has a kind that is documented."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.models import ToolResult
from noetl_worker.tools import registry as registries
from noetl_worker.tools.contract import Tool
from noetl_worker.tools.docs.guide import read_guide
from noetl_worker.tools.error_kinds import ERROR_KINDS
from noetl_worker.tools.http.client import Clients

from .databases import Postgres, postgres_server, queries
from .http_server import ToolServer
from .one_template import ended_afterwards


@pytest.fixture(autouse=True)
def documented_failures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails the test in which a built-in tool fails with a word that its guide does not have."""
    wrong: list[str] = []
    run = registries.PreparedTool.run

    async def watched(self: registries.PreparedTool) -> ToolResult:
        try:
            result = await run(self)
        except ToolError as error:
            note(self, error.kind)
            raise
        if result.error is not None:
            note(self, result.error.kind)
        return result

    def note(prepared: registries.PreparedTool, kind: str) -> None:
        if not type(prepared.tool).__module__.startswith("noetl_worker."):
            return
        # these two have those of the tools that they run
        of_others = prepared.tool.kind in ("task_sequence", "workbook")
        told = ERROR_KINDS if of_others else _told_by(prepared.tool)
        if kind not in told:
            wrong.append(f"{prepared.tool.kind}: {kind}")

    monkeypatch.setattr(registries.PreparedTool, "run", watched)
    yield
    assert wrong == [], "say when under Errors in tools/kinds/<kind>/page.md; a new word also goes into error_kinds.py"


def _told_by(tool: Tool[Any]) -> set[str]:
    always = {"configuration", "template", "auth", "timeout", "unknown"}
    return (set(read_guide(tool).errors) & set(ERROR_KINDS)) | always


@pytest.fixture(scope="module", autouse=True)
def one_template_a_file() -> Iterator[None]:
    with ended_afterwards():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres server; a test may restart it."""
    with postgres_server() as running:
        yield running


@pytest.fixture
def address(postgres: Postgres) -> str:
    return postgres.uri


@pytest.fixture
def query(address: str) -> Any:
    """Runs a text of kind `postgres`, with these fields of the config, and gives its data."""
    return queries(address)


@pytest.fixture
def pg(postgres: Postgres) -> Postgres:
    from .transfers import with_tables  # it skips where DuckDB is not installed

    return with_tables(postgres)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "a.duckdb")


@pytest.fixture
def server() -> Iterator[ToolServer]:
    with ToolServer() as running:
        yield running


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    made = Clients()
    yield made
    await made.aclose()


@pytest.fixture
async def registry() -> AsyncIterator[registries.Registry]:
    """What a worker keeps between its commands."""
    made = registries.Registry(plugins=False)
    yield made
    await made.aclose()


@pytest.fixture(scope="module")
def nats_server() -> Iterator[Any]:
    from .nats_service import running

    yield from running()


@pytest.fixture
async def session(nats_server: Any) -> AsyncIterator[Any]:
    from .nats_service import Session, client

    async with client(nats_server) as connection:
        one = Session(nats_server, connection)
        yield one
        await one.registry.aclose()
