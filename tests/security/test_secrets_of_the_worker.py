"""A command reads its worker, or another command."""

from __future__ import annotations

import ast
import asyncio
import fcntl
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import pytest

import noetl_worker
from integration.house import House, house
from integration.processes import Gate, until
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.process import event_loop, sealed_environment
from noetl_worker.tools.process import confinement
from patience import PATIENCE_S

from .commands import LIBRARIES, USERS, interpreter_of, run_as, under

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux")

SECRET = "hunter2-and-more"
TENANT = "tenant-key-5f1d"
READS_THE_WORKER = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)

def tried(attack):
    try:
        return attack()
    except OSError as error:
        return type(error).__name__

def system(call, *numbers):
    got = call(*numbers)
    if got < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return got

def environ():
    with open(f"/proc/{pid}/environ", "rb") as file:
        return file.read().decode()

def memory():
    with open(f"/proc/{pid}/maps") as maps:
        start = next(int(line.split("-")[0], 16) for line in maps if "[heap]" in line)
    with open(f"/proc/{pid}/mem", "rb") as file:
        file.seek(start)
        return len(file.read(4096))

def traced():
    return system(libc.ptrace, 0x4206, pid, 0, 0)

def descriptor():
    return system(libc.syscall, 438, os.pidfd_open(pid), 1, 0)

result = {attack.__name__: tried(attack) for attack in (environ, memory, traced, descriptor)}
"""


@asynccontextmanager
async def worker_of(
    home: House, user: str, level: str, *arguments: str, **more: str
) -> AsyncIterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """`noetl-worker run` under this user, once it pulls, and what it has logged; killed at the end."""
    variables = {
        "NATS_URL": home.nats.url,
        "NOETL_SERVER_URL": home.plane.url,
        "NOETL_INTERNAL_API_TOKEN": SECRET,
        "NOETL_SECRET_OTHER": SECRET,
        "NOETL_WORKER_ISOLATION": level,
        "NOETL_WORKER_OUTBOX": "off",
        "WORKER_METRICS_BIND": "",
        **more,
    }
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": LIBRARIES, "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    argv = under(user, [interpreter_of(user) or sys.executable, *(arguments or ("-m", "noetl_worker", "run"))])
    with TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - it is waited for in a thread
            argv, env={**environment, **variables}, cwd="/", stdout=log, stderr=log
        )

        def logged() -> str:
            return os.pread(log.fileno(), 1 << 20, 0).decode()

        def pulls() -> bool:
            assert process.poll() is None, logged()
            return '"event": "pulling"' in logged() or '"event":"pulling"' in logged()

        try:
            await until(pulls, "the worker pulls")
            yield process, logged
        finally:
            process.kill()
            process.wait()


@functools.cache
def attacked(user: str, level: str) -> dict[str, Any]:
    """What a command under the worker's user gets, what the worker's block has, how it ended, what it logged."""

    async def scenario() -> dict[str, Any]:
        async with house(worker=False) as home, worker_of(home, user, level) as (worker, logged):
            code = f"pid = {worker.pid}\n{READS_THE_WORKER}"
            [outcome] = await asyncio.to_thread(run_as, user, level, [("python", {"code": code})])
            block = Path(f"/proc/{worker.pid}/environ").read_bytes() if user != "own" else b""
            worker.send_signal(signal.SIGTERM)
            exit_code = await asyncio.to_thread(worker.wait, 20)
            return {**outcome["data"], "block": block, "exit_code": exit_code, "log": logged()}

    return event_loop.run(scenario())


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("attack", ["environ", "memory", "traced", "descriptor"])
def test_command_cannot_read_its_worker(user: str, attack: str) -> None:
    """`/proc/PID/environ` shows NATS password and token; `/proc/PID/mem`; ptrace; pidfd_getfd takes its connections."""
    assert attacked(user, "basic")[attack] == "PermissionError"


@pytest.mark.parametrize("user", USERS)
def test_command_reads_the_environment_of_its_worker_without_isolation(user: str) -> None:
    """(no attack) What the test above would show without isolation."""
    assert SECRET in attacked(user, "off")["environ"]


@pytest.mark.parametrize("user", USERS)
def test_environment_block_of_the_worker_has_no_secret_for_anybody(user: str) -> None:
    """A debugger or agent of the node reads it."""
    if user == "own":
        pytest.skip("only root may read the block of a process that is not dumpable")
    block = attacked(user, "basic")["block"]
    assert b"PATH=" in block
    assert SECRET.encode() not in block


class StartedAgainError(Exception):
    """Instead of a new program in this process."""


def started_again(monkeypatch: pytest.MonkeyPatch, look: Callable[[Mapping[str, str]], None]) -> None:
    """The first step of `run`; `look` at the environment that its new start is given."""

    def execve(_program: str, _arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        look(environment)
        raise StartedAgainError

    monkeypatch.delenv("NOETL_WORKER_ISOLATION", raising=False)
    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(StartedAgainError):
        sealed_environment.begin(["run"])


def test_file_that_carries_the_environment_to_the_new_start_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """(no attack) It is sealed: nobody writes, shrinks or grows it, and nobody takes the seals away."""

    def look(environment: Mapping[str, str]) -> None:
        descriptor = int(environment["NOETL_WORKER_SEALED_ENVIRONMENT"])
        wanted = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == wanted
        with pytest.raises(PermissionError):
            os.write(descriptor, b"B")

    started_again(monkeypatch, look)


def test_root_can_do_all_of_it_without_isolation() -> None:
    """(no attack) What the tests above would show without isolation."""
    if USERS[0] != "root":
        pytest.skip("others may be kept from it by the system (Yama)")
    got = attacked("root", "off")
    assert (got["memory"], got["traced"]) == (4096, 0)
    assert isinstance(got["descriptor"], int)


@pytest.mark.parametrize("user", USERS)
def test_worker_that_started_itself_again_drains_and_reports_its_level(user: str) -> None:
    """(no attack) The second start has the settings, the signals and the exit code of the first."""
    got = attacked(user, "basic")
    assert got["exit_code"] == 0
    line = next(json.loads(one) for one in got["log"].splitlines() if '"pulling"' in one)
    assert line["isolation"] == "basic"


@pytest.mark.parametrize("user", USERS[:1])
@pytest.mark.parametrize(
    "start",
    [["-m", "noetl_worker"], ["-c", "from noetl_worker.__main__ import main; main()"]],
    ids=["module", "script"],
)
def test_each_way_of_starting_it_keeps_its_arguments(start: list[str], user: str) -> None:
    """(no attack) `python -m`, and the console script's way."""

    async def scenario() -> tuple[int, str]:
        words = (*start, "run", "--worker-id", "started-again")
        async with house(worker=False) as home, worker_of(home, user, "basic", *words) as (worker, logged):
            block = Path(f"/proc/{worker.pid}/environ").read_text() if user != "own" else ""  # it may be root alone
            worker.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait, 20) == 0
            return block.count(SECRET), logged()

    secrets, text = event_loop.run(scenario())
    assert secrets == 0
    assert "started-again" in text


def read_of_another(user: str, kind: str, config: str) -> dict[str, Any]:
    """What a command gets of another that runs beside it, which writes its process id to a file and waits."""
    place = f"/tmp/noetl-two-commands-{uuid.uuid4().hex}"
    attacker = f"""
import pathlib, time
place = pathlib.Path({place!r})
while not place.exists():
    time.sleep(0.01)
pid = int(place.read_text())
{READS_THE_WORKER}
place.unlink()
"""
    victim = {"env": {"KEY": TENANT}, "code" if kind == "python" else "command": config.format(place=place)}
    got: dict[str, Any] = run_as(user, "basic", [(kind, victim), ("python", {"code": attacker})], together=True)[1]
    return dict(got["data"])


@pytest.mark.parametrize("user", USERS)
def test_command_cannot_read_the_memory_of_another_python_command(user: str) -> None:
    """The memory of another `python` command."""
    victim = """
import os, pathlib, time
mine = pathlib.Path({place!r})
pathlib.Path(str(mine) + ".part").write_text(str(os.getpid()))
os.rename(str(mine) + ".part", mine)
while mine.exists():
    time.sleep(0.01)
"""
    assert set(read_of_another(user, "python", victim).values()) == {"PermissionError"}


@pytest.mark.skipif("not confinement.has_domains()", reason="Linux 6.12")
@pytest.mark.parametrize("user", USERS)
def test_command_cannot_read_a_program_of_another_command(user: str) -> None:
    """Variables and memory of a program that another command runs (kernel 6.12)."""
    victim = "echo $$ > {place}.part; mv {place}.part {place}; while test -e {place}; do sleep 0.01; done"
    assert set(read_of_another(user, "shell", victim).values()) == {"PermissionError"}


ABOVE = """
def above(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("PPid"))
"""


@pytest.mark.parametrize("user", USERS)
def test_command_cannot_read_or_trace_the_processes_above_it(user: str) -> None:
    """The memory of the processes above commands."""
    steps = ["pid = os.getpid()\n" + "pid = above(pid)\n" * generations for generations in (1, 2)]
    commands = [("python", {"code": f"import os\n{ABOVE}\n{one}\n{READS_THE_WORKER}"}) for one in steps]
    got = [outcome["data"] for outcome in run_as(user, "basic", commands)]
    assert [set(one.values()) for one in got] == [{"PermissionError"}] * 2


OPENS_WHAT_STARTS = """
import json, os, pathlib
{above}
here, template, opened, tries = pathlib.Path({here!r}), above(os.getppid()), [], dict()
(here / "begun").touch()
goes_on = True
while goes_on:
    goes_on = (here / "begun").exists()  # once more after it is gone: all have started by then
    with open(f"/proc/{{template}}/task/{{template}}/children") as file:
        pids = [pid for pid in file.read().split() if tries.setdefault(pid, 0) < 400]
    for pid in pids:
        for _ in range(20):
            tries[pid] += 1
            try:
                os.close(os.open(f"/proc/{{pid}}/mem", os.O_RDONLY))
                opened.append(pid)
            except OSError:
                pass
(here / "opened").write_text(json.dumps([len(tries) > 8, opened]))
"""


@pytest.mark.parametrize("user", USERS)
async def test_memory_of_the_processes_above_commands_is_hidden_when_they_start(user: str) -> None:
    """The same while they start, by whoever looks at each new one."""
    with TemporaryDirectory() as directory:
        here, gate = Path(directory), Gate(Path(directory))
        here.chmod(0o777)
        (here / "gate").chmod(0o666)
        async with house(worker=False) as home, worker_of(home, user, "basic"):
            code = OPENS_WHAT_STARTS.format(above=ABOVE, here=directory)
            [attack] = await home.plane.create_commands([RawCommand("python", {"code": code})])
            await until((here / "begun").exists, "the attack has begun")
            waits = f"import os\nos.system({gate.command()!r})"
            await home.plane.create_commands([RawCommand("python", {"code": waits})] * 8)
            await until(lambda: gate.runs == 8, "eight commands have started")
            (here / "begun").unlink()
            await home.wait_terminal(attack.event_id)
            gate.open()
            assert json.loads((here / "opened").read_text()) == [True, []]


READS_WHAT_STARTS = """
import json, os, pathlib
{above}
here, worker, read, seen = pathlib.Path({here!r}), above(above(os.getppid())), [], set()

def list_others():
    pid = above(worker)
    with open(f"/proc/{{pid}}/task/{{pid}}/children") as file:
        return [pid for pid in map(int, file.read().split()) if pid != worker]

def content(path):
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(file, 1 << 20, 0)
    except OSError:
        return b""
    finally:
        os.close(file)

seen.update(list_others())
(here / "others").write_text(" ".join(map(str, seen)))
(here / "others").rename(here / "begun")
goes_on = True
while goes_on:
    goes_on = (here / "begun").exists()  # once more after it is gone: the next one has started by then
    for pid in list_others():
        seen.add(pid)
        try:
            descriptors = [f"fd/{{name}}" for name in os.listdir(f"/proc/{{pid}}/fd")]
        except OSError:
            descriptors = []
        read += [name for name in ("environ", *descriptors) if {secret!r} in content(f"/proc/{{pid}}/{{name}}")]
        if {has_domains}:  # what is opened now would be read later
            try:
                os.close(os.open(f"/proc/{{pid}}/mem", os.O_RDONLY))
                read.append("mem")
            except OSError:
                pass
(here / "read").write_text(json.dumps([len(seen) > 1, read]))
"""


@pytest.mark.parametrize("user", USERS)
async def test_variables_of_a_worker_are_hidden_when_its_supervisor_starts_it(user: str) -> None:
    """The environment and files of a worker of `--processes` while it starts in the place of one that was killed."""
    with TemporaryDirectory() as directory:
        here = Path(directory)
        here.chmod(0o777)
        async with (
            house(worker=False) as home,
            worker_of(home, user, "basic", NOETL_WORKER_PROCESSES="2") as (supervisor, logged),
        ):

            def pulling() -> int:
                return logged().count('"pulling"')

            try:
                await until(lambda: pulling() == 2, "both pull")
                given = {"here": directory, "secret": SECRET.encode(), "has_domains": confinement.has_domains()}
                code = READS_WHAT_STARTS.format(above=ABOVE, **given)
                [attack] = await home.plane.create_commands([RawCommand("python", {"code": code})])
                await until((here / "begun").exists, "the attack has begun")
                os.kill(int((here / "begun").read_text()), signal.SIGKILL)
                await until(lambda: pulling() == 3, "a third has started")
                (here / "begun").unlink()
                await home.wait_terminal(attack.event_id)
                assert json.loads((here / "read").read_text()) == [True, []]
            finally:
                supervisor.terminate()
                await asyncio.to_thread(supervisor.wait)


@pytest.mark.parametrize("sent", [b"", b"NATS_URL=nats://localhost:1\0NATS_PASS"])
def test_worker_whose_supervisor_ends_before_all_variables_are_sent_ends(sent: bytes) -> None:
    """(no attack) It does not start with some of its settings."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        worker = subprocess.Popen(
            [sys.executable, "-m", "noetl_worker", "run"],
            env={"PYTHONPATH": LIBRARIES, "NOETL_WORKER_SEALED_ENVIRONMENT": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        theirs.close()
        assert mine.recv(1) == b"\0"
        mine.sendall(sent)
        mine.close()
        assert (worker.communicate(timeout=PATIENCE_S)[0], worker.returncode) == (b"", 0)


REACHES_INTO_ITS_CHILD = f"""
import ctypes, signal, time
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # the child is to hide nothing
pid = os.fork()
if pid == 0:
    while True:
        time.sleep(1)
{READS_THE_WORKER}
def read():
    class Span(ctypes.Structure):
        _fields_ = (("start", ctypes.c_void_p), ("size", ctypes.c_size_t))
    there, here = ctypes.create_string_buffer(b"there"), ctypes.create_string_buffer(5)
    spans = [ctypes.byref(Span(ctypes.addressof(one), 5)) for one in (here, there)]
    return system(libc.process_vm_readv, pid, spans[0], 1, spans[1], 1, 0)

result = {{"read": tried(read), "descriptor": result["descriptor"], "traced": result["traced"]}}
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("user", USERS)
def test_command_reaches_into_no_process_at_all(user: str) -> None:
    """ptrace, process_vm_readv and pidfd_getfd of a process that has hidden nothing yet, to stay in it."""
    run = functools.partial(run_as, user, commands=[("python", {"code": f"import os\n{REACHES_INTO_ITS_CHILD}"})])
    [free], [confined] = run(level="off"), run(level="basic")
    assert (free["data"]["read"], free["data"]["traced"]) == (5, 0)
    assert set(confined["data"].values()) == {"PermissionError"}


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        *((name, True) for name in ("PATH", "LC_ALL", "PYTHONPATH", "DD_SITE", "EXACT")),
        *((name, False) for name in ("NATS_PASSWORD", "EXACTLY", "NOETL_INTERNAL_API_TOKEN", "X_DD_SITE")),
    ],
)
def test_variables_that_stay_are_named(name: str, stays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """(no attack) What the interpreter reads, and what NOETL_WORKER_ENVIRONMENT_KEPT names."""
    monkeypatch.setenv(name, "x")
    monkeypatch.setenv("NOETL_WORKER_ENVIRONMENT_KEPT", "DD_*, EXACT")
    kept: list[str] = []
    started_again(monkeypatch, kept.extend)
    assert (name in kept) is stays


def test_every_process_is_given_its_environment() -> None:
    """A program inherits the worker's environment."""
    package, starts = Path(noetl_worker.__file__).parent, ("Popen", "create_subprocess_exec", "create_subprocess_shell")
    wrong = [
        f"{path.name}:{node.lineno}"
        for path in package.rglob("*.py")
        if "dev" not in path.relative_to(package).parts and any(name in (text := path.read_text()) for name in starts)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in starts
        and not any(keyword.arg == "env" for keyword in node.keywords)
    ]
    assert wrong == []
