"""Secrets through the built-in tools, on both planes: each tool is made to show what it was given."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from integration.house import House, house
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect
from tools.http_server import ToolServer

PASSWORD, TOKEN = 'pw-"quoted"-8#1', "tok/en+with=signs-77"
META = {"catalog_id": "9"}
SHELL = 'echo "out $PW"; echo "err $PW" >&2; printf %s "$PW" | base64; exit 3'
PYTHON = """
import sys, base64, urllib.parse
print("printed", pw, file=sys.stderr)
print({"as": [pw]})
if fails:
    raise RuntimeError(f"cannot log in with {pw}")
result = {"plain": pw, pw: 1, "url": urllib.parse.quote(pw), "b64": base64.b64encode(b"me:" + pw.encode()).decode()}
"""


@pytest.fixture
def server() -> Iterator[ToolServer]:
    with ToolServer() as served:
        yield served


def commands(server: ToolServer) -> list[RawCommand]:
    reference = {"$noetl_ref": {"kind": "keychain", "name": "svc", "field": "token"}}
    bearer = {"Authorization": "Bearer {{ keychain.svc.token }}", "X-Pure": reference}
    pw = "{{ keychain.db.password }}"
    sequence = [
        {"name": "one", "kind": "http", "url": server.url("/echo"), "headers": dict(bearer)},
        {"name": "two", "kind": "python", "code": PYTHON, "input": {"pw": pw, "fails": True}},
    ]
    return [
        RawCommand("shell", {"command": SHELL, "env": {"PW": pw}}, meta=META),
        RawCommand("python", {"code": PYTHON}, {"pw": reference, "fails": False}, meta=META),
        RawCommand("python", {"code": PYTHON, "input": {"pw": pw, "fails": True}}, meta=META),
        RawCommand("http", {"url": server.url("/echo?q=1"), "headers": bearer}, meta=META),
        RawCommand("http", {"url": server.url("/echo"), "auth": "svc", "params": {"api_key": pw}}, meta=META),
        RawCommand("http", {"url": f"http://me:{TOKEN}@127.0.0.1:1/", "timeout": 2}, meta=META),
        RawCommand("duckdb", {"query": "SELECT $p AS shown", "params": {"p": pw}}, meta=META),
        RawCommand("duckdb", {"query": f"SELECT '{pw}' AS shown; SELECT nonsense FROM '{pw}'"}, meta=META),
        RawCommand("task_sequence", {"tasks": sequence}, step="s:task_sequence", meta=META),
        RawCommand("rhai", {"code": "args.pw", "args": {"pw": pw}}, meta=META),
        RawCommand("http", {"url": server.url("/echo"), "auth": "nowhere"}, meta=META),
        RawCommand("http", {"url": server.url("/echo"), "headers": {"A": "{{ keychain.svc.tokn }}"}}, meta=META),
    ]


async def everything(home: House, execution_id: int) -> str:
    """What the plane has of an execution: its events, its variables, its stored results."""
    told = [event for event in home.plane.events(execution_id) if event.event_type != "command.issued"]
    variables = await home.stored_variables(execution_id)
    return json.dumps([[dataclasses.asdict(event) for event in told], variables], default=str)


async def test_no_tool_tells_the_plane_a_secret(dialect: Dialect, server: ToolServer, capfd: Any) -> None:
    pytest.importorskip("duckdb")
    async with house(dialect) as home:
        home.plane.credentials.write({"name": "svc", "type": "bearer", "data": {"token": TOKEN}})
        home.plane.keychain.write(9, "svc", {"token_data": {"token": TOKEN}})
        home.plane.keychain.write(9, "db", {"token_data": {"password": PASSWORD, "user": "me"}})
        issued = await home.ran(*commands(server))
        told = await everything(home, issued[0].execution_id)
        for secret in (PASSWORD, TOKEN):
            at = told.find(secret)
            assert at < 0, told[max(0, at - 300) : at + 100]
            assert json.dumps(secret)[1:-1] not in told
        assert told.count("[REDACTED]") >= 20
        for problem in ("'nowhere'", "'tokn' does not exist"):
            assert problem in told.replace('\\\\"', '"')
        # The tools had them: this is no test of tools that saw nothing.
        sent = [one.headers.get("authorization") for one in server.requests if one.path == "/echo"]
        assert sent == [f"Bearer {TOKEN}"] * 3
        pure = [one.headers["x-pure"] for one in server.requests if "x-pure" in one.headers]
        assert pure == [TOKEN] * 2
    shown = capfd.readouterr()
    assert TOKEN not in shown.out + shown.err
    assert PASSWORD not in shown.out + shown.err
