"""The kernel refuses processes or memory, by its own limits.

No limit of a process gives ENFILE (the whole system's table of files) or refuses a fork for want of memory: these two
are shown by calls that raise them (test_resource_shortage.py).
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ResourceShortage
from noetl_worker.tools.process.shortage import before_any_effect

from .commands import USERS, printed_under

BY_NAME = "localhost:9"
"""Nobody is there; a name is looked up in a thread."""
CLUSTER = {"url": f"http://{BY_NAME}", "token": "t"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "shell": ("shell", {"command": "printf x >> {place}/effects"}),
    "python": ("python", {"code": "open('{place}/effects', 'a').write('x')"}),
    "python script in a file": ("python", {"script": "{place}/script"}),
    "python script at an address": ("python", {"script": {"uri": f"http://{BY_NAME}/x"}}),
    "duckdb": ("duckdb", {"query": "SELECT 1"}),
    "duckdb script in a file": ("duckdb", {"script": "{place}/script"}),
    "transfer": (
        "transfer",
        {
            "source": {"type": "duckdb", "query": "SELECT 1 AS x"},
            "target": {"type": "duckdb", "database": "{place}/t.db", "table": "t"},
        },
    ),
    "rhai": ("rhai", {"code": "1"}),
    "http": ("http", {"url": f"http://{BY_NAME}/"}),
    "http token": (
        "http",
        {
            "url": "http://127.0.0.1:9/",
            "auth": {
                "type": "oauth2",
                "client_id": "c",
                "client_secret": "s",
                "token_url": f"http://{BY_NAME}/",
            },
        },
    ),
    "mcp": ("mcp", {"endpoint": f"http://{BY_NAME}/mcp", "method": "tools/list"}),
    "artifact file": ("artifact", {"action": "get", "uri": "file://{place}/script"}),
    "artifact": ("artifact", {"action": "get", "uri": f"http://{BY_NAME}/a"}),
    "container": ("container", {"image": "busybox", "auth": CLUSTER}),
    "script": ("script", {"script": "print(1)", "auth": CLUSTER}),
    "postgres": ("postgres", {"host": "localhost", "port": 9, "user": "u", "database": "d", "query": "SELECT 1"}),
    "nats": ("nats", {"url": f"nats://{BY_NAME}", "operation": "js_publish", "subject": "s", "data": "x"}),
    "secrets": ("secrets", {"secret_name": "script", "provider": "file"}),
}
BY_FORK = ("shell", "python", "rhai", "duckdb", "transfer")
"""These start a process; the others a thread."""
LIBRARY = {"duckdb": "duckdb", "transfer": "duckdb", "postgres": "psycopg", "rhai": "noetl_worker._core"}

_WORKER = """
import asyncio, contextlib, json, os, resource, sys, tempfile, threading
from pathlib import Path
from noetl_worker.errors import ToolError
from noetl_worker.process.lookups import TOOLS
from noetl_worker.testing import tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.registry import Registry

limit, kinds = sys.argv[1], json.load(sys.stdin)
directory = tempfile.TemporaryDirectory(prefix="tests-real-limits-")  # gone at the end
place = Path(directory.name)
(place / "script").write_text("1")
stacks = iter(range(64 << 20, 1 << 40, 64 << 20))

def placed(value):
    if isinstance(value, dict):
        return {name: placed(one) for name, one in value.items()}
    return value.replace("{place}", str(place)) if isinstance(value, str) else value

@contextlib.contextmanager
def short():
    TOOLS.__init__("tool_names", 16)  # a new pool: the threads of the one before end with it
    what, least = resource.RLIMIT_NPROC, 0
    if limit == "memory":  # there is room for work, and none for the stack of a thread; one that ended leaves a smaller
        threading.stack_size(next(stacks))
        while len(os.listdir("/proc/self/task")) > 1:  # a thread that was joined still gives its memory back
            os.sched_yield()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        what, least = resource.RLIMIT_AS, used + (48 << 20)
    before = resource.getrlimit(what)
    resource.setrlimit(what, (least, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)

async def outcome(name, around):
    kind, config = kinds[name]
    registry = Registry(plugins=False, settings=ToolSettings(secrets_dir=str(place)))
    try:
        with around():
            await registry.run_tool(kind, placed(config), tool_context(registry=registry))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        await registry.aclose()
    return "ran"

# The first time all that it needs is loaded; its threads end with its loop.
before = {name: asyncio.run(outcome(name, contextlib.nullcontext)) for name in kinds}
under = {name: asyncio.run(outcome(name, short)) for name in kinds}
effects = place / "effects"
print(json.dumps({"before": before, "under": under, "effects": effects.read_text() if effects.exists() else ""}))
directory.cleanup()
"""


@functools.cache
def outcomes_under(user: str, limit: str) -> dict[str, Any]:
    found: dict[str, Any] = printed_under(user, _WORKER, limit, given=KINDS)
    return found


@pytest.mark.skipif(USERS == ("root",), reason="no count of processes binds root")
@pytest.mark.parametrize("name", KINDS)
def test_kind_is_returned_where_the_user_has_no_process_left(name: str) -> None:
    """Others use up processes and threads (RLIMIT_NPROC)."""
    if library := LIBRARY.get(KINDS[name][0]):
        pytest.importorskip(library)
    found = outcomes_under(USERS[-1], "processes")
    assert found["under"][name].startswith("ResourceShortage: "), found
    assert found["effects"] == "xx"  # of the first time


@pytest.mark.parametrize("name", [name for name in KINDS if name not in BY_FORK])
def test_kind_is_returned_where_no_memory_is_left_for_a_thread(name: str) -> None:
    """Others use up the worker's memory (RLIMIT_AS)."""
    if library := LIBRARY.get(KINDS[name][0]):
        pytest.importorskip(library)
    found = outcomes_under(USERS[-1], "memory")
    assert found["under"][name].startswith("ResourceShortage: "), found


def test_memory_that_is_not_to_be_had_is_a_shortage(tmp_path: Path) -> None:
    """The kernel refuses memory."""
    with pytest.raises(ResourceShortage, match="to connect: MemoryError"), before_any_effect("to connect"):
        bytearray(sys.maxsize // 4)
