"""Kind `python`: code that does not stop, takes too much, says too much or gives what JSON cannot say."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.models import ToolResult, ToolStatus
from noetl_worker.testing import arun_tool, run_tool, tool_context
from noetl_worker.tools.kinds.python.python import PythonTool
from noetl_worker.tools.process import process
from noetl_worker.tools.python.python_runner import PythonRunner
from noetl_worker.tools.registry import Registry
from patience import until

from . import warm
from .processes import PeakMemory, open_descriptors, with_time

registry = warm.registry


async def python(code: str, **config: Any) -> Any:
    return await warm.run("python", {"code": code, **config})


async def stopped(code: str, had_time: Callable[[ToolResult], object] = lambda result: result.stdout) -> Any:
    """By its timeout, after it has got so far: has written something."""
    return await with_time(lambda timeout_s: python(code, timeout=timeout_s), had_time)


# ── code that does not stop ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("print('on the way')\nwhile 1: pass", 'File "<python step>", line 2 in <module>'),
        ("print('on the way')\nsum(range(10**15))", 'File "<python step>", line 2 in <module>'),
        ("print('on the way')\nimport re\nre.match('(a+)+b', 'a' * 50)", 'File "<python step>", line 3 in <module>'),
        (
            "print('on the way')\nimport threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
            'File "<python step>", line 5 in <module>',
        ),
        (
            "print('on the way')\nimport asyncio\nasync def main():\n    await asyncio.Event().wait()",
            'File "<python step>", line',
        ),
    ],
    ids=["loop", "loop in C", "regular expression", "deadlock", "async main"],
)
async def test_timeout_stops_the_code_and_shows_where_it_was(code: str, line: str) -> None:
    result = await stopped(code, lambda result: result.stdout and ("async" in code or line in result.stderr))
    assert result.status is ToolStatus.TIMEOUT
    assert result.stdout == "on the way\n"
    if "async" not in code:
        assert line in result.stderr
    assert "most recent call first" in result.stderr


async def test_thread_that_does_not_end_is_named() -> None:
    code = "import threading\nthreading.Thread(target=threading.Event().wait, name='stuck').start()\nresult = 1"
    said = "[the code has ended, its thread 'stuck' has not]"
    result = await stopped(code, lambda result: said in (result.stderr or ""))
    assert result.status is ToolStatus.TIMEOUT
    assert said in (result.stderr or "")


# ── memory ──────────────────────────────────────────────────────────────────────────────────────


async def test_memory_limit_is_a_memory_error() -> None:
    result = await python("held = bytearray(500 << 20)\nresult = len(held)", memory_mb=128)
    assert (result.error.message, result.error.code) == ("MemoryError (memory_mb=128)", "MemoryError")
    assert "held = bytearray(500 << 20)" in (result.stderr or "")
    assert (await python("result = len(bytearray(50 << 20))", memory_mb=128)).data == 50 << 20


async def test_memory_limit_of_one_command_is_not_the_next_ones() -> None:
    await python("result = 1", memory_mb=64)
    assert (await python("result = len(bytearray(200 << 20))")).data == 200 << 20


def test_kernels_kill_for_memory_is_told_as_such(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 3\n")
    code = f"import os, signal\nopen({str(events)!r}, 'w').write('oom_kill 4')\nos.kill(os.getpid(), signal.SIGKILL)"
    result = run_tool(PythonTool(PythonRunner(memory_events=events)), {"code": code})
    assert (result.error.message, result.error.code) == ("Python code was killed: out of memory", "out_of_memory")


def test_count_of_the_kernels_kills(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 12\noom 2\noom_kill 5\noom_group_kill 0\n")
    assert process.oom_kills(events) == 5
    events.write_text("nothing here\n")
    assert process.oom_kills(events) is None
    assert process.oom_kills(tmp_path / "none") is None


# ── output and results ──────────────────────────────────────────────────────────────────────────


async def test_hundred_megabytes_of_output_cost_a_bounded_amount_of_memory() -> None:
    await python("print('x' * 5_000_000)")
    with PeakMemory() as peak:
        result = await python("for _ in range(100):\n    print('x' * (1 << 20))\nresult = 'end'")
    assert peak.grown_mib <= 20
    assert result.data == "end"
    assert " bytes left out ...]" in result.stdout
    assert len(result.stdout) < process.MAX_OUTPUT_BYTES + 100


async def test_result_over_the_limit_says_so() -> None:
    with pytest.raises(ToolError, match="the result of the Python code is over 64 MiB"):
        await python("result = 'x' * (64 << 20)")
    assert (await python("result = 1")).data == 1


async def test_deep_nesting_ends_somewhere() -> None:
    data = (await python("result = []\nfor _ in range(500):\n    result = [result]")).data
    depth = 0
    while isinstance(data, list):
        data, depth = data[0], depth + 1
    assert (data, depth) == ("[nested too deeply]", 201)


async def test_object_whose_text_cannot_be_had_is_an_error_of_the_code() -> None:
    result = await python("class Bad:\n    def __str__(self):\n        raise RuntimeError('no text')\nresult = Bad()")
    assert result.error.message == "RuntimeError: no text"


# ── exceptions ──────────────────────────────────────────────────────────────────────────────────


async def test_exception_that_cannot_tell_itself_is_still_told() -> None:
    result = await python("class Odd(Exception):\n    def __str__(self):\n        raise ValueError\nraise Odd()")
    assert result.status is ToolStatus.ERROR
    assert result.error.message == "Odd: (the text of this exception cannot be read)"


async def test_infinite_recursion_is_an_exception() -> None:
    result = await python("def f():\n    f()\nf()")
    assert result.error.code == "RecursionError"


async def test_closed_streams_do_not_lose_the_result() -> None:
    code = "import sys, os\nsys.stdout.close()\nsys.stderr = None\nos.close(1)\nos.close(2)\nresult = 1"
    assert (await python(code)).data == 1


# ── cancellations that meet the end ─────────────────────────────────────────────────────────────


async def test_cancellation_at_the_end_leaves_no_descriptor_and_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    supervise = process.supervise

    children: list[weakref.ref[Any]] = []

    async def then_cancelled(child: Any, *args: Any, **limits: Any) -> bool:
        children.append(weakref.ref(child))
        timed_out = await supervise(child, *args, **limits)
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        return timed_out

    tool = PythonTool()
    registry = Registry([tool], plugins=False)
    context = tool_context(registry=registry)
    await registry.run_tool("python", {"code": "result = 1"}, context)
    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(process, "supervise", then_cancelled)
        task = asyncio.ensure_future(registry.run_tool("python", {"code": "result = 1"}, context))
        await asyncio.wait({task})
    # Not at once: one or two more were open for a moment after the task had ended, on a fast machine.
    await until(lambda: open_descriptors() <= before, "no descriptor of the command")
    del task
    gc.collect()
    assert [child() for child in children] == [None], "the template keeps nothing of the command"
    await registry.aclose()


def supervise_by(monkeypatch: pytest.MonkeyPatch, instead: Callable[..., Any]) -> None:
    monkeypatch.setattr(process, "supervise", instead)


async def test_end_of_the_template_kills_no_group_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process id may be another program's by then."""
    killed: list[int] = []
    supervise = process.supervise

    tool = PythonTool()

    async def then_closed(*args: Any, **limits: Any) -> bool:
        timed_out = await supervise(*args, **limits)
        await tool.aclose()
        return timed_out

    supervise_by(monkeypatch, then_closed)
    monkeypatch.setattr("os.killpg", lambda group, _: killed.append(group))
    assert (await arun_tool(tool, {"code": "result = 1"})).data == 1
    assert killed == []


async def test_timeout_that_meets_the_command_before_it_begins_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    supervise = process.supervise

    async def before_it_has_begun(child: Any, captures: Any, **limits: Any) -> bool:
        timed_out = await supervise(child, captures, timeout_s=0)
        captures[-1].process = None
        return timed_out

    supervise_by(monkeypatch, before_it_has_begun)
    result = await arun_tool("python", {"code": "result = 1", "timeout": 5})
    assert result.status is ToolStatus.TIMEOUT
