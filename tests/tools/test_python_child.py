"""Kind `python`: what the process of a command has from the template that it was forked from, and what it has not.

The template runs what every command runs before the first command (`python_command.rehearse`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import noetl_worker
from noetl_worker.testing import arun_tool, tool_context
from noetl_worker.tools.kinds.python.python import PythonTool
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.python import python_exchange
from noetl_worker.tools.python.python_answer import PythonAnswer, Request
from noetl_worker.tools.registry import Registry
from patience import PATIENCE_S

from . import warm
from .processes import linux_only, members_of, started, until_gone

registry = warm.registry


async def result_of(code: str) -> Any:
    result = await warm.run("python", {"code": code})
    assert result.error is None, result.error
    return result.data


async def test_rehearsal_leaves_nothing_for_a_command() -> None:
    code = """
import linecache, signal, sys
handlers = [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGCHLD, signal.SIGINT)]
return {
    "signals": handlers == [signal.SIG_DFL, signal.SIG_DFL, signal.default_int_handler],
    "argv": sys.argv,
    "path": [entry for entry in sys.path if entry in ("", "/")],
    "lines": list(linecache.cache),
    "names": sorted(name for name in globals() if name in ("main", "result", "n")),
    "main": sys.modules["__main__"].__dict__ is globals(),
}
"""
    assert await result_of(code) == {
        "signals": True,
        "argv": ["<python step>"],
        "path": [],
        "lines": ["<python step>"],
        "names": [],
        "main": True,
    }


async def test_command_that_forks_beside_a_thread_has_one_thread_in_its_child() -> None:
    """What `threading` does for that at a fork is left to the commands: the template has no thread."""
    code = """
import os, threading
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
mine, theirs = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(theirs, b"%d" % threading.active_count())
    os._exit(0)
os.waitpid(pid, 0)
stop.set()
thread.join()
result = [int(os.read(mine, 9)), threading.active_count(), threading.main_thread() is threading.current_thread()]
"""
    assert await result_of(code) == [1, 1, True]


@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
async def test_executor_that_is_not_shut_down_ends_with_the_code(kind: str) -> None:
    """As in a Python program: its work is finished, and its threads end. The step hung until its timeout."""
    code = f"""
from concurrent.futures import {kind}
kept = {kind}(2)
result = kept.submit(abs, -1).result()
kept.submit(print, "finished", flush=True)
"""
    result = await warm.run("python", {"code": code, "timeout": PATIENCE_S})
    assert (result.data, result.stdout, result.stderr) == (1, "finished\n", "")


async def test_end_of_an_executor_that_fails_costs_no_result() -> None:
    code = """
import threading
def end():
    stop.set()
    raise OSError("handle is closed")
stop = threading.Event()
threading.Thread(target=stop.wait).start()
threading._register_atexit(end)
result = 1
"""
    result = await warm.run("python", {"code": code})
    assert result.data == 1
    assert "handle is closed" in (result.stderr or "")


@pytest.mark.parametrize("is_named", [False, True])
async def test_time_zone_of_a_command_is_that_of_its_times(is_named: bool, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.symlink_to(Path(sys.executable).resolve())
    code = "import datetime\nresult = datetime.datetime.fromtimestamp(0).hour"
    config = {"code": code, **({"python": str(other)} if is_named else {})}
    for zone, hour in (("<-11>11", 13), ("<+05>-5", 5)):
        assert (await warm.run("python", {**config, "env": {"TZ": zone}})).data == hour


async def test_process_that_the_code_forks_and_ends_writes_no_traceback() -> None:
    code = """
import os, signal
def end_a_fork():
    mine, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(theirs, b"x")
        while True:  # not a pause: a signal that comes before it is not seen in it
            pass
    os.read(mine, 1)
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
by_default = end_a_fork()
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
result = [by_default, end_a_fork()]
"""
    result = await warm.run("python", {"code": code})
    assert (result.data, result.stderr) == ([-15, 7], "")


@pytest.mark.parametrize(
    "setup",
    [
        "handler = MemoryHandler(100, target=StreamHandler(sys.stdout))\nlogging.getLogger().addHandler(handler)",
        "dictConfig({'version': 1, 'handlers': {"
        "'out': {'class': 'logging.StreamHandler', 'stream': 'ext://sys.stdout'},"
        "'kept': {'class': 'logging.handlers.MemoryHandler', 'capacity': 100, 'target': 'out'}},"
        "'root': {'handlers': ['kept']}})",
    ],
    ids=["added", "configured"],
)
async def test_log_that_a_handler_kept_back_is_written_at_the_end(setup: str) -> None:
    code = f"""
import logging, sys
from logging import StreamHandler
from logging.config import dictConfig
from logging.handlers import MemoryHandler
{setup}
logging.warning("kept back")
"""
    result = await warm.run("python", {"code": code})
    assert result.stdout == "kept back\n"


async def test_functions_for_the_exit_run_last_first() -> None:
    code = "import atexit\nfor name in 'ab':\n    atexit.register(print, name)"
    assert (await warm.run("python", {"code": code})).stdout == "b\na\n"


LEAVE_THEIR_DIRECTORY: dict[str, list[dict[str, Any]]] = {
    "python": [
        {"code": "import os\nprint(os.environ['TMPDIR'])"},
        {"code": "import os\nprint(os.environ['TMPDIR'])\nopen('left', 'w').close()"},
        {"code": "import os, sys\nprint(os.environ['TMPDIR'])\nsys.stdout.flush()\nos._exit(0)"},
        {"code": "import os\nprint(os.environ['TMPDIR'])\nos.rmdir(os.getcwd())"},
    ],
    "shell": [
        {"command": "echo $TMPDIR"},
        {"command": "echo $TMPDIR; touch left"},
        {"command": ["touch left", "ls -d $TMPDIR/left >&2; rm left; echo $TMPDIR"]},
        {"command": ["echo $TMPDIR", "test -d $TMPDIR", "cd $TMPDIR"]},
    ],
}


@pytest.mark.parametrize("level", ["off", "basic"])
@pytest.mark.parametrize("kind", LEAVE_THEIR_DIRECTORY)
async def test_directory_of_a_command_is_gone_with_it(kind: str, level: str) -> None:
    """Whoever removes it: the command's own process, the one above it, or the worker, which may keep an empty one."""
    worker, places = Registry(plugins=False, confinement=Confinement(level)), []
    for config in LEAVE_THEIR_DIRECTORY[kind]:
        result = await worker.run_tool(kind, config, tool_context(registry=worker))
        place = Path(result.stdout.strip())
        assert place.name.startswith("noetl-"), config
        assert level == "basic" or not place.exists(), config
        places.append(place)
        if kind == "shell":
            assert result.exit_code == 0, result.stderr
    await worker.aclose()
    assert not any(place.exists() for place in places)


@linux_only
@pytest.mark.parametrize("confinement", [UNCONFINED, Confinement("basic")], ids=lambda one: one.level)
async def test_command_has_few_pages_of_memory_copied_before_its_code(confinement: Confinement) -> None:
    """Page faults, counted by the kernel: 535 to 555 before the template local_outcome, 350 to 380 since."""
    code = "with open('/proc/self/stat') as file:\n    result = int(file.read().rpartition(')')[2].split()[7])"
    assert (await arun_tool(PythonTool(confinement=confinement), {"code": code})).data <= 450


async def test_command_has_begun_or_never_will_once_its_template_is_given_up() -> None:
    """Else it would run twice: here, and in the next template."""
    mine, theirs = socket.socketpair()
    other, late = socket.socketpair()
    with mine, theirs, other, late:
        answers = [PythonAnswer(os.dup(mine.fileno())), PythonAnswer(os.dup(other.fileno()))]
        python_exchange.begin(theirs.fileno(), 42)
        for channel, answer in zip((mine, other), answers, strict=True):
            Request(channel, b"").end()
            answer.read_what_is_there()
            answer.close()
        with pytest.raises(BrokenPipeError):
            python_exchange.begin(late.fileno(), 43)
    assert [answer.process for answer in answers] == [42, None]


@pytest.mark.parametrize("size", [65_536, 65_537, 3_000_000])
async def test_output_that_a_pipe_does_not_hold_is_read_while_the_command_runs(size: int) -> None:
    result = await warm.run("python", {"code": f"print('x' * {size - 1})\nresult = 1"})
    assert (result.data, len(result.stdout or "")) == (1, size)


async def test_killed_worker_leaves_no_user_code_running(tmp_path: Path) -> None:
    """SIGKILL gives the worker no chance to clean up: the template notices the end of its socket."""
    code = f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(1000)"
    worker = f"from noetl_worker.testing import run_tool\nrun_tool('python', {{'code': {code!r}}})"
    package = Path(noetl_worker.__file__).parent.parent
    process = subprocess.Popen(  # noqa: ASYNC220 - the loop has nothing else to do
        [sys.executable, "-c", worker], env={**os.environ, "PYTHONPATH": str(package), "TMPDIR": str(tmp_path)}
    )
    try:
        group = await started(tmp_path / "pid")
        assert members_of(group)
    finally:
        process.kill()
        process.wait()
    assert await until_gone(group) == []
