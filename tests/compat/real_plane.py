"""`make compat`: the published Rust control plane, our worker, and the recorded playbooks.

Installs the server into `.compat/` once (minutes), starts Postgres, NATS and it on free loopback ports, runs every
playbook of `playbooks/rust` through our worker, and prints what came of each beside what the published pair does. Then
those of docs/playbooks.md (`page_playbooks.py`), beside what the page says, and the verdicts of `check`
(`real_verdicts.py`).
`--write` also writes the former to `values/plane.json`, its page beside it and docs/compatibility.md.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nats
from nats.js.api import StorageType, StreamConfig
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from page_playbooks import FAILED, REFUSED, STANDS_STILL, PagePlaybook, page_playbooks  # noqa: E402
from postgres_server import PostgresServer  # noqa: E402 - beside this script
from real_verdicts import run_verdicts  # noqa: E402

from noetl_worker.authoring.dev.nats_server import NatsServer, free_port  # noqa: E402
from noetl_worker.authoring.run_page.page import render_page  # noqa: E402
from noetl_worker.authoring.run_page.reading import read_run  # noqa: E402
from noetl_worker.engine.chosen import ENGINE  # noqa: E402
from noetl_worker.models import Dialect  # noqa: E402
from noetl_worker.settings.settings import load_settings  # noqa: E402
from noetl_worker.worker.worker import Worker  # noqa: E402

VERSION = "3.54.0"
SERVER = ROOT / ".compat" / "bin" / "noetl-control-plane"
RUN_TIMEOUT_S = 30.0
STAYS_RUNNING_S = 3.0
QUIET_S = 8.0
"""As in real_plane_values.py: what follows a loop without items is issued by a look of the plane's own."""

# What the published pair (server 3.54.0, worker 5.52.0) does with each, and what ours must do.
PUBLISHED = {
    "error-branch": "RUNNING",  # `start.status` is not in scope on this plane: both arcs are skipped
    "unknown-kind": "FAILED",
    "rhai-sum": "FAILED",  # it refuses integer arguments
    "set-and-rhai": "FAILED",
}
EXPECTED = {"error-branch": "RUNNING", "unknown-kind": "FAILED"}
if ENGINE == "python":  # rhai comes with the Rust engine; a pure install says so and fails the command
    EXPECTED |= {"rhai-sum": "FAILED", "set-and-rhai": "FAILED"}


@dataclass
class Ended:
    playbook: str
    published: str
    expected: str
    ours: str
    seconds: float
    detail: str


def install() -> None:
    cargo_install("noetl-server", VERSION, SERVER, "some minutes")


def cargo_install(crate: str, version: str, program: Path, how_long: str) -> None:
    """A crate of crates.io that has this program, unless it is there."""
    if program.exists():
        return
    if shutil.which("cargo") is None:
        raise SystemExit(f"{program} is not there and there is no cargo to install it with (https://rustup.rs)")
    root = program.parent.parent
    print(f"installing {crate} {version} of crates.io into {root} (once, {how_long})", flush=True)
    command = ["cargo", "install", crate, "--version", version, "--locked", "--root", str(root)]
    subprocess.run(command, check=True, env={**os.environ, "CARGO_NET_RETRY": "3"})


def prepare_database(postgres: PostgresServer) -> None:
    postgres.sql("CREATE ROLE noetl LOGIN SUPERUSER PASSWORD 'noetl'; CREATE DATABASE noetl OWNER noetl;")
    postgres.sql("CREATE ROLE demo LOGIN PASSWORD 'demo'; CREATE DATABASE demo_noetl OWNER demo;")
    postgres.sql((HERE / "rust-plane-schema.sql").read_text(), user="noetl", database="noetl")
    postgres.sql("ALTER ROLE noetl IN DATABASE noetl SET search_path TO noetl, public;")


@asynccontextmanager
async def control_plane(postgres: PostgresServer, nats_url: str, log: Path) -> AsyncIterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "NOETL_HOST": "127.0.0.1",
        "NOETL_PORT": str(port),
        "NOETL_NATS_URL": nats_url,
        "NATS_URL": nats_url,
        "NATS_STREAM": "NOETL_COMMANDS",
        "NOETL_PUBLIC_SERVER_URL": url,
        "NOETL_SERVER_URL": url,
        "NOETL_SERVER_MACHINE_ID": "1",
        "NOETL_ENCRYPTION_KEY": base64.b64encode(b"0123456789abcdef0123456789abcdef").decode(),
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_USER": "noetl",
        "POSTGRES_PASSWORD": "noetl",
        "POSTGRES_DATABASE": "noetl",
        "NOETL_ORCHESTRATE_PLUGIN_DRIVE": "false",
        "NOETL_COMMAND_BUS": "nats",
        "RUST_LOG": "warn",
    }
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            str(SERVER), stdout=out, stderr=out, stdin=asyncio.subprocess.DEVNULL, env=environment
        )
        try:
            await answered(url, process, log)
            yield url
        finally:
            process.terminate()
            await process.wait()


async def answered(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(300):
            if process.returncode is not None:
                raise SystemExit(f"the control plane ended with {process.returncode}:\n{log.read_text()[-3000:]}")
            try:
                if (await client.get(f"{url}/api/health")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit(f"the control plane does not answer:\n{log.read_text()[-3000:]}")


async def make_stream(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    subjects = ["noetl.commands", "noetl.commands.>"]
    await client.jsm().add_stream(StreamConfig(name="NOETL_COMMANDS", subjects=subjects, storage=StorageType.MEMORY))
    await client.close()


@asynccontextmanager
async def our_worker(nats_url: str, server_url: str) -> AsyncIterator[Worker]:
    variables = {
        "NATS_URL": nats_url,
        "NATS_FILTER_SUBJECT": "noetl.commands.>",
        "NOETL_SERVER_URL": server_url,
        "NOETL_CONTROL_PLANE": "auto",
        "WORKER_ID": "compat-worker",
        "WORKER_METRICS_BIND": "",
        "NOETL_WORKER_OUTBOX": "off",
    }
    worker = Worker(load_settings(variables))
    running = asyncio.ensure_future(worker.run())
    ready = asyncio.ensure_future(worker.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    try:
        yield worker
    finally:
        worker.request_stop()
        await running


async def run_playbook(client: httpx.AsyncClient, name: str, url: str) -> Ended:
    published = PUBLISHED.get(name, "COMPLETED")
    expected = EXPECTED.get(name, "COMPLETED")
    started = time.monotonic()
    answer = await client.post("/api/execute", json={"path": f"samples/{name}", "workload": {}})
    answer.raise_for_status()
    execution_id = answer.json()["execution_id"]
    limit = STAYS_RUNNING_S if expected == "RUNNING" else RUN_TIMEOUT_S
    while True:
        execution = (await client.get(f"/api/executions/{execution_id}")).json()
        status = execution["status"]
        if status != "RUNNING" or time.monotonic() - started > limit:
            break
        await asyncio.sleep(0.1)
    return Ended(name, published, expected, status, time.monotonic() - started, last_words(execution))


def last_words(execution: dict[str, Any]) -> str:
    """The failure's text, else the tool status of the last completed command."""
    text = ""
    for event in sorted(execution["events"], key=lambda one: int(one["event_id"])):
        context = (event.get("result") or {}).get("context") or {}
        if event["event_type"] in ("command.failed", "command.completed") and isinstance(context, dict):
            text = str(context.get("error") or f"{event['node_name']}: {context.get('status')}")
    return text


async def go(*, is_written: bool = False) -> int:
    executions: list[int] = []

    async def note(response: httpx.Response) -> None:
        if response.request.url.path == "/api/execute" and response.is_success:
            await response.aread()
            executions.append(int(response.json()["execution_id"]))

    postgres_credential = {"host": "127.0.0.1", "user": "demo", "password": "demo", "database": "demo_noetl"}
    with PostgresServer() as postgres, tempfile.TemporaryDirectory() as directory:
        prepare_database(postgres)
        async with NatsServer() as server:
            await make_stream(server.url)
            log = Path(directory) / "control-plane.log"
            async with (
                control_plane(postgres, server.url, log) as url,
                httpx.AsyncClient(base_url=url, timeout=30, event_hooks={"response": [note]}) as client,
            ):
                data = {**postgres_credential, "port": postgres.port}
                body = {"name": "pg_demo", "type": "postgres", "data": data, "tags": []}
                (await client.post("/api/credentials", json=body)).raise_for_status()
                async with our_worker(server.url, url) as worker:
                    ended = await run_all(client, url)
                    wrong = await run_page(client, url)
                    wrong += await run_pages(client, url, executions)
                wrong += await run_verdicts(client)  # with no worker: nothing of them runs
            settled = dict(worker.deliveries.settled)
    show(ended)
    print("settled:", settled)
    if is_written:
        write(ended)
    is_right = all(one.ours == one.expected for one in ended) and set(settled) == {"ack:reported"} and not wrong
    return 0 if is_right else 1


async def run_page(client: httpx.AsyncClient, url: str) -> list[str]:
    """The playbooks of docs/playbooks.md, all at once; of each that gives something else a line, which is printed."""
    playbooks = page_playbooks()
    found = await asyncio.gather(*(page_result(client, one, url) for one in playbooks))
    wrong = [
        f"{one.name}: the page says {one.gives[Dialect.RUST]!r}, the plane gave {given!r}"
        for one, given in zip(playbooks, found, strict=True)
        if given != one.gives[Dialect.RUST]
    ]
    right = len(playbooks) - len(wrong)
    print(f"docs/playbooks.md: {right} of {len(playbooks)} playbooks as the page says", *wrong, sep="\n    ")
    return wrong


async def page_result(client: httpx.AsyncClient, playbook: PagePlaybook, url: str) -> Any:
    """What came of it, in the words of the page."""
    body = {"content": playbook.content, "resource_type": "playbook"}
    (await client.post("/api/catalog/register", json=body)).raise_for_status()
    answer = await client.post("/api/execute", json={"path": playbook.path, "workload": {"server_url": url}})
    if not answer.is_success:
        return REFUSED
    where = f"/api/executions/{answer.json()['execution_id']}"
    ended = await until_quiet(client, where)
    if ended["status"] == "RUNNING":
        (await client.post(f"{where}/cancel", json={"reason": "nothing follows"})).raise_for_status()
        return STANDS_STILL
    return FAILED if ended["status"] == "FAILED" else last_result(ended)


async def run_pages(client: httpx.AsyncClient, url: str, executions: list[int]) -> list[str]:
    """The page of each execution (`noetl-worker report`): its commands are those that the plane has issued, and
    nothing of it is missing. Of each that is not so a line, which is printed."""
    settings = load_settings({"NOETL_SERVER_URL": url, "NOETL_CONTROL_PLANE": "auto"})
    wrong = []
    for execution_id in executions:
        run = await read_run(settings, execution_id)
        events = (await client.get(f"/api/executions/{execution_id}")).json()["events"]
        issued = sum(event["event_type"] == "command.issued" for event in events)
        if run.notes or len(run.commands) != issued or not run.steps or str(execution_id) not in render_page(run, ()):
            has = f"{len(run.commands)} of {issued} commands, {len(run.steps)} steps"
            wrong.append(f"{run.path} {execution_id}: {has}; {run.notes}")
    print(f"run pages: {len(executions) - len(wrong)} of {len(executions)} are whole", *wrong, sep="\n    ")
    return wrong


async def until_quiet(client: httpx.AsyncClient, where: str) -> dict[str, Any]:
    """The execution, once it has ended or has had no new event for as long as the plane takes to look again."""
    known, changed = 0, time.monotonic()
    while True:
        execution: dict[str, Any] = (await client.get(where)).json()
        if len(execution["events"]) != known:
            known, changed = len(execution["events"]), time.monotonic()
        if execution["status"] != "RUNNING" or time.monotonic() - changed > QUIET_S:
            return execution
        await asyncio.sleep(0.1)


def last_result(execution: dict[str, Any]) -> Any:
    done = [event for event in execution["events"] if event["event_type"] == "call.done"]
    last = max(done, key=lambda one: int(one["event_id"]))
    return last["result"]["context"]["result"]["context"].get("data")


def write(ended: list[Ended]) -> None:
    sys.path.insert(0, str(HERE.parent))
    from compat.document import write_pages
    from compat.plane_results import write_results

    kept = ("playbook", "published", "expected", "ours")
    write_results(VERSION, [{name: getattr(one, name) for name in kept} for one in ended])
    write_pages()


async def run_all(client: httpx.AsyncClient, url: str) -> list[Ended]:
    files = sorted((HERE / "playbooks" / "rust").glob("*.yaml"))
    for path in files:
        content = path.read_text().replace("http://127.0.0.1:8282", url)
        body = {"content": content, "resource_type": "playbook"}
        (await client.post("/api/catalog/register", json=body)).raise_for_status()
    return [await run_playbook(client, path.stem, url) for path in files]


def show(ended: list[Ended]) -> None:
    table = Table("playbook", "published pair", "expected", "ours", "s", "last words", title=f"noetl-server {VERSION}")
    for one in ended:
        mark = "" if one.ours == one.expected else " [red]<--[/red]"
        table.add_row(one.playbook, one.published, one.expected, one.ours + mark, f"{one.seconds:.1f}", one.detail[:60])
    Console(width=150).print(table)


if __name__ == "__main__":
    install()
    sys.exit(asyncio.run(go(is_written="--write" in sys.argv[1:])))
