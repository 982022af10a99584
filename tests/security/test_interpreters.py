"""A step names a program of its own as Python interpreter."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.house import house
from integration.processes import until
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.tools.python.interpreter import template_program

from .commands import USERS, alive, ends, interpreter_of, run_as
from .test_secrets_of_the_worker import READS_THE_WORKER, worker_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux")

ATTACK = """
import json, os, subprocess
quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
child = subprocess.Popen(["sleep", "600"], start_new_session=True, **quiet)
status = dict(line[:-1].split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
result = {{}}
pid = int(open({worker!r}).read())
{reads}
with open({seen!r} + ".part", "w") as file:
    json.dump({{"left": child.pid, "status": status, "reads": result, "limit": os.sysconf("SC_OPEN_MAX")}}, file)
os.rename({seen!r} + ".part", {seen!r})
"""
MODULES = f"python{sys.version_info.major}.{sys.version_info.minor}"


class Author:
    """A directory with an environment whose `.pth` attacks, and a program that does so and then is an interpreter.

    `warm` is such an environment whose program no command can change, so that it has a template.
    """

    def __init__(self, user: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="author-"))
        self.directory.chmod(0o777)
        self.seen, self.worker = self.directory / "seen", self.directory / "worker"
        self.worker.write_text(str(os.getpid()))
        attack = self.directory / "attack.py"
        attack.write_text(ATTACK.format(worker=str(self.worker), seen=str(self.seen), reads=READS_THE_WORKER))
        own = interpreter_of(user) or sys.executable
        self.program = self.directory / "program"
        self.program.write_text(f'#!/bin/sh\n{own} -I {attack}\nexec {own} "$@"\n')
        self.program.chmod(0o755)
        self.environment = self.directory / "environment"
        self.apart = Path(tempfile.mkdtemp(prefix="apart-"))
        self.apart.chmod(0o755)
        self.warm = self.apart / "warm"
        for environment in (self.environment, self.warm):
            modules = environment / "lib" / MODULES / "site-packages"
            modules.mkdir(parents=True)
            (environment / "bin").mkdir()
            (environment / "pyvenv.cfg").write_text(f"home = {Path(own).resolve().parent}\n")
            (modules / "attack.pth").write_text(f"import sys; exec(open({str(attack)!r}).read(), {{}})\n")
        (self.environment / "bin/python").symlink_to(Path(own).resolve())
        shutil.copy(Path(own).resolve(), self.warm / "bin/python3")
        (self.warm / "bin/python").symlink_to("python3")

    def remove(self) -> None:
        shutil.rmtree(self.directory)
        shutil.rmtree(self.apart)

    def steps(self) -> list[dict[str, Any]]:
        """Every way to have it run."""
        linked = self.directory / "linked"
        linked.mkdir(exist_ok=True)
        if not (linked / "bin").exists():
            (linked / "bin").symlink_to(self.environment / "bin")
        code = {"code": "import sys\nresult = sys.prefix"}
        return [
            {**code, "python": str(self.program)},
            {**code, "python": str(self.environment / "bin/python")},
            {**code, "python": str(linked / "bin/python")},
            {**code, "deps": {"venv_path": str(self.environment)}},
            {**code, "deps": {"venv_path": str(self.warm)}},
        ]

    def saw(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.seen.read_text())
        self.seen.unlink()
        return found


@pytest.fixture
def author(user: str) -> Iterator[Author]:
    made = Author(user)
    yield made
    made.remove()


def said(outcome: dict[str, Any]) -> str:
    return str(outcome.get("error"))


@pytest.mark.parametrize("user", USERS)
def test_interpreter_that_the_operator_has_not_named_is_not_started(author: Author, user: str) -> None:
    """`python: ./program`, or an environment with a `.pth` file."""
    for settings in ({}, {"pythons": "/no/such:/usr"}):
        outcomes = run_as(user, "basic", [("python", step) for step in author.steps()], settings=settings)
        assert all("ask the operator to name it in NOETL_WORKER_PYTHONS" in said(one) for one in outcomes), outcomes
    assert not author.seen.exists()


@pytest.mark.parametrize("user", USERS)
def test_link_to_an_environment_that_is_named_makes_no_other_one_of_it(author: Author, user: str) -> None:
    """A link to a named environment beside another `pyvenv.cfg`."""
    settings = {"pythons": str(author.environment)}
    _, named, linked, *_ = run_as(user, "basic", [("python", one) for one in author.steps()], settings=settings)
    assert named["data"] == linked["data"] == str(author.environment)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("step", range(5))
def test_interpreter_that_is_named_is_confined_before_it_starts(author: Author, step: int, user: str) -> None:
    """A named one that keeps its rights and leaves processes."""
    named = f"{author.program}:{author.environment}:{author.warm}"
    [outcome] = run_as(
        user,
        "basic",
        [("python", author.steps()[step])],
        settings={"pythons": named},
        descriptors=128,
    )
    assert outcome["exit_code"] == 0, outcome
    saw = author.saw()
    assert not alive(saw["left"])
    assert (saw["status"]["NoNewPrivs"], saw["limit"]) == ("1", 128)
    assert int(saw["status"]["CapEff"], 16) >> 19 & 1 == 0


CODE = """
import os, sys
print(os.environ["KEY"], open("/proc/self/oom_score_adj").read(), auth["a"]["token"])
print("serve" in open("/proc/self/cmdline").read())
try:
    open("/proc/self/environ").close()
    result = [sys.executable, n, "read"]
except PermissionError:
    result = [sys.executable, n, "hidden"]
"""


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", ["environment", "warm"])
def test_command_in_an_interpreter_that_is_named_is_as_any_other(author: Author, kind: str, user: str) -> None:
    """(no attack) Input, variables and credentials, its answer, errors, SIGTERM; its memory is hidden."""
    environment: Path = getattr(author, kind)
    is_warm = kind == "environment" or template_program(str(environment / "bin/python")) is not None
    (environment / "lib" / MODULES / "site-packages/attack.pth").unlink()
    steps = [
        {"code": CODE, "input": {"n": 4}, "env": {"KEY": "K"}, "auth": {"a": {"key": "a", "service": "http"}}},
        {"code": "raise KeyError('x')"},
        {"code": "import os\nprint('p')\nos.kill(os.getpid(), 15)"},
        {"code": "result = len(text) * 'x'", "input": {"text": "y" * 3_000_000}},
        {"code": "import os\nos._exit(3)"},
    ]
    good, bad, stopped, large, ended = run_as(
        user,
        "basic",
        [("python", {**step, "deps": {"venv_path": str(environment)}}) for step in steps],
        settings={"pythons": f"/no/such:{environment}"},
        credentials={"a": {"type": "bearer", "token": "t"}},
    )
    assert good["data"] == [str(environment / "bin/python"), 4, "hidden" if user != "root" else "read"]
    assert good["stdout"].split() == ["K", "1000", "t", str(is_warm)]
    assert "KeyError" in bad["stderr"]
    assert (stopped["stdout"], stopped["exit_code"]) == ("p\n", -15)
    assert "line 3" in stopped["stderr"]  # where it was at a timeout
    assert len(large["data"]) == 3_000_000
    assert ended["exit_code"] == 3


@pytest.mark.parametrize("user", USERS)
def test_interpreter_cannot_say_that_the_machine_has_nothing_left(author: Author, user: str) -> None:
    """It claims a shortage, to be returned for ever."""
    author.program.write_text("""#!/bin/sh\nprintf '{"error": "[Errno 11] nothing left"}' >&3\n""")
    config = {"code": "result = 1", "python": str(author.program)}
    [outcome] = run_as(user, "basic", [("python", config)], settings={"pythons": "*"})
    assert outcome["exit_code"] == 0, outcome


@pytest.mark.parametrize("user", USERS)
def test_own_interpreter_needs_no_name_and_without_isolation_none_does(author: Author, user: str) -> None:
    """(no attack) Under each of its names it is the warm one; `dev` is an author's own machine."""
    own = Path(interpreter_of(user) or sys.executable)
    step = {"code": "import sys\nresult = sys.executable"}
    other = own.parent / "python3"
    names = [own, *([other] if other.resolve() == own.resolve() else [])]
    outcomes = run_as(user, "basic", [("python", {**step, "python": str(name)}) for name in names])
    assert [one["data"] for one in outcomes] == [str(own)] * len(names)
    [free] = run_as(user, "off", [("python", {**step, "python": str(author.environment / "bin/python")})])
    assert free["data"] == str(author.environment / "bin/python")


LEAVES = """
import os, subprocess, time
with open(PLACE + ".part", "w") as file:
    file.write(f"{os.getpid()} {subprocess.Popen(['sleep', '600'], start_new_session=True).pid}")
os.rename(PLACE + ".part", PLACE)
time.sleep(600)
"""


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("step", [3, 4])
async def test_interpreter_of_a_step_reads_nothing_of_its_worker_and_ends_with_it(
    author: Author, step: int, user: str
) -> None:
    """It reads `/proc/PPID/mem` and outlives its worker."""
    async with house(worker=False) as home:

        async def ended(config: dict[str, Any]) -> list[str]:
            [issued] = await home.plane.create_commands([RawCommand("python", config)])
            await home.wait_terminal(issued.event_id)
            return home.terminal_events(issued.event_id)

        pythons = f"{author.environment}:{author.warm}"
        async with worker_of(home, user, "basic", NOETL_WORKER_PYTHONS=pythons) as (worker, _):
            author.worker.write_text(str(worker.pid))
            refused, named = author.steps()[0], author.steps()[step]
            assert await ended(refused) == ["command.failed"]
            assert not author.seen.exists()
            assert await ended(named) == ["command.completed"]
            saw = author.saw()
            assert set(saw["reads"].values()) == {"PermissionError"}
            assert not alive(saw["left"])
            left = author.directory / "left"
            code = f"PLACE = {str(left)!r}\n{LEAVES}"
            await home.plane.create_commands([RawCommand("python", {**named, "code": code})])
            await until(left.exists, "it runs")
        assert all([await asyncio.to_thread(ends, int(pid)) for pid in left.read_text().split()])
