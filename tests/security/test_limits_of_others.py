"""A command lowers the limits of its worker's processes."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from integration.house import house
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.tools.process import confinement

from .commands import USERS, run_as, run_one
from .test_secrets_of_the_worker import ABOVE, worker_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux")

LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU)
LOWERS = """
import ctypes, os, resource, subprocess, tempfile
libc = ctypes.CDLL(None, use_errno=True)

def lowered(pid, limit):
    try:
        resource.prlimit(pid, limit, (20, 20))
    except OSError as error:
        return type(error).__name__
    return "lowered"

def by_number(pid, limit):
    libc.syscall(0x4000_0000 | 302, pid, limit, (ctypes.c_uint64 * 2)(20, 20), None)
    return os.strerror(ctypes.get_errno())
"""
BY_32_BITS = """
import ctypes, mmap, os, signal, struct
MAP_32BIT = 0x40
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
page = libc.mmap(None, 4096, 7, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT, -1, 0)
wanted = struct.pack("=QQ", 20, 20)
# push rbx; mov eax, number; mov ebx, first; mov ecx, second; mov edx, page; xor esi, esi; int 0x80; pop rbx; ret
code = b"\\x53\\xb8%b\\xbb%b\\xb9%b\\xba%b\\x31\\xf6\\xcd\\x80\\x5b\\xc3" % tuple(
    struct.pack("=I", one) for one in (number, first, second, page)
)
ctypes.memmove(page, wanted + code, len(wanted + code))
child = os.fork()
if child == 0:  # a kernel without calls of 32 bits ends it
    os._exit(-ctypes.CFUNCTYPE(ctypes.c_int)(page + len(wanted))())
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
PRLIMIT64 = 340


@pytest.mark.parametrize("user", USERS)
async def test_command_cannot_lower_the_limits_of_its_worker(user: str) -> None:
    """`prlimit` on the worker: `--nofile=20`, `--as=1000000`."""
    async with house(worker=False) as home, worker_of(home, user, "basic") as (worker, _):
        before = Path(f"/proc/{worker.pid}/limits").read_text()
        code = f"{LOWERS}\nresult = [lowered({worker.pid}, limit) for limit in {LIMITS}]"
        for attack in (RawCommand("python", {"code": code}), RawCommand("shell", {"command": "echo well"})):
            [issued] = await home.plane.create_commands([attack])
            await home.wait_terminal(issued.event_id)
            assert home.terminal_events(issued.event_id) == ["command.completed"]
        assert Path(f"/proc/{worker.pid}/limits").read_text() == before


@pytest.mark.parametrize("user", USERS)
def test_command_cannot_lower_the_limits_of_the_processes_above_it(user: str) -> None:
    """The same on the processes that later commands come from."""
    code = f"{LOWERS}{ABOVE}\npids = [os.getppid(), above(os.getppid())]\n"
    code += f"result = [[lowered(pid, limit) for limit in {LIMITS}] for pid in pids]"
    shell = {"command": "prlimit --pid $PPID --nofile=20:20 || ulimit -n"}
    tried, by_shell, after = run_as(
        user, "basic", [("python", {"code": code}), ("shell", shell), ("shell", {"command": "ulimit -n"})]
    )
    assert tried["data"] == [["PermissionError"] * len(LIMITS)] * 2
    assert by_shell["stdout"] == after["stdout"] != "20\n"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="has calls of 32 bits")
@pytest.mark.parametrize("user", USERS)
def test_other_numbers_of_the_call_are_no_way_around(user: str) -> None:
    """The call by its 32-bit and x32 numbers."""
    code = f"{LOWERS}\npid = os.getppid()\nother = by_number(pid, 7)\nnumber, first, second = {PRLIMIT64}, pid, 7"
    code += f"{BY_32_BITS}\nresult = [status, resource.prlimit(pid, 7)[0], other]"
    status, soft, other = run_one(user, "basic", "python", {"code": code})["data"]
    assert status in (1, -11)  # EPERM
    assert soft != 20
    assert other == "Operation not permitted"


@pytest.mark.parametrize("user", USERS)
def test_command_limits_itself_and_reads_the_limits_of_others(user: str) -> None:
    """(no attack) `ulimit`, `prlimit program`, a look at another process."""
    command = "ulimit -n 64; prlimit --core=0 sh -c 'ulimit -n'; prlimit --pid $$ --nofile --raw --noheadings"
    outcome = run_one(user, "basic", "shell", {"command": command})
    assert outcome["stdout"].split()[0] == "64"
    assert "64 64" in outcome["stdout"]


def test_machine_whose_calls_are_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """(no attack) Where it cannot be held, the line `isolation_incomplete` says so at the start."""
    assert confinement.missing() == []
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="m68k"))
    assert confinement.missing() == ["limits of other processes", "no tracing of processes", "denied system calls"]
