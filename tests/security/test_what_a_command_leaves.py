"""Processes outlive their command."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from patience import until

from .commands import USERS, alive, ends, run_one

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="Linux")  # noqa: PTH110

IN_ITS_OWN_SESSION = (
    "setsid sleep 1000 >/dev/null 2>&1 </dev/null & "
    "until read pid name state parent group session rest </proc/$!/stat && [ $session = $! ]; do :; done; echo $!"
)
PARENT_AND_SURVIVOR = "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $PPID $! > {0}.part; mv {0}.part {0}; wait"
FORKED_TWICE = """
import os, sys
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.write(write, str(os.getpid()).encode())
        for descriptor in (0, 1, 2, write):
            os.close(descriptor)
        os.execvp("sleep", ["sleep", "1000"])
    os._exit(0)
os.wait()
result = int(os.read(read, 20))
"""
UNDOES_THE_SUPERVISION = "import ctypes\nctypes.CDLL(None).prctl(36, 0, 0, 0, 0)\n" + FORKED_TWICE


@pytest.fixture
def survivors() -> object:
    found: list[int] = []
    yield found.append
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("user", USERS)
def test_child_in_a_session_of_its_own_ends_with_its_shell_command(user: str) -> None:
    """`setsid program &`."""
    pid = int(run_one(user, "basic", "shell", {"command": IN_ITS_OWN_SESSION})["stdout"])
    assert not alive(pid)  # at the very answer: the next command may start now


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("code", [FORKED_TWICE, UNDOES_THE_SUPERVISION])
def test_child_that_was_forked_twice_ends_with_its_python_command(user: str, code: str) -> None:
    """A daemon of Python code, forked twice."""
    assert not alive(run_one(user, "basic", "python", {"code": code})["data"])


@pytest.mark.parametrize("user", USERS)
async def test_child_ends_although_the_process_above_its_command_was_killed(user: str) -> None:
    """`kill -9` of the process above the command, which Linux 6.12 lets no command do, before the child is left."""
    told = Path(f"/tmp/noetl-left-{uuid.uuid4().hex}")
    script = {"command": PARENT_AND_SURVIVOR.format(told)}
    running = asyncio.ensure_future(asyncio.to_thread(run_one, user, "basic", "shell", script))
    await until(lambda: told.exists() or running.done(), "the child runs")
    above, child = map(int, told.read_text().split())
    told.unlink()
    os.kill(above, signal.SIGKILL)
    assert "error" in await running
    assert ends(child)


@pytest.mark.parametrize("user", USERS)
def test_background_program_lives_while_its_command_does(user: str) -> None:
    """(no attack) What a command starts in the background, twice forked, is its own for as long as it runs."""
    script = "(sleep 0.2 &); (sleep 1000 & echo $! > pid); sleep 0.5; kill -0 $(cat pid) && echo there"
    assert run_one(user, "basic", "shell", {"command": script})["stdout"] == "there\n"


@pytest.mark.parametrize("user", USERS)
def test_without_isolation_the_child_lives_on(survivors: object, user: str) -> None:
    """(no attack) What the tests above would show without isolation."""
    pid = int(run_one(user, "off", "shell", {"command": IN_ITS_OWN_SESSION})["stdout"])
    survivors(pid)  # type: ignore[operator]
    assert alive(pid)
