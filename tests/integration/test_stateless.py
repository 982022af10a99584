"""Two executions side by side on one worker, really interleaved, leave nothing for each other to find."""

from __future__ import annotations

import builtins
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from integration.house import House, house
from noetl_worker.authoring.dev.event_log import LoggedEvent
from noetl_worker.authoring.dev.live_view import reported
from noetl_worker.authoring.dev.plane import RawCommand
from patience import PATIENCE_S
from tools.http_server import Answer, Seen, ToolServer, as_json

LOOKS = """
import builtins, json, os, pathlib, signal, sys, tempfile, threading, urllib.request

def look():
    return {
        "builtin": getattr(builtins, "left", None),
        "module": getattr(json, "left", None),
        "loaded": sorted(name for name in sys.modules if name.startswith("left_")),
        "path": sorted(path for path in sys.path if "left" in path),
        "environment": sorted(value for name, value in os.environ.items() if name.startswith("LEFT")),
        "granted": sorted(value for value in os.environ.values() if "for-" in value),
        "here": sorted(os.listdir(".")),
        "temporary": sorted(path.name for path in pathlib.Path(tempfile.gettempdir()).glob("left*")),
        "globals": sorted(name for name in globals() if name.startswith("left")),
        "umask": (os.umask(0o22), os.umask(0o22))[0],
        "handler": signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL,
        "threads": threading.active_count(),
        "patched": json.loads("1"),
    }

first = look()
builtins.left = json.left = me
sys.modules["left_" + me] = json
sys.path.append("/left/" + me)
os.environ["LEFT"] = me
pathlib.Path("left-" + me).write_text(me)
pathlib.Path(tempfile.gettempdir(), "left-" + me).write_text(me)
globals()["left_" + me] = me
os.umask(0o77)
signal.signal(signal.SIGUSR1, lambda *_: None)
json.loads = lambda text: "patched"
directory = os.getcwd()
urllib.request.urlopen(meet).read()
last = {"others": [name for name in os.listdir(".") if name != "left-" + me], "environment": os.environ["LEFT"]}
os.chdir("/")
result = {"first": first, "last": last, "directory": directory, "id": os.getpid()}
"""
SHELL = """
echo "env=$LEFT"
echo "here=$(ls)"
echo "temporary=$(ls "$TMPDIR" | grep left)"
export LEFT={{ me }}
echo {{ me }} > left-{{ me }}
echo {{ me }} > "$TMPDIR/left-{{ me }}.tmp"
umask 077
"{{ python }}" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()' '{{ meet }}'
echo "after=$(ls | sort | tr '\\n' ' ')"
"""
SQL = """
CREATE TABLE left_{{ me }} (n INTEGER);
CREATE TEMP TABLE left_temporary_{{ me }} (n INTEGER);
SET VARIABLE left_variable_{{ me }} = '{{ me }}';
CREATE MACRO left_macro_{{ me }}() AS 1;
SELECT list_sort(list(name)) AS found FROM (
  SELECT table_name AS name FROM duckdb_tables() UNION ALL
  SELECT function_name FROM duckdb_functions() WHERE function_name LIKE 'left_macro%' UNION ALL
  SELECT name FROM duckdb_variables() WHERE name LIKE 'left%')
"""
WHO = ("a", "b")


@pytest.fixture
def server() -> Iterator[ToolServer]:
    with ToolServer() as served:
        served.routes["/meet"] = Meeting()
        yield served


class Meeting:
    """Answers when both have come: whoever asks is held between its first and its second half."""

    def __init__(self) -> None:
        self.barriers: dict[str, threading.Barrier] = {}
        self.lock = threading.Lock()

    def __call__(self, seen: Seen) -> Answer:
        with self.lock:
            barrier = self.barriers.setdefault(seen.param("kind"), threading.Barrier(2))
        barrier.wait(timeout=PATIENCE_S)
        return as_json(
            {
                "who": seen.param("who"),
                "authorization": seen.headers.get("authorization"),
                "cookie": seen.headers.get("cookie"),
            },
            **{"Set-Cookie": f"left={seen.param('who')}"},
        )


def commands(server: ToolServer, who: str, round_: int) -> list[RawCommand]:
    def meet(kind: str) -> str:
        return server.url(f"/meet?kind={kind}-{round_}&who={who}")

    own: dict[str, Any] = {"me": who}
    return [
        RawCommand("python", {"code": LOOKS}, {**own, "meet": meet("python")}, step="python"),
        RawCommand("shell", {"command": SHELL}, {**own, "meet": meet("shell"), "python": sys.executable}, step="shell"),
        RawCommand("http", {"url": meet("http"), "auth": "svc"}, own, step="http"),
        RawCommand("duckdb", {"query": SQL}, own, step="duckdb"),
    ]


def token_of_execution(request: Any) -> Any:
    """The plane gives each execution a credential of its own under one alias."""
    if not request.url.path.startswith("/api/credentials/"):
        return None
    token = f"for-{request.query_params['execution_id']}"
    return JSONResponse({"id": "1", "name": "svc", "type": "bearer", "data": {"type": "bearer", "token": token}})


async def together(home: House, server: ToolServer, round_: int) -> dict[str, tuple[int, dict[str, Any]]]:
    """Both executions' commands at the same time; who -> (execution, step -> result)."""
    ended: dict[str | None, LoggedEvent] = {}
    """By the command's name in the log. Taken as they come: the log does not keep the Python plane's `response`."""

    def take(event: LoggedEvent) -> None:
        if event.event_type in ("call.done", "call.error"):
            ended[event.command_ref] = event

    forget = home.plane.log.listen(take)
    issued = {who: await home.plane.create_commands(commands(server, who, round_)) for who in WHO}
    await home.wait_terminal(*(one.event_id for each in issued.values() for one in each))
    forget()
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    for who, each in issued.items():
        results = {}
        for one in each:
            value, error = reported(ended[home.plane.command(one.event_id).command_ref])
            assert error is None, (one.node, error, value)
            results[one.node] = value
        found[who] = (each[0].execution_id, results)
    return found


def worker_state() -> dict[str, Any]:
    """An empty directory is kept for the next command, and is nothing of the one that had it."""
    found = [path for path in Path(tempfile.gettempdir()).iterdir() if not path.is_dir() or any(path.iterdir())]
    names = [path.name for path in found]
    return {
        "directory": Path.cwd(),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "patched": [hasattr(builtins, "left"), hasattr(json, "left"), json.loads("1")],
        "modules": sorted(name for name in sys.modules if name.startswith("left_")),
        "temporary": sorted(name for name in names if name.startswith(("left", "noetl-"))),
    }


def check_python(who: str, result: Any, seen: list[Any]) -> None:
    assert result["first"] == {
        "builtin": None,
        "module": None,
        "loaded": [],
        "path": [],
        "environment": [],
        "granted": [],
        "here": [],
        "temporary": [],
        "globals": [],
        "umask": 0o22,
        "handler": True,
        "threads": 1,
        "patched": 1,
    }
    assert result["last"] == {"others": [], "environment": who}
    assert result["directory"] not in [other["directory"] for other in seen]
    assert result["id"] not in [other["id"] for other in seen]
    assert not Path(result["directory"]).exists()
    seen.append(result)


async def test_two_executions_side_by_side_find_nothing_of_each_other(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("duckdb")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with house(WORKER_MAX_CONCURRENT="16") as home:
        home.plane.fault = token_of_execution
        before = worker_state()
        seen: list[Any] = []
        for round_ in range(2):  # the second one would find what the first has left in the worker
            for who, (execution_id, results) in (await together(home, server, round_)).items():
                check_python(who, results["python"], seen)
                lines = results["shell"]["stdout"].splitlines()
                assert lines == ["env=", "here=", "temporary=", f"after=left-{who} left-{who}.tmp "], lines
                assert results["duckdb"]["rows"] == [
                    {"found": [f"left_{who}", f"left_macro_{who}", f"left_temporary_{who}", f"left_variable_{who}"]}
                ]
                body = results["http"]["data"]
                assert (body["who"], body["cookie"]) == (who, None)
                asked = [one for one in server.requests if one.param("who") == who and "http" in one.param("kind")]
                assert asked[-1].headers["authorization"] == f"Bearer for-{execution_id}"
        assert worker_state() == before
