"""Kind `shell`: commands through a shell, in their own process group (tools.md 2.1)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from noetl_worker.errors import ConfigurationError
from noetl_worker.models import JsonValue, ToolFailure, ToolResult, ToolStatus
from noetl_worker.tools import process
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import time_left

__all__ = ["ShellConfig", "ShellTool"]

_PREVIEW: int = 200


@dataclass(frozen=True, slots=True)
class ShellConfig:
    """`command` is one text or a list; a list runs in order and stops at the first that does not exit with 0.

    `cwd` is used as it is; without it the commands run in an empty directory that is removed afterwards.
    `env` comes on top of `process.base_environment`. `timeout` is in seconds, for all commands together.
    """

    command: str | list[str]
    shell: str = "sh"
    cwd: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    timeout: float | None = None
    capture: bool = True
    """False: the output is thrown away (upstream: it goes to the worker's own, mixed with its log)."""
    max_output_bytes: int = process.MAX_OUTPUT_BYTES


class ShellTool:
    kind: ClassVar[str] = "shell"
    aliases: ClassVar[tuple[str, ...]] = ()
    config_model: ClassVar[type] = ShellConfig
    field_aliases: ClassVar[Mapping[str, str]] = {}
    raw_fields: ClassVar[frozenset[str]] = frozenset()
    side_effecting: ClassVar[bool] = True

    async def run(self, config: ShellConfig, context: ToolContext) -> ToolResult:
        commands = [config.command] if isinstance(config.command, str) else config.command
        if not commands or not all(command.strip() for command in commands):
            raise ConfigurationError("shell: 'command' is empty")
        timeout_s = time_left(config.timeout, context)
        async with process.scratch_directory() as scratch:
            env = {**process.base_environment(), "TMPDIR": scratch, **config.env}
            runs = await _run_in_order(commands, config, env, config.cwd or scratch, timeout_s)
        return _result(commands, runs, is_list=not isinstance(config.command, str), config=config, timeout_s=timeout_s)


async def _run_in_order(
    commands: list[str], config: ShellConfig, env: Mapping[str, str], cwd: str, timeout_s: float | None
) -> list[process.Finished]:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    runs: list[process.Finished] = []
    for command in commands:
        finished = await process.run_process(
            [config.shell, "-c", command],
            env=env,
            cwd=cwd,
            timeout_s=None if deadline is None else max(0.0, deadline - time.monotonic()),
            max_output_bytes=config.max_output_bytes,
        )
        runs.append(finished)
        if finished.timed_out or finished.exit_code != 0:
            break
    return runs


def _result(
    commands: list[str], runs: list[process.Finished], *, is_list: bool, config: ShellConfig, timeout_s: float | None
) -> ToolResult:
    """Data in both workers' forms: `exit_code` (Rust), `returncode`, `duration_ms` and `commands` (Python)."""
    last = runs[-1]
    stdout = "".join(run.stdout for run in runs) if config.capture else ""
    stderr = "".join(run.stderr for run in runs) if config.capture else ""
    duration_ms = sum(run.duration_ms for run in runs)
    data: dict[str, JsonValue] = {
        "exit_code": last.exit_code,
        "returncode": last.exit_code,
        "stdout": stdout,
        "stderr": stderr,
        "duration_ms": duration_ms,
    }
    if is_list:
        data["commands"] = [_one(command, run, config.capture) for command, run in zip(commands, runs, strict=False)]
    notes = [note for run in runs for note in run.notes]
    if notes:
        data["notes"] = notes
    error: ToolFailure | None = None
    status = ToolStatus.SUCCESS
    if last.timed_out:
        timed_out = ToolResult.timed_out(timeout_s or 0.0)
        status, error = timed_out.status, timed_out.error
    elif last.exit_code != 0:
        status = ToolStatus.ERROR
        error = ToolFailure(f"Command {process.exit_text(last.exit_code)}", kind="process", code=str(last.exit_code))
    return ToolResult(
        status=status,
        data=data,
        error=error,
        stdout=stdout,
        stderr=stderr,
        exit_code=last.exit_code,
        duration_ms=duration_ms,
    )


def _one(command: str, run: process.Finished, captured: bool) -> dict[str, JsonValue]:
    return {
        "cmd_preview": command[:_PREVIEW],
        "returncode": run.exit_code,
        "stdout": run.stdout if captured else "",
        "stderr": run.stderr if captured else "",
        "duration_ms": run.duration_ms,
    }
