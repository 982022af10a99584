"""A worker runs inside of these tests: they run on the loop that it chooses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import loops
from tools import conftest as of_tools
from tools.http_server import ToolServer, as_json

from .commands import end_workers

one_template_a_file, registry, server = of_tools.one_template_a_file, of_tools.registry, of_tools.server


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return loops.OF_A_WORKER


@pytest.fixture(scope="session", autouse=True)
def no_worker_stays() -> Iterator[None]:
    yield
    end_workers()


@pytest.fixture
def identity(server: ToolServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ToolServer:
    """A machine of Google's: its metadata service gives a token to whoever asks."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.port}")
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    server.routes[path] = lambda seen: as_json({"access_token": "mine"})
    return server
