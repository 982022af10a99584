"""`noetl-worker exec`: one tool through the worker's own stages, with nothing behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.requests import Request

from compat.postgres_server import PostgresServer
from integration.example_services import ExampleServices, example_database, example_services, lacking
from integration.house import house
from integration.processes import command_line, typed
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.authoring.local_run import LocalRun, WithholdingTransport
from noetl_worker.cli.exec_tool import NoPlane, local_command
from noetl_worker.models import Dialect
from noetl_worker.settings.settings import load_settings
from noetl_worker.testing import HttpStub
from noetl_worker.tools.docs.guide import read_guide
from noetl_worker.tools.registry import Registry

KINDS = list(Registry(plugins=False).kinds())
NEEDED = {"playbook": "path", "result_fetch": "ref", "workbook": "name"}
NEEDS_A_PLANE = set(NEEDED)
FAILING = set(lacking())
"""Kinds whose example fails, on both sides alike: those that lack a package."""
VOLATILE = {"command_id", "execution_id", "noetl-worker.execution-id", "job_name", "revision"}
VOLATILE |= {"duration_ms", "checked", "elapsed", "date", "execution_time"}
SETTINGS = {"NOETL_WORKER_COMMAND_TIMEOUT_S": "20", "WORKER_MAX_CONCURRENT": "32"}


def example(kind: str, services: ExampleServices) -> Any:
    """The guide's, with addresses of this machine."""
    found = yaml.safe_load(read_guide(Registry(plugins=False).get(kind)).example)
    return {**found, **services.here[kind]} if kind in services.here else found


def variables(stub: HttpStub, archive: Path) -> dict[str, Any]:
    """What the examples' templates name."""
    workload = {"base": stub.url, "partner": stub.url, "customer": "c-1", "day": "2026-11-26", "archive": str(archive)}
    order = {"id": 7, "region": "north", "amount": 12.5}
    return {
        "workload": workload,
        "ctx": {"region": "north"},
        "fetch": {"data": {"orders": [order]}},
        "order": order,
        "report": {"rows": 1},
        "measure": {"celsius": 20},
        "iter": {"item": "pear", "customer": "c-1"},
    }


def lasting(value: Any) -> Any:
    """Without what differs from run to run."""
    if isinstance(value, dict):
        return {key: lasting(item) for key, item in value.items() if key not in VOLATILE}
    return [lasting(item) for item in value] if isinstance(value, list) else value


Examples = tuple[Mapping[str, Any], Mapping[str, Any], ExampleServices]


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer | None]:
    with example_database() as running:
        yield running


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: PostgresServer | None) -> Iterator[Examples]:
    """By kind its guide's example, what templates find, and the services. Not on the loop: all that YAML takes long."""
    kinds = [kind for kind in KINDS if kind not in NEEDS_A_PLANE]
    with HttpStub() as stub, example_services(tmp_path, stub, monkeypatch, database) as services:
        stub.answer("GET /orders", json={"orders": [{"amount": 1}]})
        stub.answer("GET /health", json={"ok": True})
        stub.answer("POST /push", json={"ok": True})
        stub.answer("POST /orders", json={"ok": True})
        yield {kind: example(kind, services) for kind in kinds}, variables(stub, services.archive), services


async def test_every_example_of_the_guides_is_reported_as_run_reports_it(dialect: Dialect, examples: Examples) -> None:
    configs, names, services = examples
    told: dict[str, tuple[str, Any]] = {}

    async def listen(request: Request) -> None:
        if request.method == "POST" and request.url.path.startswith("/api/events"):
            told.update(calls(json.loads(await request.body())))

    async with house(dialect, WORKER_ID="w", **SETTINGS, **services.settings) as home:
        home.plane.fault = listen
        await services.fresh(home.nats.url)
        for known in services.credentials.values():
            home.plane.credentials.write(dict(known))
        actions = {kind: "task_sequence" if isinstance(config, list) else kind for kind, config in configs.items()}
        commands = [
            RawCommand(actions[kind], config, render_context=dict(names), step="exec")
            for kind, config in configs.items()
        ]
        issued = await home.plane.create_commands(commands, one_execution=False)
        await home.wait_terminal(*(one.event_id for one in issued))
        await services.fresh(home.nats.url)
        async with local_run(dialect, home.plane.url, services.credentials, services.settings) as rehearsing:
            for (kind, config), one in zip(configs.items(), issued, strict=True):
                plane = await rehearsing.client.plane("")
                done = await rehearsing.run(*local_command(actions[kind], config, {}, names), plane)
                assert done.call is not None
                assert done.failed == (kind in FAILING), (kind, done.call)
                ran, reported = told[str(one.command_id)]
                assert (done.call["name"], lasting(done.call["payload"])) == (ran, lasting(reported)), kind


def calls(body: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Command -> its call event, in either form of a request."""
    events = body.get("events") or [{"name": body.get("event_type"), "payload": body.get("context")}]
    ends = [one for one in events if one["name"] in ("call.done", "call.error")]
    return {str(one["payload"]["command_id"]): (one["name"], one["payload"]) for one in ends}


@asynccontextmanager
async def local_run(
    dialect: Dialect = Dialect.PYTHON,
    url: str = "http://none.invalid",
    credentials: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[LocalRun]:
    """As `exec` makes it; errors name the address, so it is the other's where both are compared."""
    where = {"NOETL_CONTROL_PLANE": dialect.value, "NOETL_SERVER_URL": url}
    settings = load_settings({**SETTINGS, **(variables or {}), **where})
    async with LocalRun(settings, WithholdingTransport(NoPlane(credentials or {}))) as made:
        yield made


async def executed(rehearsing: LocalRun, kind: str, config: Any, names: Mapping[str, Any]) -> Mapping[str, Any]:
    """The call event."""
    plane = await rehearsing.client.plane("")
    done = await rehearsing.run(*local_command(kind, config, {}, names), plane)
    assert done.call is not None
    return done.call


@pytest.mark.parametrize("kind", sorted(NEEDS_A_PLANE))
async def test_tool_that_needs_a_control_plane_fails_and_says_so(kind: str) -> None:
    config = {"path": "a/b", "ref": "noetl://execution/1/result/a/b", "name": "x"}
    async with local_run() as rehearsing:
        call = await executed(rehearsing, kind, {NEEDED[kind]: config[NEEDED[kind]]}, {})
        assert call["name"] == "call.error"


async def test_credential_of_a_file_reaches_the_tool_and_not_the_result() -> None:
    token = "t0ken-7f3a9c1e5b"
    known = {"api": {"name": "api", "type": "bearer", "data": {"token": token}}}
    with HttpStub() as stub:
        stub.answer("GET /who", json={"you": f"Bearer {token}"})
        async with local_run(credentials=known) as rehearsing:
            call = await executed(rehearsing, "http", {"url": f"{stub.url}/who", "auth": "api"}, {})
        assert stub.requests[0].headers["authorization"] == f"Bearer {token}"
        assert call["name"] == "call.done"
        assert token not in json.dumps(call)


async def test_result_over_the_size_of_an_event_is_fitted_and_not_stored(dialect: Dialect) -> None:
    async with local_run(dialect) as rehearsing:
        call = await executed(rehearsing, "python", {"code": "result = {'text': 'a word ' * 100_000}"}, {})
        assert call["payload"]["result"]["reference"]["ref"] == "(not stored: exec)"
        assert len(json.dumps(call)) < 102_400


def test_command_shows_the_result_and_fails_with_the_tool(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("command: echo {{ who }}; exit 3\n")
    ended = command_line(
        tmp_path, "exec", "shell", "--config", "@config.yaml", "--variables", '{"who": "ada"}', "--json"
    )
    assert ended.code == 1
    told = json.loads(ended.out)
    assert (told["event"], told["failed"]) == ("call.error", True)
    assert told["payload"]["response"]["stdout"] == "ada\n"
    assert told["output"] == [{"stream": "stdout", "text": "ada"}]
    assert typed("exec", "noop").code == 0


def test_what_the_tool_prints_is_shown_on_stderr_unless_quiet() -> None:
    config = ("--config", '{"code": "print(6 * 7)\\nresult = 1"}')
    assert "stdout | 42" in typed("exec", "python", *config).err_lines
    assert "stdout | " not in typed("exec", "python", *config, "--quiet").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--config", "{x"), "--config: not JSON"),
        (("--config", "@none.yaml"), "--config @none.yaml: No such file"),
        (("--input", "[]"), "--input: write an object"),
        (("--credential", "pg"), "write NAME=FILE"),
        (("--command-timeout-s", "soon"), "NOETL_WORKER_COMMAND_TIMEOUT_S='soon'"),
    ],
)
def test_argument_that_is_wrong_is_one_line_and_exit_2(arguments: tuple[str, ...], said: str) -> None:
    ended = typed("exec", "noop", *arguments)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert said in ended.err


def test_kind_that_is_unknown_is_a_wrong_argument_as_to_tools() -> None:
    for command in ("exec", "tools"):
        ended = typed(command, "nosuch")
        assert (ended.code, ended.out, len(ended.err_lines)) == (2, "", 1)
        assert "Tool not found: nosuch" in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("shell",), "shell: field 'command' (or cmd, cmds, commands) is missing"),
        (("shell", "--config", '{"command": {"a": 1}}'), "shell: field 'command' must be"),
        (("playbook", "--config", '{"path": "a/b"}'), "Failed to start child playbook 'a/b': 400"),
    ],
)
def test_failure_is_told_once_and_without_its_causes_inside(arguments: tuple[str, ...], said: str) -> None:
    ended = typed("exec", *arguments, "--json")
    assert (ended.code, ended.err) == (1, "")
    result = json.loads(ended.out.splitlines()[-1])["payload"]
    error = (result.get("response") or result["result"])["error"]
    assert error.startswith(said)
    assert "caused by" not in error


def test_failure_is_shown_where_the_result_would_be(dialect: Dialect) -> None:
    config = '{"sql": "select", "connection_string": "postgres://127.0.0.1:1/none"}'
    ended = typed("exec", "postgres", "--config", config, "--dialect", dialect.value)
    assert ended.code == 1
    assert ended.err.startswith("call.error after ")
    assert "127.0.0.1" in json.loads(ended.out)["error"]


def test_credential_that_is_missing_is_named_with_the_flag_that_gives_it() -> None:
    config = '{"url": "http://127.0.0.1:1/", "auth": "other"}'
    ended = typed("exec", "http", "--config", config)
    assert ended.code == 1
    assert "--credential other=FILE" in ended.err
