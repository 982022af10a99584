"""Kind `shell`: runs commands through a shell, in their own process group."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError, ResourceShortage
from noetl_worker.models.tool_result import ToolFailure, ToolResult, ToolStatus
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext, ToolForm
from noetl_worker.tools.fields import check_numbers, excerpt
from noetl_worker.tools.process import process
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.python.python_runner import PythonRunner

_PREVIEW: Final = 200
_LONGEST_ARGUMENT: Final = 100_000
"""Maximum bytes of a command that is passed as an argument (Linux allows 128 KiB); a longer command is passed in a
file."""
_LEAST_OUTPUT: Final = 4096
"""Minimum bytes kept of the output of each command in a list, even if earlier commands printed a lot."""
_CODES: Final = {126: "found, but cannot be run", 127: "command not found"}


@dataclass(frozen=True, slots=True)
class ShellConfig:
    """Runs commands through a shell: in a process group of their own, with an empty standard input, an empty directory
    and a scrubbed environment.

    Result: on the Rust plane `{exit_code, stdout, stderr}`. A list of commands adds `commands`, with
    `{cmd_preview, returncode, stdout, stderr, duration_ms}` for each command that ran. On the Python plane it is
    `{returncode, stdout, stderr, commands, duration_ms}`; a line break separates the outputs of a list. Both results
    are the same as from the plane's own worker. `notes` is added if the middle of an output was left out, or an output
    is not UTF-8 (unreadable bytes become U+FFFD).

    Control planes cannot store U+0000, so output with U+0000 (`find -print0`) fails the command: add
    `| tr '\\0' '\\n'`. An exit code other than 0 is an error of kind process with this code. The code is negative if a
    signal ended the command. After a timeout the worker sends SIGTERM to the process group, and SIGKILL 2 seconds
    later; the output so far is kept. When a command ends, the worker kills all processes left in the command's group.
    With `NOETL_WORKER_ISOLATION=basic` the worker also kills all other processes that the command started.
    """

    command: str | list[str]
    """Text of a command, or a list of commands, which run in order until a command does not exit with 0."""
    shell: str = "sh"
    """Name or path of the shell, which the worker runs as `<shell> -c <command>`."""
    cwd: str | None = None
    """Working directory; absent: an empty directory, whose content is removed afterwards."""
    env: dict[str, Any] = field(default_factory=dict)
    """Environment variables for the commands, besides the worker's PATH, HOME, LANG, LC_*, TZ and USER. A variable with
    the value null is left out."""
    timeout: float | None = None
    """Maximum run time in seconds, for all commands together; absent: the command's remaining time."""
    capture: bool = True
    """False: the worker throws the output away (upstream: the output goes into the worker's own log)."""
    max_output_bytes: int = process.MAX_OUTPUT_BYTES
    """Maximum bytes kept of stdout, and as many of stderr, for the whole list in `command`; 4 MiB by default. A longer
    output loses its middle: half of the maximum is kept from the beginning, half from the end."""

    def __post_init__(self) -> None:
        check_numbers(1, max_output_bytes=self.max_output_bytes)
        if not self.commands or not all(command.strip() for command in self.commands):
            raise ConfigurationError("'command' is empty; write one", field="command")
        if any("\0" in command for command in self.commands):
            raise ConfigurationError("'command' has a NUL character; leave it out", field="command")
        process.environment_text(self.env)

    @property
    def commands(self) -> list[str]:
        return [self.command] if isinstance(self.command, str) else self.command


class ShellTool:
    kind: ClassVar[str] = "shell"
    config_model: ClassVar[type] = ShellConfig
    is_confined: ClassVar[bool] = True

    def __init__(self, runner: PythonRunner | None = None, *, confinement: Confinement = UNCONFINED) -> None:
        self._runner = runner or PythonRunner(confinement=confinement)
        self._environment = process.base_environment()
        self._programs: dict[str, str] = {}
        """Name of a shell -> the shell's path, for shells in the worker's own PATH."""

    async def run(self, config: ShellConfig, context: ToolContext) -> ToolResult:
        process.directory("shell", config.cwd)
        async with self._runner.scratch.directory() as scratch:
            own = {**context.worker.trace_environment(), **process.environment_text(config.env)}
            env = {**self._environment, "TMPDIR": scratch, **own}
            runs = await self._run_in_order(config, env, scratch, context.timeout_s)
        return _result(runs, _data(runs, config, context.command.form), timeout_s=context.timeout_s)

    def _program(self, shell: str, path: str) -> str:
        """Return the path of the program `shell`. A shell found in the worker's own PATH is looked up only once."""
        is_own = path == self._environment["PATH"]
        known = self._programs.get(shell) if is_own else None
        if known is not None and os.access(known, os.X_OK):
            return known
        found = shutil.which(shell, path=path)
        if found is None:
            raise ConfigurationError(f"shell: there is no {shell!r} on this worker; choose another 'shell'")
        if is_own:
            self._programs[shell] = found
        return found

    async def _run_in_order(
        self, config: ShellConfig, env: Mapping[str, str], scratch: str, timeout_s: float | None
    ) -> list[process.Finished]:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        program, room = self._program(config.shell, env["PATH"]), config.max_output_bytes
        runs: list[process.Finished] = []
        for command in config.commands:
            try:
                finished = await self._runner.run_program(
                    program,
                    [config.shell, *_arguments(command, scratch)],
                    env=env,
                    cwd=config.cwd or scratch,
                    timeout_s=None if deadline is None else max(0.0, deadline - time.monotonic()),
                    max_output_bytes=max(room, min(_LEAST_OUTPUT, config.max_output_bytes)) if config.capture else 1,
                )
            except ResourceShortage as short:
                if runs:
                    raise short.after_an_effect() from short
                raise
            if not config.capture:
                finished = replace(finished, stdout="", stderr="", notes=())
            runs.append(finished)
            room -= max(len(finished.stdout), len(finished.stderr))
            if finished.timed_out or finished.exit_code != 0:
                break
        return runs

    async def aclose(self) -> None:
        """End the template process, from which the commands' processes are forked."""
        await self._runner.aclose()


def _arguments(command: str, scratch: str) -> list[str]:
    data = command.encode("utf-8", "surrogateescape")
    if len(data) <= _LONGEST_ARGUMENT:
        return ["-c", command]
    path = Path(scratch) / ".command"
    path.write_bytes(data)
    return [str(path)]


def _data(runs: list[process.Finished], config: ShellConfig, form: ToolForm) -> dict[str, JsonValue]:
    """Return the data of the step's result, with the field names that the plane's own worker uses."""
    between = "\n" if form.has_return_code else ""
    code = runs[-1].exit_code
    data: dict[str, JsonValue] = {"returncode": code} if form.has_return_code else {"exit_code": code}
    data["stdout"] = between.join(run.stdout for run in runs if run.stdout)
    data["stderr"] = between.join(run.stderr for run in runs if run.stderr)
    if form.has_return_code or not isinstance(config.command, str):
        data["commands"] = [_entry(command, run) for command, run in zip(config.commands, runs, strict=False)]
    if form.has_return_code:
        data["duration_ms"] = sum(run.duration_ms for run in runs)
    notes = [note for run in runs for note in run.notes]
    return {**data, "notes": notes} if notes else data


def _result(runs: list[process.Finished], data: dict[str, JsonValue], *, timeout_s: float | None) -> ToolResult:
    last = runs[-1]
    output: dict[str, Any] = {name: data[name] for name in ("stdout", "stderr")}
    output.update(exit_code=last.exit_code, duration_ms=sum(run.duration_ms for run in runs))
    if last.timed_out:
        return ToolResult.timed_out(timeout_s or 0.0, data=data, **output)
    if last.exit_code == 0:
        return ToolResult.success(data, **output)
    return ToolResult(ToolStatus.ERROR, data, _failure(last), **output)


def _failure(run: process.Finished) -> ToolFailure:
    """Return the failure for a command's exit code. The failure's text explains a shell's own codes: 126, 127, and 129
    or more (a signal ended a program)."""
    exit_code = run.exit_code
    if run.has_met_oom and exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return ToolFailure("Command was killed: out of memory", kind="process", code="out_of_memory")
    meaning = _CODES.get(exit_code, "")
    if 128 < exit_code <= 128 + signal.NSIG and exit_code - 128 in set(signal.Signals):
        meaning = f"a program in it was killed by {signal.Signals(exit_code - 128).name}"
    text = f"Command {process.exit_text(exit_code)}" + (f" ({meaning})" if meaning else "")
    return ToolFailure(text, kind="process", code=str(exit_code))


def _entry(command: str, run: process.Finished) -> dict[str, JsonValue]:
    return {
        "cmd_preview": excerpt(command, _PREVIEW),
        "returncode": run.exit_code,
        "stdout": run.stdout,
        "stderr": run.stderr,
        "duration_ms": run.duration_ms,
    }
