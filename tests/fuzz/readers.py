"""Inputs for every reader of a server's or author's bytes, watched for how long they hold up the loop, and for memory.

`readers.py --inputs 10000` is the nightly run (`make fuzz`); one that takes too much, or fails with what is no clear
error, is printed with its seed and ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "python")]

import httpx  # noqa: E402

from fuzz.documents import Document, document  # noqa: E402
from noetl_worker.errors import NoetlWorkerError  # noqa: E402
from noetl_worker.models import ToolResult  # noqa: E402
from noetl_worker.process.threads import off_loop  # noqa: E402
from noetl_worker.settings.tools import ToolSettings  # noqa: E402
from noetl_worker.testing import arun_tool, tool_context  # noqa: E402
from noetl_worker.text import yaml_text  # noqa: E402
from noetl_worker.text.json_text import loads_in_room  # noqa: E402
from noetl_worker.tools.contract import Stop  # noqa: E402
from noetl_worker.tools.http.client import ClientOptions, Clients  # noqa: E402
from noetl_worker.tools.http.tokens import Tokens  # noqa: E402
from noetl_worker.tools.kinds.artifact.artifact import ArtifactTool  # noqa: E402
from noetl_worker.tools.kinds.container.cluster import Cluster, ClusterAddress  # noqa: E402
from noetl_worker.tools.kinds.container.container_job import job_end, pod_state  # noqa: E402
from noetl_worker.tools.kinds.http.http import HttpTool  # noqa: E402
from noetl_worker.tools.kinds.mcp.mcp import McpTool  # noqa: E402
from noetl_worker.tools.kinds.transfer.ends import TransferSource  # noqa: E402
from noetl_worker.tools.kinds.transfer.sources import READERS as SOURCES  # noqa: E402
from noetl_worker.tools.payload import parse_payloads  # noqa: E402
from noetl_worker.tools.process.confinement import UNCONFINED  # noqa: E402
from noetl_worker.tools.sql import split  # noqa: E402
from security.test_memory_by_a_server import hostile  # noqa: E402

MOST_LAG_S: Final = 0.5
"""CPU time of the process between two turns of the loop: whatever took it, nothing else went on."""
MOST_MEMORY: Final = 256 << 20
"""Sixteen times the 16 MiB that a packed input may unpack to. orjson reserves twelve times what it reads, most of which
is never touched; tracemalloc counts it all the same."""
MOST_GROWTH: Final = 64
"""Bytes of memory for each byte of an input, beside MOST_MEMORY: dense JSON takes 44."""
ADDRESS: Final = "http://a.test/"


def served(given: Document, kind: str, **headers: str) -> httpx.MockTransport:
    async def pieces() -> Any:
        for number, piece in enumerate(given.pieces()):
            if number % 100 == 0:
                await asyncio.sleep(0)  # as a connection does now and then
            yield piece

    named = {"content-type": kind, **headers}
    return httpx.MockTransport(lambda request: httpx.Response(200, headers=named, content=pieces()))


async def read_mcp(given: Document, kind: str) -> None:
    hostile = served(given, kind)

    def answer(request: httpx.Request) -> Any:
        if b'"initialize"' in request.content:
            return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": {}})
        asked = b'"id":2' in request.content
        return hostile.handler(request) if asked else httpx.Response(202)

    config = {"endpoint": ADDRESS, "method": "tools/list", "timeout": 60}
    await arun_tool(McpTool(httpx.MockTransport(answer)), config)


async def read_http(given: Document, coding: str | None) -> None:
    headers = {"content-encoding": coding} if coding else {}
    await arun_tool(HttpTool(served(given, "application/json", **headers)), {"url": ADDRESS})


async def read_artifact(given: Document, encoding: str) -> None:
    await arun_tool(ArtifactTool(served(given, "text/plain")), {"uri": ADDRESS, "encoding": encoding})


async def read_cluster(given: Document) -> None:
    def cluster() -> Cluster:
        place = ClusterAddress(ADDRESS, None, ClientOptions(), settings=ToolSettings())
        return Cluster(Clients(served(given, "application/json")), place, "noetl")

    pod_state(await cluster().pods("j"))
    await cluster().log("p", "main", 1 << 20)
    job_end(await cluster().job("j"))


async def read_token(given: Document) -> None:
    tokens = Tokens(Clients(served(given, "application/json")))
    await tokens.client_credentials({"token_url": ADDRESS, "client_id": "a", "client_secret": "b"}, ToolSettings())


async def read_key_file(given: Document) -> None:
    account = {"service_account_json": given.data.decode(errors="replace")}
    await Tokens(Clients()).google(account, ToolSettings())


async def read_rows(given: Document) -> None:
    data = await loads_in_room(given.data, Stop())

    async def answer(*_: Any) -> ToolResult:
        return ToolResult.success({"data": data})

    context = tool_context(run_tool=answer)
    async with SOURCES["http"](TransferSource(type="http", url=ADDRESS), 1000, context, UNCONFINED) as reader:
        while await reader.fetch():
            pass


async def read_payload(given: Document) -> None:
    await parse_payloads([given.data, given.data[: len(given.data) // 2]], Stop())


async def read_nats(given: Document, frame: Callable[[bytes, bytes], bytes], **config: Any) -> None:
    def answer(to: bytes) -> Iterator[bytes]:
        return given._replace(data=frame(to, given.data)).pieces()

    async with hostile(answer) as server:
        await arun_tool("nats", {"url": server.url, "timeout_ms": 50, **config})


def as_message(to: bytes, data: bytes) -> bytes:
    return b"MSG " + to + b" %d\r\n" % len(data) + data + b"\r\n"


def as_headers(to: bytes, data: bytes) -> bytes:
    return b"HMSG " + to + b" %d %d\r\n" % (len(data), len(data)) + data + b"\r\n"


async def read_yaml(given: Document) -> None:
    text = given.data.decode(errors="replace")
    await off_loop(1 << 30, partial(yaml_text.loads, text))


async def read_sql(given: Document) -> None:
    text = given.data.decode(errors="replace")
    await off_loop(len(text), lambda: (split.statements(text), split.bare(text), split.first_word(text)))


READERS: Final[dict[str, Callable[[Document], Awaitable[None]]]] = {
    "mcp stream": partial(read_mcp, kind="text/event-stream"),
    "mcp answer": partial(read_mcp, kind="application/json"),
    "http": partial(read_http, coding=None),
    "http packed": partial(read_http, coding="gzip"),
    "artifact": partial(read_artifact, encoding="auto"),
    "artifact json": partial(read_artifact, encoding="json"),
    "kubernetes": read_cluster,
    "oauth": read_token,
    "key file": read_key_file,
    "transfer rows": read_rows,
    "payload": read_payload,
    "nats line": partial(read_nats, frame=lambda to, data: data + b"\r\n", operation="request", subject="s"),
    "nats headers": partial(read_nats, frame=as_headers, operation="request", subject="s"),
    "nats answer": partial(read_nats, frame=as_message, operation="js_stream_info", stream="S"),
    "nats stored": partial(read_nats, frame=as_message, operation="js_get_msg", stream="S", seq=1),
    "yaml": read_yaml,
    "sql": read_sql,
}
"""What reads bytes of a server or of an author; each ends, or raises an error of the worker's own."""


class Taken(NamedTuple):
    """What one input took."""

    lag_s: float
    memory: int
    problem: str | None
    """What was raised that is no clear error."""


async def watched(reader: str, given: Document) -> Taken:
    """Run a reader on an input, and watch the loop and the memory."""
    worst_s = 0.0

    async def beat() -> None:
        nonlocal worst_s
        last_s = time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now_s = time.process_time()
            worst_s, last_s = max(worst_s, now_s - last_s), now_s

    beating = asyncio.ensure_future(beat())
    await asyncio.sleep(0)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    problem = None
    try:
        await READERS[reader](given)
    except NoetlWorkerError:
        pass
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    peak = tracemalloc.get_traced_memory()[1]
    await asyncio.sleep(0.002)  # a last beat, which has seen the end
    beating.cancel()
    return Taken(worst_s, peak - before, problem)


def complaint(given: Document, taken: Taken) -> str | None:
    """Say what was too much; None: nothing was."""
    if taken.problem is not None:
        return f"no clear error: {taken.problem[:300]}"
    if taken.memory > MOST_MEMORY + MOST_GROWTH * len(given.data):
        return f"{taken.memory:,} bytes of memory"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="for each reader")
    parser.add_argument(
        "--most", type=int, default=1 << 18, help="bytes of an input; one in a hundred has sixteen times"
    )
    parser.add_argument("--reader", choices=READERS, action="append")
    parser.add_argument("--seed", default=None, help="random by default; printed, so that a run can be repeated")
    options = parser.parse_args()
    seed = options.seed or str(random.SystemRandom().randrange(10**9))
    print(f"seed {seed}")
    return max(run(reader, seed, options.inputs, options.most) for reader in options.reader or READERS)


def run(reader: str, seed: str, inputs: int, most: int) -> int:
    worst = [0.0, 0]
    for number in range(inputs):
        given = document(random.Random(f"{seed}:{reader}:{number}"), most << 4 if number % 100 == 99 else most)
        tracemalloc.start()
        taken = asyncio.run(watched(reader, given))
        tracemalloc.stop()
        lag_s = taken.lag_s if taken.lag_s <= MOST_LAG_S else asyncio.run(watched(reader, given)).lag_s  # untraced
        worst = [max(worst[0], lag_s), max(worst[1], taken.memory)]
        said = complaint(given, taken) or (f"{lag_s:.2f} s of lag" if lag_s > MOST_LAG_S else None)
        if said:
            print(f"{reader}, input {seed}:{reader}:{number} of {len(given.data):,} bytes by {given.piece}: {said}")
            print(f"  {given.data[:200]!r}")
            return 1
    print(f"{reader}: {inputs:,} inputs, at most {worst[0]:.2f} s of lag and {worst[1] / 2**20:.0f} MiB", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
