"""A playbook asks for names whose resolver never answers: each look-up holds a thread for as long as that goes on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import loops
from noetl_worker.errors import ToolError
from noetl_worker.models import Dialect
from noetl_worker.process import lookups
from noetl_worker.testing import arun_tool

from .silent_house import NATS, PLANE, STUCK, in_a_namespace, seen

QUARTER = 4


class Resolver:
    """The system's, but for names of tests: those under `silent.test` get no answer until `answer` is set."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.held = 0
        self.most_held = 0
        self.threads: list[str] = []
        self._lock = threading.Lock()
        self._of_the_system = socket.getaddrinfo

    def getaddrinfo(self, host: Any, *rest: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in (PLANE, NATS):
            return self._of_the_system("127.0.0.1", *rest, **options)
        if not str(name).endswith(".silent.test"):
            return self._of_the_system(host, *rest, **options)
        with self._lock:
            self.threads.append(threading.current_thread().name)
            self.held += 1
            self.most_held = max(self.most_held, self.held)
        self.answer.wait()
        with self._lock:
            self.held -= 1
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    try:
        yield made
    finally:
        made.answer.set()
        for name in (PLANE, NATS):
            lookups.OWN.forget(name)


def require_others_went_on(found: dict[str, Any]) -> None:
    assert found["others"] == [["command.completed"]] * len(found["others"])
    assert found["silent"] == [[]] * STUCK
    assert list(found["second"]) == [True, "pulling"]
    assert found["waiting_s"]["tool_names"] > 0
    assert found["waiting_s"]["own_names"] == 0
    code, said = found["livez"]
    assert (code, said["reason"]) == (200, None)  # a new process would have the same resolver
    assert set(said["pools_waiting_s"]) == {"tool_names"}


@pytest.mark.parametrize("anyio_backend", loops.BOTH)
async def test_others_go_on_beside_twelve_look_ups_of_one_execution(resolver: Resolver, dialect: Dialect) -> None:
    """Twelve `http` steps of one execution ask for silent names."""
    require_others_went_on(await seen(dialect))
    assert resolver.most_held == QUARTER


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_resolver_of_the_system_that_is_silent_holds_up_its_own_execution_alone(loop: str) -> None:
    """The same with the system's own resolver, which nobody answers."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    found = in_a_namespace(loop)
    if found is None:
        pytest.skip("this user may not have a resolver of its own")
    assert found["was_asked"]
    require_others_went_on(found)


BY_NAME: list[tuple[str, dict[str, Any]]] = [
    ("http", {"url": "http://name.silent.test/"}),
    ("mcp", {"endpoint": "http://name.silent.test/", "method": "tools/list"}),
    ("artifact", {"uri": "http://name.silent.test/"}),
    ("nats", {"operation": "kv_get", "url": "nats://name.silent.test", "bucket": "b", "key": "k"}),
    ("postgres", {"host": "name.silent.test", "user": "u", "database": "d", "command": "select 1"}),
]


@pytest.mark.parametrize("anyio_backend", loops.BOTH)
@pytest.mark.parametrize(("kind", "config"), BY_NAME, ids=[kind for kind, _ in BY_NAME])
async def test_tools_look_names_up_in_threads_of_their_own(
    kind: str, config: dict[str, Any], resolver: Resolver
) -> None:
    """Any tool that connects by name asks for silent ones."""
    if kind == "postgres":
        pytest.importorskip("psycopg")
    resolver.answer.set()
    with pytest.raises(ToolError, match="Temporary failure in name resolution"):
        await arun_tool(kind, config)
    assert resolver.threads
    assert all(name.startswith("noetl-tool_names") for name in resolver.threads)
