"""A command signals processes outside of it."""

from __future__ import annotations

import ast
import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from integration.house import house
from integration.processes import Gate, until
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.tools.process import confinement

from .commands import LIBRARIES, USERS, printed_under, run_as
from .test_secrets_of_the_worker import ABOVE, worker_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux")
needs_domains = pytest.mark.skipif(not confinement.has_domains(), reason="Linux 6.12")

SENDS = """
import ctypes, os, pathlib, signal, socket, struct
libc = ctypes.CDLL(None, use_errno=True)

def tried(send, *arguments):
    try:
        send(*arguments)
    except OSError as error:
        return type(error).__name__
    return "sent"

def queued(pid):  # rt_sigqueueinfo
    number = {"x86_64": 129, "aarch64": 138}[os.uname().machine]
    if libc.syscall(number, pid, 9, struct.pack("iiii112x", 9, 0, -1, 0)) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def owned(pid):  # the owner of a socket is signalled when there is something to read
    import fcntl
    mine, theirs = socket.socketpair()
    fcntl.fcntl(mine, fcntl.F_SETOWN, pid)
    fcntl.fcntl(mine, 10, 9)  # F_SETSIG
    fcntl.fcntl(mine, fcntl.F_SETFL, fcntl.fcntl(mine, fcntl.F_GETFL) | os.O_ASYNC)
    theirs.send(b"x")
    raise PermissionError("it is not told")  # the caller sees that the process lives

def all_ways(pid):
    ways = [tried(os.kill, pid, number) for number in (0, 9, 15, 19)] + [tried(queued, pid), tried(owned, pid)]
    return [*ways, tried(lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 9))]
"""
REFUSED = ["PermissionError"] * 7


@needs_domains
@pytest.mark.parametrize("user", USERS)
async def test_command_cannot_kill_or_stop_its_worker_or_what_is_above_it(user: str) -> None:
    """`kill -9` of the worker, its supervisor, the template process and the process above the command."""
    with TemporaryDirectory() as directory:
        gate = Gate(Path(directory))
        Path(directory).chmod(0o777)
        Path(directory, "gate").chmod(0o666)
        async with (
            house(worker=False) as home,
            worker_of(home, user, "basic", NOETL_WORKER_PROCESSES="2") as (
                supervisor,
                _,
            ),
        ):
            try:
                [beside] = await home.plane.create_commands([RawCommand("shell", {"command": gate.command()})])
                await until(lambda: gate.runs == 1, "a command runs beside it")
                code = f"{SENDS}{ABOVE}\npids = [os.getppid()]\nwhile pids[-1] != {supervisor.pid}:\n"
                code += "    pids.append(above(pids[-1]))\ntold = [all_ways(pid) for pid in pids]\n"
                code += f"pathlib.Path({directory!r}, 'told').write_text(repr(told))"
                shell = "kill -9 $PPID; kill -STOP $PPID; read _ _ _ above _ < /proc/$PPID/stat; kill -9 $above"
                attacks = [RawCommand("python", {"code": code}), RawCommand("shell", {"command": shell})]
                issued = await home.plane.create_commands(attacks)
                await home.wait_terminal(*(one.event_id for one in issued))
                gate.open()
                await home.wait_terminal(beside.event_id)
                assert home.terminal_events(beside.event_id) == ["command.completed"]
                assert ast.literal_eval(Path(directory, "told").read_text()) == [REFUSED] * 4
            finally:
                supervisor.terminate()
                assert await asyncio.to_thread(supervisor.wait) == 0


def kill_of_another(user: str, victim: tuple[str, dict[str, Any]], place: str) -> tuple[Any, Any]:
    code = f"""{SENDS}
import time
place = pathlib.Path({place!r})
while not place.exists():
    time.sleep(0.01)
result = all_ways(int(place.read_text()))
place.unlink()
"""
    first, second = run_as(user, "basic", [victim, ("python", {"code": code})], together=True)
    return first, second["data"]


@needs_domains
@pytest.mark.parametrize("user", USERS)
def test_command_cannot_kill_another_command(user: str) -> None:
    """`kill -9` of a `shell` command that runs beside it."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        place = f"{directory}/pid"
        script = (
            f"echo $$ > {place}.part; mv {place}.part {place}; while test -e {place}; do sleep 0.01; done; echo well"
        )
        first, tried = kill_of_another(user, ("shell", {"command": script}), place)
        assert tried == REFUSED
        assert (first["exit_code"], first["stdout"]) == (0, "well\n")


@pytest.mark.parametrize("user", USERS)
def test_command_signals_what_it_has_started(user: str) -> None:
    """(no attack) Pipelines, `timeout`, jobs, process groups, `multiprocessing` and subprocesses of asyncio."""
    shell = """
yes | head -1; timeout 0.1 sleep 100; echo $?; sleep 100 & kill $!; wait $!; echo $?
setsid sh -c 'sleep 100 & kill -TERM 0'; echo $?; trap 'echo told' TERM; sh -c 'kill -TERM $PPID'
"""
    python = """
import asyncio, multiprocessing, os, signal, subprocess, sys, threading, time
fork = multiprocessing.get_context("fork")
with fork.Pool(2) as pool:
    result = pool.map(abs, [-1, -2])
async def ended():
    program = await asyncio.create_subprocess_exec("sleep", "100")
    program.kill()
    return await program.wait()
result.append(asyncio.run(ended()))
group = subprocess.Popen(["sh", "-c", "sleep 100 | sleep 100"], start_new_session=True)
os.killpg(group.pid, signal.SIGTERM)
result.append(group.wait())
thread = threading.Thread(target=result.append, args=("thread",))
thread.start()
thread.join()
fork = multiprocessing.get_context("forkserver" if sys.version_info >= (3, 14) else "fork")
spawned = fork.Process(target=time.sleep, args=(100,))
spawned.start()
spawned.kill()
spawned.join()
result.append(spawned.exitcode)
"""
    by_shell, by_python = run_as(user, "basic", [("shell", {"command": shell}), ("python", {"code": python})])
    assert by_shell["stdout"].split() == ["y", "124", "143", "143", "told"], by_shell
    assert by_python["data"] == [1, 2, -9, -15, "thread", -9], by_python


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", ["shell", "python"])
def test_worker_ends_a_command_that_takes_too_long_with_all_it_has_started(user: str, kind: str) -> None:
    """(no attack) Who is outside of a domain signals into it."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        script = f"trap '' TERM; setsid sleep 1000 & echo $! > {directory}/pid; sleep 1000"
        config = {"shell": {"command": script}, "python": {"code": f"import os\nos.system({script!r})"}}[kind]
        [outcome] = run_as(user, "basic", [(kind, {**config, "timeout": 1})])
        assert outcome["exit_code"] in (-9, -15), outcome
        assert not Path("/proc", Path(directory, "pid").read_text().strip()).exists()


OLDER = f"""
import json, os, sys
sys.path.insert(0, {LIBRARIES.split(":")[0]!r})
from noetl_worker.tools.process import confinement
confinement.landlock_version = lambda: 5
domain = confinement.Domain()
print(json.dumps([domain.rules, os.waitpid(domain.spawn(lambda: os.spawnlp(os.P_NOWAIT, "true", "true")), 0)[1]]))
"""


@pytest.mark.parametrize("user", USERS)
def test_older_kernel_starts_commands_without_a_domain(user: str) -> None:
    """(no attack) Before Linux 6.12 commands run as before, and the start says that signals are not kept inside."""
    assert printed_under(user, OLDER) == [-1, 0]
