"""Kind `shell`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import arun_tool, tool_context
from noetl_worker.tools.registry import Registry

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_data_has_both_workers_keys(run: Run) -> None:
    result = run(arun_tool("shell", {"command": "echo {{ word }} && echo warn >&2"}, variables={"word": "hello"}))
    assert result.status is ToolStatus.SUCCESS
    duration_ms = result.data.pop("duration_ms")
    assert isinstance(duration_ms, int)
    assert result.data == {"exit_code": 0, "returncode": 0, "stdout": "hello\n", "stderr": "warn\n"}
    assert (result.exit_code, result.stdout, result.stderr) == (0, "hello\n", "warn\n")


def test_exit_code_is_a_failure_with_the_data_kept(run: Run) -> None:
    result = run(arun_tool("shell", {"command": "echo out; exit 3"}))
    assert result.status is ToolStatus.ERROR
    assert result.error.message == "Command exited with code 3"
    assert (result.error.kind, result.error.code) == ("process", "3")
    assert result.data["stdout"] == "out\n"


def test_list_stops_at_the_first_command_that_fails(run: Run) -> None:
    result = run(arun_tool("shell", {"cmds": ["echo a", "echo b; exit 4", "echo c"]}))
    assert result.data["returncode"] == 4
    assert result.data["stdout"] == "a\nb\n"
    assert [one["cmd_preview"] for one in result.data["commands"]] == ["echo a", "echo b; exit 4"]
    assert [one["returncode"] for one in result.data["commands"]] == [0, 4]


def test_timeout_keeps_what_was_printed(run: Run) -> None:
    result = run(arun_tool("shell", {"command": "echo before; sleep 60", "timeout_seconds": 0.2}))
    assert result.status is ToolStatus.TIMEOUT
    assert result.error.message == "Execution timed out after 0.2 seconds"
    assert result.error.retryable
    assert result.data["stdout"] == "before\n"


def test_commands_own_timeout_bounds_the_tool(run: Run) -> None:
    result = run(arun_tool("shell", {"command": "sleep 60", "timeout": 50}, timeout_s=0.2))
    assert result.status is ToolStatus.TIMEOUT


def test_timeout_covers_all_commands_of_a_list(run: Run) -> None:
    result = run(arun_tool("shell", {"cmds": ["sleep 0.2", "sleep 60"], "timeout": 0.4}))
    assert result.status is ToolStatus.TIMEOUT
    assert len(result.data["commands"]) == 2


def test_directory_is_empty_own_and_removed(run: Run) -> None:
    result = run(arun_tool("shell", {"command": 'pwd; ls -A; touch left; mkdir d; test "$TMPDIR" = "$PWD"'}))
    assert result.exit_code == 0
    (directory,) = result.data["stdout"].splitlines()
    assert not Path(directory).exists()


def test_given_directory_is_used_and_kept(run: Run, tmp_path: Path) -> None:
    result = run(arun_tool("shell", {"command": "pwd; echo x > made", "cwd": str(tmp_path)}))
    assert result.data["stdout"] == f"{tmp_path}\n"
    assert (tmp_path / "made").read_text() == "x\n"


def test_environment_is_scrubbed_and_extended(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_PASSWORD", "hunter2")
    result = run(arun_tool("shell", {"command": "env", "env": {"SAMPLE": "x y", "NUMBER": 5}}))
    assert "hunter2" not in result.data["stdout"]
    assert "SAMPLE=x y\n" in result.data["stdout"]
    assert "NUMBER=5\n" in result.data["stdout"]


def test_empty_command_is_refused(run: Run) -> None:
    for config in ({"command": "  "}, {"cmds": []}):
        with pytest.raises(ConfigurationError, match="'command' is empty"):
            run(arun_tool("shell", config))


def test_shell_can_be_chosen(run: Run) -> None:
    assert run(arun_tool("shell", {"command": "[[ a == a ]] && echo yes", "shell": "bash"})).data["stdout"] == "yes\n"


def test_notes_tell_what_was_left_out(run: Run) -> None:
    result = run(arun_tool("shell", {"command": "seq 1 10000", "max_output_bytes": 1000}))
    assert result.data["notes"] == ["stdout: 47894 bytes left out of the middle"]


def test_hundred_commands_at_once_keep_to_themselves(run: Run) -> None:
    async def scenario() -> list[str]:
        registry = Registry(plugins=False)
        contexts = [tool_context(registry=registry, variables={"n": number}) for number in range(100)]
        config = {"command": "echo {{ n }} > file; cat file"}
        results = await asyncio.gather(*(registry.run_tool("shell", config, context) for context in contexts))
        return [result.data["stdout"].strip() for result in results]

    assert run(scenario()) == [str(number) for number in range(100)]
