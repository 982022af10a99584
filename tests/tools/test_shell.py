"""Kind `shell`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError
from noetl_worker.models import Dialect, ToolStatus
from noetl_worker.testing import arun_tool, run_tool
from noetl_worker.tools.kinds.shell.shell import ShellTool
from noetl_worker.tools.python.python_runner import PythonRunner

from . import warm
from .processes import linux_only, with_time

anyio_backend, registry = warm.anyio_backend, warm.registry


async def shell(command: str, **config: Any) -> Any:
    return await warm.run("shell", {"command": command, **config})


async def test_data_has_the_fields_of_the_planes_own_worker() -> None:
    config = {"command": "echo {{ word }} && echo warn >&2"}
    result = await warm.run("shell", config, variables={"word": "hello"})
    assert result.status is ToolStatus.SUCCESS
    assert result.data == {"exit_code": 0, "stdout": "hello\n", "stderr": "warn\n"}
    python = (await warm.run("shell", config, variables={"word": "hello"}, dialect=Dialect.PYTHON)).data
    (command,) = python.pop("commands")
    assert python.pop("duration_ms") >= command.pop("duration_ms") >= 0
    assert python == {"returncode": 0, "stdout": "hello\n", "stderr": "warn\n"}
    assert command == {**python, "cmd_preview": "echo hello && echo warn >&2"}
    assert (result.exit_code, result.stdout, result.stderr) == (0, "hello\n", "warn\n")


async def test_exit_code_is_a_failure_with_the_data_kept() -> None:
    result = await shell("echo out; exit 3")
    assert result.status is ToolStatus.ERROR
    assert result.error.message == "Command exited with code 3"
    assert (result.error.kind, result.error.code) == ("process", "3")
    assert result.data["stdout"] == "out\n"


async def test_list_stops_at_the_first_command_that_fails() -> None:
    result = await warm.run("shell", {"cmds": ["echo a", "echo b; exit 4", "echo c"]})
    assert result.data["exit_code"] == 4
    assert result.data["stdout"] == "a\nb\n"
    assert [one["cmd_preview"] for one in result.data["commands"]] == ["echo a", "echo b; exit 4"]
    assert [one["returncode"] for one in result.data["commands"]] == [0, 4]


async def test_timeout_keeps_what_was_printed() -> None:
    async def run(timeout_s: float) -> tuple[float, Any]:
        return timeout_s, await warm.run("shell", {"command": "echo before; sleep 1000", "timeout_seconds": timeout_s})

    timeout_s, result = await with_time(run, lambda found: found[1].data["stdout"])
    assert result.status is ToolStatus.TIMEOUT
    assert result.error.message == f"Execution timed out after {timeout_s:g} seconds"
    assert result.error.retryable
    assert result.data["stdout"] == "before\n"


async def test_timeout_covers_all_commands_of_a_list() -> None:
    config = {"cmds": ["sleep 0.2", "sleep 1000"]}
    result = await with_time(
        lambda timeout_s: warm.run("shell", {**config, "timeout": timeout_s}),
        lambda found: len(found.data["commands"]) == 2,
    )
    assert result.status is ToolStatus.TIMEOUT
    assert len(result.data["commands"]) == 2


async def test_directory_is_empty_own_and_removed() -> None:
    result = await shell('pwd; ls -A; touch left; mkdir d; test "$TMPDIR" = "$PWD"')
    assert result.exit_code == 0
    (directory,) = result.data["stdout"].splitlines()
    assert not Path(directory).exists()


async def test_given_directory_is_used_and_kept(tmp_path: Path) -> None:
    result = await shell("pwd; echo x > made", cwd=str(tmp_path))
    assert result.data["stdout"] == f"{tmp_path}\n"
    assert (tmp_path / "made").read_text() == "x\n"


async def test_environment_is_scrubbed_and_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_PASSWORD", "hunter2")
    env = {"SAMPLE": "x y", "NUMBER": 5, "NONE": None, "L": [1]}
    result = await arun_tool("shell", {"command": "env", "env": env})  # its template has what we have now
    assert "hunter2" not in result.data["stdout"]
    assert "SAMPLE=x y\n" in result.data["stdout"]
    assert "NUMBER=5\n" in result.data["stdout"]
    assert "L=[1]\n" in result.data["stdout"]
    assert "NONE" not in result.data["stdout"]


# ── configs that cannot be used ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"command": "true", "cwd": "/no/such"}, "'cwd' '/no/such' is no directory of this worker"),
        ({"command": "true", "shell": "zzsh"}, "there is no 'zzsh' on this worker; choose another 'shell'"),
    ],
)
async def test_broken_config_is_refused_with_its_reason(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await warm.run("shell", config)
    assert str(caught.value) == f"shell: {message}"


# ── how commands end ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("command", "exit_code", "message"),
    [
        ("exit 7", 7, "Command exited with code 7"),
        ("no-such-program", 127, "Command exited with code 127 (command not found)"),
        ("touch f; ./f", 126, "Command exited with code 126 (found, but cannot be run)"),
        (
            "sh -c 'kill -9 $$'; exit $?",
            137,
            "Command exited with code 137 (a program in it was killed by SIGKILL)",
        ),
        ("kill -9 $$", -9, "Command was killed by SIGKILL (out of memory?)"),
        ("kill -SEGV $$", -11, "Command was killed by SIGSEGV"),
        ("exit 255", 255, "Command exited with code 255"),
    ],
)
async def test_exit_codes_and_signals_are_named(command: str, exit_code: int, message: str) -> None:
    result = await shell(command)
    assert (result.exit_code, result.error.message, result.error.code) == (exit_code, message, str(exit_code))


def test_kernels_kill_for_memory_is_told_as_such(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 0\n")
    tool = ShellTool(PythonRunner(memory_events=events))
    result = run_tool(tool, {"command": f"echo oom_kill 1 > {events}; kill -9 $$"})
    assert (result.error.message, result.error.code) == ("Command was killed: out of memory", "out_of_memory")


@pytest.mark.parametrize(
    ("command", "config", "stdout"),
    [
        ("cat; echo end", {}, "end\n"),
        (r"printf 'a\r\nb'", {}, "a\r\nb"),
        (f": '{'x' * 200_000}'\necho \"$#\" done", {}, "0 done\n"),
        ("[[ a == a ]] && echo yes", {"shell": "bash"}, "yes\n"),
        ("echo $0", {}, "sh\n"),
    ],
    ids=["empty standard input", "no newline", "longer than an argument may be", "another shell", "what images have"],
)
async def test_command_prints(command: str, config: dict[str, Any], stdout: str) -> None:
    assert (await shell(command, **config)).stdout == stdout


async def test_notes_tell_what_was_left_out() -> None:
    assert (await shell("seq 1 10000", max_output_bytes=1000)).data["notes"] == [
        "stdout: 47894 bytes left out of the middle"
    ]


async def test_output_is_thrown_away_when_it_is_not_wanted() -> None:
    data = (await shell("seq 1 100000; echo err >&2", capture=False)).data
    assert (data["stdout"], data["stderr"], "notes" in data) == ("", "", False)


# ── what it costs ───────────────────────────────────────────────────────────────────────────────


@linux_only
async def test_hundred_parallel_commands_hold_no_thread_each(tmp_path: Path) -> None:
    await shell("true")
    before = threads()
    os.mkfifo(gate := tmp_path / "go")
    opener = os.open(gate, os.O_RDWR)
    command = f"echo x >> {tmp_path}/running; read go < {gate}"
    calls = [asyncio.ensure_future(shell(command)) for _ in range(100)]
    running = tmp_path / "running"
    while not running.exists() or running.read_bytes().count(b"x") < 100:
        await asyncio.sleep(0.01)
    more = threads() - before
    os.write(opener, b"\n" * 100)
    results = await asyncio.gather(*calls)
    os.close(opener)
    assert more <= 0  # fewer where a thread of an earlier test has ended
    assert sum(result.exit_code == 0 for result in results) == 100


def threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


async def test_list_of_commands_shares_one_limit() -> None:
    result = await warm.run("shell", {"cmds": ["head -c 50000 /dev/zero | tr '\\0' x"] * 5, "max_output_bytes": 60_000})
    assert len(result.stdout) < 60_000 + 4 * 4096 + 5 * 50
