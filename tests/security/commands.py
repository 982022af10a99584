"""Commands of a worker under a user of the machine's: `outcomes = run_as(user, "basic", [(kind, config), ...])`."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import noetl_worker
from patience import PATIENCE_S

NOBODY = 65_534
LIBRARIES = os.pathsep.join(
    str(Path(module.__file__ or "").resolve().parent.parent) for module in (noetl_worker, pytest)
)
"""Where this process has them from, whatever interpreter runs it."""


def _place() -> dict[str, Any]:
    of_the_run = {"HOME": tempfile.gettempdir(), "TMPDIR": tempfile.gettempdir()}
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": LIBRARIES, "PYTHONDONTWRITEBYTECODE": "1"}
    return {"env": {**variables, **of_the_run}, "cwd": "/"}


def under(user: str, argv: Sequence[str]) -> list[str]:
    rights = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"] if user == "nobody" else []
    return [*rights, *argv]


@functools.cache
def interpreter_of(user: str) -> str | None:
    """One of this version that the user may start: an interpreter in root's home is root's own."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        # through a shell: setpriv itself starts programs with root's rights
        if subprocess.run(under(user, ["sh", "-c", f"exec {candidate} -I -c ''"]), capture_output=True).returncode == 0:
            return candidate
    return None


def _users() -> tuple[str, ...]:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return ("own",)
    return ("root", "nobody") if shutil.which("setpriv") and interpreter_of("nobody") else ("root",)


USERS = _users()
"""Root has ways around that others have not; who is not root has the rights of one user only."""

_WORKERS = """
import asyncio, json, os, sys, traceback
sys.modules["rich"] = None  # structlog would load it for traces in colours: a third of the start
from noetl_worker.errors import ToolError
from noetl_worker.testing import tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.registry import Registry

async def one(registry, kind, config, credentials):
    try:
        result = await registry.run_tool(kind, config, tool_context(registry=registry, credentials=credentials))
    except ToolError as error:
        return {"error": str(error)}
    return {"data": result.data, "stdout": result.stdout, "stderr": result.stderr, "exit_code": result.exit_code}

async def main(given):
    rules = {"confinement": Confinement(**given["confinement"]), "settings": ToolSettings(**given["settings"])}
    registry = Registry(plugins=False, **rules)
    commands = [one(registry, kind, config, given["credentials"]) for kind, config in given["commands"]]
    if given["together"]:
        outcomes = await asyncio.gather(*commands)
    else:
        outcomes = [await command for command in commands]
    await registry.aclose()
    return outcomes

def work(given):
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    print(json.dumps(asyncio.run(main(given))), flush=True)

for kind in ("python", "shell"):
    Registry(plugins=False).get(kind)
while line := sys.stdin.readline():
    if os.fork() == 0:
        try:
            work(json.loads(line))
        except BaseException:
            print(json.dumps(traceback.format_exc()), flush=True)
        os._exit(0)
    print(os.wait()[1], flush=True)
"""
_running: dict[str, subprocess.Popen[bytes]] = {}
"""By user a process that has loaded what a worker needs, and forks one for each line that it reads."""


def end_workers() -> None:
    """At the end of their standard input."""
    while _running:
        _running.popitem()[1].communicate()


def _forked(user: str, given: dict[str, Any]) -> Any:
    """What a worker's process has printed when it has ended."""
    if user not in _running:
        argv = under(user, [interpreter_of(user) or sys.executable, "-c", _WORKERS])
        _running[user] = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **_place())
    workers = _running.pop(user)  # not there for the next where this one is not waited for
    assert workers.stdin is not None
    assert workers.stdout is not None
    workers.stdin.write(json.dumps(given).encode() + b"\n")
    workers.stdin.flush()
    printed = json.loads(workers.stdout.readline())
    assert printed.__class__ is not int, f"the worker's process ended with {printed} and printed nothing"
    assert workers.stdout.readline() == b"0\n"
    _running[user] = workers
    return printed


def run_as(
    user: str,
    level: str,
    commands: Sequence[tuple[str, dict[str, Any]]],
    *,
    together: bool = False,
    credentials: dict[str, Any] | None = None,
    settings: dict[str, str] | None = None,
    **limits: int,
) -> list[dict[str, Any]]:
    """What came of each command, in a worker's process of its own."""
    given = {
        "confinement": {"level": level, **limits},
        "commands": commands,
        "together": together,
        "credentials": credentials or {},
        "settings": settings or {},
    }
    outcomes: list[dict[str, Any]] = _forked(user, given)
    assert isinstance(outcomes, list), outcomes
    return outcomes


def printed_under(user: str, program: str, *arguments: str, given: Any = None) -> Any:
    """What a program in Python prints as JSON, under this user; `given` is its standard input, as JSON."""
    done = subprocess.run(
        under(user, [interpreter_of(user) or sys.executable, "-c", program, *arguments]),
        input=json.dumps(given),
        **_place(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_one(user: str, level: str, kind: str, config: dict[str, Any], **limits: int) -> dict[str, Any]:
    return run_as(user, level, [(kind, config)], **limits)[0]


def placed(value: Any, **names: object) -> Any:
    """A config, with the names filled in wherever they stand."""
    if isinstance(value, dict):
        return {name: placed(one, **names) for name, one in value.items()}
    return value.format(**names) if isinstance(value, str) else value


def peak_of(call: Callable[[], Any]) -> int:
    """Bytes of Python's objects, at most, while it is called."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def alive(pid: int) -> bool:
    """Whether it runs; an ended process that nobody has fetched does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def ends(pid: int) -> bool:
    """Whether it ends: a signal that is sent is not yet delivered."""
    deadline = time.monotonic() + PATIENCE_S
    while alive(pid) and time.monotonic() < deadline:
        os.sched_yield()
    return not alive(pid)
