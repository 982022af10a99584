"""SQL of DuckDB reaches for the worker: its descriptors, files, variables and memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .commands import NOBODY, USERS, printed_under
from .sql_of_strangers import SQL

pytest.importorskip("duckdb")

CANARY = "canary-of-the-worker"
WORKER = """
import asyncio, json, os, socket, sys
from noetl_worker.testing import tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.process import landlock
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.registry import Registry

given = json.load(sys.stdin)
names, canary = given["names"], given["canary"]
own = names["own"]
if not given["landlock"]:
    landlock.is_there = lambda: False
if not given["landlock"]:
    os.chdir("/")
settings = ToolSettings(own_files=(os.path.dirname(own),))
os.environ["CANARY"] = canary

with open(own, "w") as made:
    made.write(canary)
kept = open(own, "r+b")
kept.seek(4)
pipe, pipe_end = os.pipe()
mine, theirs = socket.socketpair()
mine.setblocking(False)
os.set_blocking(pipe, False)
targets = [kept.fileno(), pipe_end, theirs.fileno()]

def touched():
    found = []
    if open(own).read() != canary or kept.tell() != 4:
        found.append("file")
    for name, read in (("pipe", lambda: os.read(pipe, 100)), ("socket", lambda: mine.recv(100))):
        try:
            found.append(name + ": " + repr(read()))
        except BlockingIOError:
            pass
    if sorted(os.listdir(os.path.dirname(own))) != ["secret"]:
        found.append("directory: " + repr(os.listdir(os.path.dirname(own))))
    return found

async def one(registry, sql):
    config = {"query": sql, "timeout": 60}
    try:
        return repr((await registry.run_tool("duckdb", config, tool_context(registry=registry))).data)
    except Exception as error:
        return str(error)

async def main():
    registry = Registry(plugins=False, confinement=Confinement("basic"), settings=settings)
    said = []
    opened = [int(fd) for fd in os.listdir("/proc/self/fd")] if given["every"] else targets
    for number in range(max(len(given["statements"]), len(opened) if given["every"] else 0)):
        text = given["statements"][number % len(given["statements"])]
        for name, value in {**names, "fd": opened[number % len(opened)], "pid": os.getpid(), "nothing": ""}.items():
            text = text.replace("{" + name + "}", str(value))
        answer = await one(registry, text)
        said.append([text, answer, touched()])
    said.append(["SELECT 1", await one(registry, "SELECT 1 AS one"), touched()])
    await registry.aclose()
    return said

print(json.dumps(asyncio.run(main())))
"""


@pytest.fixture
def base(user: str) -> Iterator[Path]:
    """`worker` has a file of the worker, `data` those of playbooks; below no directory that both use."""
    base = Path(tempfile.mkdtemp(prefix="tests-sql-", dir="/var/tmp")).resolve()
    for name in ("worker", "data"):
        (base / name).mkdir()
    (base / "data" / "own").symlink_to(base / "worker")
    (base / "data" / "proc").symlink_to("/proc")
    (base / "data" / "fd").symlink_to("/proc/self/fd")
    if user == "nobody":
        for path in (base, base / "worker", base / "data"):
            os.chown(path, NOBODY, NOBODY)
    yield base
    shutil.rmtree(base)


def answers(
    user: str, base: Path, statements: list[str], *, landlock: bool = True, every: bool = False
) -> list[tuple[str, str, list[str]]]:
    """For each statement: SQL, what came of it, what it has touched.

    Descriptors are a file, a pipe and a socket of the worker in turns, or `every` one that it has.
    """
    names = {"own": str(base / "worker" / "secret"), "base": str(base), "place": str(base / "data")}
    given: dict[str, Any] = {"names": names, "canary": CANARY, "statements": statements, "landlock": landlock}
    given["every"] = every
    return [tuple(one) for one in printed_under(user, WORKER, given=given)]


def test_there_are_two_hundred_statements() -> None:
    """(no attack) As many as were promised."""
    assert sum(map(len, SQL.values())) >= 200


each_or_all = pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.sweep)], ids=["seventh", "all"])
"""`make sweeps` tries all statements, `make test` every seventh one."""


@pytest.mark.parametrize("user", USERS)
@each_or_all
def test_sql_reaches_nothing_of_the_worker(every: int, user: str, base: Path) -> None:
    """Two hundred statements over descriptors, files, variables, /proc, ATTACH, settings and extensions.

    Nobody, who has fewer ways than root, tries every third one of them.
    """
    statements = [one for statements in SQL.values() for one in statements]
    found = answers(user, base, statements[:: every * (3 if user == "nobody" else 1)])
    assert [one for one in found if one[2]] == []
    assert [one for one in found if CANARY in one[1] or "PYTHONPATH" in one[1]] == []
    assert "'one': 1" in found[-1][1]


@pytest.mark.parametrize("user", USERS[:1])
@each_or_all
def test_sql_reaches_no_descriptor_without_landlock(every: int, user: str, base: Path) -> None:
    """The same of descriptors on a kernel without Landlock."""
    statements = SQL["writes into a descriptor"] + SQL["reads a descriptor"]
    found = answers(user, base, statements[::every], landlock=False)
    assert [one for one in found if one[2]] == []
    assert [one for one in found if CANARY in one[1]] == []
    assert "'one': 1" in found[-1][1]


@pytest.mark.parametrize("user", USERS[:1])
@pytest.mark.parametrize("landlock", [True, False])
def test_sql_reaches_none_of_the_workers_descriptors(landlock: bool, user: str, base: Path) -> None:
    """The name of each descriptor, put together: a message in the loop's pipe ended the worker."""
    attack = "SET VARIABLE f = '/pro' || 'c/self/fd/{fd}'; COPY (SELECT repeat('A', 64)) TO (getvariable('f'))"
    found = answers(user, base, [attack], landlock=landlock, every=True)
    assert len(found) > 8
    assert [one for one in found if one[2]] == []
    assert "'one': 1" in found[-1][1]
