"""Kind `python`: what user code finds, what comes back, what is stopped."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.models import Dialect, ToolStatus
from noetl_worker.testing import arun_tool, tool_context
from noetl_worker.tools.registry import Registry

from . import warm
from .processes import children_of, linux_only, members_of, open_descriptors, started, until_gone, with_time

anyio_backend, registry = warm.anyio_backend, warm.registry


async def python(code: str | None = None, config: dict[str, Any] | None = None, **context: Any) -> Any:
    whole = {**({"code": code} if code is not None else {}), **(config or {})}
    return await warm.run("python", whole, **context)


async def test_main_gets_its_parameters_by_name() -> None:
    code = "def main(who, seed, step, zz=3, **rest):\n    return [who, seed, step, zz, rest]"
    result = await python(code, {"input": {"who": "ada", "k": 1}}, variables={"seed": 5})
    assert result.data == ["ada", 5, "step", 3, {"k": 1}]


async def test_main_without_a_value_for_a_parameter_names_it() -> None:
    result = await python("def main(who): pass")
    assert result.error.message == "TypeError: main() needs 'who': neither the input nor the variables have it"


@pytest.mark.parametrize(
    "call", ["main()", "import sys\n    sys.exit(main())", "import asyncio\n    asyncio.run(main())"]
)
async def test_main_that_the_text_calls_itself_runs_once(call: str) -> None:
    kind = "async def" if "asyncio" in call else "def"
    code = f"{kind} main():\n    print('ran')\n    return 5\n\nif __name__ == '__main__':\n    {call}\n"
    result = await python(code)
    assert (result.data, result.stdout) == (5, "ran\n")


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("def main():\n    print('ran')\n    return 5\nresult = main()", 5),  # the text has called it
        ("def main():\n    global result\n    print('ran')\n    result = 5", 5),  # it gives nothing
        ("def main():\n    print('ran')", None),
    ],
)
async def test_main_runs_once_on_the_python_plane(code: str, value: Any) -> None:
    result = await python(code, dialect=Dialect.PYTHON)
    assert (result.data, result.stdout) == (value, "ran\n")


async def test_guard_without_main_runs() -> None:
    assert (await python("def work():\n    return 5\n\nif __name__ == '__main__':\n    result = work()\n")).data == 5


@pytest.mark.parametrize(
    "code",
    [
        "return {'n': n}",
        "if n:\n    return {'n': n}\nreturn 0",
        "def f():\n    return g()\ndef g():\n    return value\nvalue = {'n': n}\nreturn f()",
        "from __future__ import annotations\nimport json as j\nreturn j.loads('{\"n\": 4}')",
        "result = {'n': n}\nreturn",
        "text = '''\nnot indented\n'''\nreturn {'n': n}",
    ],
)
async def test_top_level_return_gives_the_value(code: str) -> None:
    assert (await python(code, {"input": {"n": 4}})).data == {"n": 4}


async def test_injected_names() -> None:
    code = (
        "result = [args, input_data, variables['v'], context['v'], context['input'], execution_id, step,"
        " json.dumps(1), os.sep]"
    )
    result = await python(code, {"input": {"a": 1}}, variables={"v": 2}, execution_id=767527441685282836)
    assert result.data == [{"a": 1}, {"a": 1}, 2, 2, {"a": 1}, "767527441685282836", "step", "1", os.sep]


async def test_step_input_is_below_the_tools_own() -> None:
    result = await python("result = args", {"input": {"a": "tool"}}, input={"a": "step", "b": "step"})
    assert result.data == {"a": "tool", "b": "step"}
    assert (await python("result = args", {"input": {}}, input={"a": 1})).data == {"a": 1}  # trap 27 of upstream


async def test_input_named_result_is_no_result() -> None:
    assert (await python("print(result)", {"input": {"result": 5}})).data == {"stdout": "5\n", "stderr": ""}


async def test_exception_is_a_failure_with_the_users_lines_and_its_cause() -> None:
    code = """def inner(n):
    return 1 / n

def outer():
    try:
        inner(0)
    except ZeroDivisionError as error:
        raise RuntimeError("outer failed") from error

outer()
"""
    result = await python(code)
    assert (result.status, result.exit_code) == (ToolStatus.ERROR, 1)
    failure = (result.error.message, result.error.kind, result.error.code)
    assert failure == ("RuntimeError: outer failed", "python", "RuntimeError")
    assert result.stderr.splitlines()[0] == "Traceback (most recent call last):"
    for line in ("return 1 / n", "inner(0)", 'raise RuntimeError("outer failed") from error', "outer()"):
        assert line in result.stderr
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "python_command" not in result.stderr


async def test_syntax_error_shows_its_line() -> None:
    result = await python("x = 1\nsyntax error")
    assert result.error.code == "SyntaxError"
    assert 'File "<python step>", line 2' in (result.stderr or "")


@pytest.mark.parametrize(
    ("code", "exit_code", "message"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", -11, "Python code was killed by SIGSEGV"),
        ("import sys; sys.exit(3)", 3, "Python code exited with code 3"),
        ("import sys; sys.exit('bad thing')", 1, "SystemExit: bad thing"),
        ("import os; os._exit(4)", 4, "Python code exited with code 4"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            -9,
            "Python code was killed by SIGKILL (out of memory?)",
        ),
        ("import os; os.abort()", -6, "Python code was killed by SIGABRT"),
    ],
)
async def test_other_ends_are_told(code: str, exit_code: int, message: str) -> None:
    result = await python(code)
    assert result.status is ToolStatus.ERROR
    assert (result.exit_code, result.error.message) == (exit_code, message)
    if exit_code < 0:  # docs/tools: kind process, which may be tried again if it died
        assert (result.error.kind, result.error.retryable, result.error.code) == ("process", True, str(exit_code))


@pytest.mark.parametrize(
    ("code", "given", "data"),
    [
        ("result['extra'] = 1", {"a": 1}, {"a": 1, "extra": 1}),
        ("result = result or []", [1], [1]),
        ("result = 5", 5, 5),
        ("def f():\n    global result\n    result = 5\nf()", 5, 5),
        ("result['x'] = 1\nreturn None", {}, {"x": 1}),
        ("def main(result):\n    return [result]", 5, [5]),
        ("def main():\n    return [result]", 5, [5]),
    ],
)
async def test_input_named_result_that_the_code_works_on_is_the_result(code: str, given: Any, data: Any) -> None:
    assert (await python(code, {"input": {"result": given}})).data == data


@pytest.mark.parametrize("end", ["sys.exit()", "sys.exit(0)", "raise SystemExit"])
async def test_result_is_kept_where_the_code_exits_with_0(end: str) -> None:
    result = await python(f"import sys\nresult = {{'a': 1}}\n{end}")
    assert (result.status, result.data, result.exit_code) == (ToolStatus.SUCCESS, {"a": 1}, 0)


async def test_end_without_an_answer_is_no_success() -> None:
    result = await python("import os\nresult = 1\nprint('x')\nos._exit(0)")
    assert (result.status, result.error.kind, result.stdout) == (ToolStatus.ERROR, "process", "x\n")
    assert "ended with code 0 but without a result that can be read" in result.error.message


async def test_forked_child_that_runs_on_does_not_spoil_the_answer() -> None:
    code = "import os\npid = os.fork()\nresult = 'child' if pid == 0 else 'parent'\nif pid:\n    os.waitpid(pid, 0)"
    assert (await python(code)).data == "parent"


async def test_code_from_base64_script_and_file(tmp_path: Path) -> None:
    encoded = base64.b64encode(b"result = 'b64'").decode()
    assert (await python(None, {"code_base64": encoded, "code": "result = 'code'"})).data == "b64"
    assert (await python(None, {"script": "result = 'inline'", "code_b64": encoded})).data == "inline"
    assert (
        await python(None, {"script": {"source": {"type": "inline", "code": "result = 'source'"}}})
    ).data == "source"
    (tmp_path / "job one.py").write_text("result = __name__")
    assert (await python(None, {"script": str(tmp_path / "job one.py")})).data == "__main__"
    assert (await python(None, {"script": {"uri": f"file://{tmp_path}/job%20one.py"}})).data == "__main__"


async def test_libs_are_globals() -> None:
    assert (
        await python("result = m.floor(2.5) + len(base64.b64encode(b''))", {"libs": {"m": "math", "base64": "base64"}})
    ).data == 2
    assert (await python("result = math.floor(2.5)", {"libs": ["math"]})).data == 2
    failed = await python("result = 1", {"libs": ["no_such_module"]})
    assert failed.error is not None
    assert failed.error.message == "ModuleNotFoundError: No module named 'no_such_module'"


async def test_process_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_PASSWORD", "hunter2")
    code = """
import os, sys
result = {
    "env": dict(os.environ),
    "cwd_is_empty": os.listdir() == [],
    "leader": os.getsid(0) == os.getpid() == os.getpgid(0),
    "modules": [name for name in sys.modules if name.partition(".")[0] in ("noetl_worker", "uvloop", "nats", "httpx")],
    "stdin": sys.stdin.read(),
    "descriptors": sorted(int(fd) for fd in os.listdir("/dev/fd"))[-1] < 8,
}
"""
    data = (await arun_tool("python", {"code": code, "env": {"SAMPLE": "1"}})).data  # its template has what we have now
    environment = data.pop("env")
    assert environment["SAMPLE"] == "1"
    assert "NATS_PASSWORD" not in environment
    assert not Path(environment["TMPDIR"]).exists()
    assert data == {"cwd_is_empty": True, "leader": True, "modules": [], "stdin": "", "descriptors": True}


async def test_timeout_keeps_output_and_kills_grandchildren(tmp_path: Path) -> None:
    code = f"""
import os, subprocess, time
print("before")
subprocess.Popen(["sleep", "1000"])
open({str(tmp_path / "pid")!r}, "w").write(f"{{os.getpid()}}\\n")
time.sleep(1000)
"""
    file = tmp_path / "pid"
    result = await with_time(lambda timeout_s: python(code, {"timeout": timeout_s}), lambda _: file.exists())
    assert result.status is ToolStatus.TIMEOUT
    assert result.stdout == "before\n"
    assert result.exit_code == -15
    assert await until_gone(int((tmp_path / "pid").read_text())) == []


def that_waits(pid_file: Path) -> str:
    """Code that tells its process and goes on."""
    return f"import os, time\nprint(os.getpid(), file=open({str(pid_file)!r}, 'w'), flush=True)\ntime.sleep(1000)"


@pytest.fixture
async def own() -> AsyncIterator[Registry]:
    """The test's own, with a template process of its own."""
    made = Registry(plugins=False)
    yield made
    await made.aclose()


async def run(own: Registry, code: str) -> Any:
    return await own.run_tool("python", {"code": code}, tool_context(registry=own))


async def test_cancelled_call_stops_the_group(own: Registry, tmp_path: Path) -> None:
    call = asyncio.ensure_future(run(own, that_waits(tmp_path / "pid")))
    group = await started(tmp_path / "pid")
    assert members_of(group)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await until_gone(group) == []


async def test_template_that_died_fails_its_commands_and_is_started_again(own: Registry, tmp_path: Path) -> None:
    waiting = asyncio.ensure_future(run(own, that_waits(tmp_path / "pid")))
    group = await started(tmp_path / "pid")
    with pytest.raises(ToolError, match="process that starts commands died") as caught:
        await asyncio.gather(waiting, run(own, "import os\nos.kill(os.getppid(), 9)"))
    assert caught.value.retryable
    await asyncio.wait({waiting})
    assert await until_gone(group) == []
    assert (await run(own, "result = 1")).data == 1


@linux_only
async def test_template_of_a_warmed_up_kind_is_there_before_its_first_command(own: Registry) -> None:
    before = children_of(os.getpid())
    own.limit((), ["python"])
    own.warm_up(["python", "unknown"])
    assert children_of(os.getpid()) == before, "a refused kind starts nothing"
    own.limit((), ())
    own.warm_up(["python"])
    (template,) = set(children_of(os.getpid())) - set(before)
    assert str((await run(own, "import os\nresult = os.getppid()")).data) == template


async def test_closed_registry_leaves_no_process(own: Registry) -> None:
    template = (await run(own, "import os\nresult = os.getppid()")).data
    await own.aclose()
    assert await until_gone(template) == []


@linux_only
async def test_no_descriptors_and_no_zombies_stay(own: Registry) -> None:
    template = (await run(own, "import os\nresult = os.getppid()")).data
    before = open_descriptors()
    await asyncio.gather(*(run(own, "result = 1") for _ in range(50)))
    assert (open_descriptors() - before, children_of(template)) == (set(), [])


async def test_large_input_and_result_pass() -> None:
    words = ["word" * 100] * 5_000
    result = await python(
        "print('x' * 100_000)\nresult = {'n': len(words), 'words': words}", {"input": {"words": words}}
    )
    assert result.data == {"n": 5_000, "words": words}
    assert result.stdout == "x" * 100_000 + "\n"
