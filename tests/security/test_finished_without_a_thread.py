"""No thread is left to report what a tool has done."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from noetl_worker.models import Dialect

from .commands import USERS, printed_under

pytestmark = pytest.mark.skipif(USERS == ("root",), reason="no count of processes binds root")

REQUESTS = {"http": 1, "mcp": 2, "artifact": 1}

_WORKER = """
import asyncio, json, resource
from functools import partial
from pathlib import Path
from noetl_worker.errors import TransportError
from noetl_worker.models import CaseDecision, Command, Dialect, FitRules, ToolResult
from noetl_worker.process import lookups
from noetl_worker.pipeline.report import results
from noetl_worker.settings.settings import load_settings
from noetl_worker.testing import arun_tool
from noetl_worker.tools.process.confinement import UNCONFINED
from noetl_worker.tools.process.scratch import Scratch
from noetl_worker.remote.transport.on_loop import OnLoopTransport

PAD = "a" * (2 << 20)
COMMAND = dict(
    execution_id=1, event_id=2, command_id="1:s:2", step="s", kind="noop", config={}, input={}, variables={},
    cases=(), meta={}, server_url="http://plane.test",
)

class Server:
    '''Counts requests, and answers each with two megabytes.'''

    def __init__(self):
        self.requests = 0

    async def answer(self, reader, writer):
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        length = [line.split(b":")[1] for line in head.split(b"\\r\\n") if line.lower().startswith(b"content-length")]
        sent = await reader.readexactly(int(length[0])) if length else b""
        self.requests += b"notifications/" not in sent
        body = json.dumps({"jsonrpc": "2.0", "id": json.loads(sent or "{}").get("id"), "result": {"pad": PAD}})
        head = f"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: {len(body)}\\r\\n"
        writer.write((head + "Connection: close\\r\\n\\r\\n" + body).encode())
        await writer.drain()
        writer.close()

def configs(url):
    return {
        "http": {"method": "POST", "url": url, "body": {"a": 1}},
        "mcp": {"endpoint": url, "method": "tools/list"},
        "artifact": {"action": "get", "uri": url},
    }

async def of_kind(kind):
    server = Server()
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        result = await arun_tool(kind, configs(f"http://127.0.0.1:{port}/")[kind])
        said = result.status.value
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    finally:
        listening.close()
    return {"said": said, "requests": server.requests}

async def of_report(dialect):
    report = await results.report(
        Command(**COMMAND, dialect=Dialect(dialect)), ToolResult.success({"pad": PAD}), CaseDecision(), FitRules()
    )
    return {"said": report.status}

async def of_scratch():
    async with Scratch(UNCONFINED).directory() as place:
        Path(place, "file").write_text("x")
    return {"said": "there" if Path(place).exists() else "gone"}

async def of_transport():
    lookups.OWN = lookups.OwnLookups("own_names", 8)  # without a thread, and without an address
    transport = OnLoopTransport(load_settings({}))
    try:
        await transport.send("GET", "http://localhost:9/", {}, None, 5.0)
    except TransportError as error:
        return {"said": f"{type(error).__name__}: {error}"}
    finally:
        await transport.close()

WORK = {
    **{kind: partial(of_kind, kind) for kind in ("http", "mcp", "artifact")},
    **{f"report to {dialect.value}": partial(of_report, dialect) for dialect in Dialect},
    "transport": of_transport,
    "scratch": of_scratch,
}

async def under(limit, work):
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit if limit is not None else before[0], before[1]))
    try:
        return await work()
    except Exception as error:
        return {"said": f"{type(error).__name__}: {error}"}
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, before)

before = {name: asyncio.run(under(None, work)) for name, work in WORK.items()}  # all that it needs is loaded
print(json.dumps({"before": before, "under": {name: asyncio.run(under(0, work)) for name, work in WORK.items()}}))
"""


@functools.cache
def found() -> dict[str, Any]:
    """What came of each without a thread, each on a loop of its own, which has none yet."""
    outcomes: dict[str, Any] = printed_under(USERS[-1], _WORKER)
    return outcomes


@pytest.mark.parametrize("kind", REQUESTS)
def test_large_answer_to_a_request_that_was_sent_is_read(kind: str) -> None:
    """A large answer arrives when no thread can be started."""
    assert found()["under"][kind] == {"said": "success", "requests": REQUESTS[kind]}


def test_large_result_is_reported(dialect: Dialect) -> None:
    """The same with a result of any kind."""
    assert found()["under"][f"report to {dialect.value}"] == {"said": "success"}


def test_scratch_directory_is_removed() -> None:
    """(no attack) What the command did is done all the same."""
    assert found()["under"]["scratch"] == {"said": "gone"}


def test_event_is_sent_again_where_the_name_of_the_plane_cannot_be_looked_up() -> None:
    """The plane's name cannot be looked up for lack of threads."""
    said = found()["under"]["transport"]["said"]
    assert (said.partition(":")[0], said.endswith("can't start new thread")) == ("NotSent", True)
