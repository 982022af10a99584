"""Kind `python`: runs user code in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models.fit import LESS_ADVICE
from noetl_worker.models.tool_result import ToolFailure, ToolResult, ToolStatus
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.credential_variables import Granted, check_auth, granted
from noetl_worker.tools.fields import check_numbers, text_of_base64
from noetl_worker.tools.process import process
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.process.own_frames import without_own_frames
from noetl_worker.tools.python.interpreter import allowed
from noetl_worker.tools.python.python_answer import AnswerTooLong
from noetl_worker.tools.python.python_runner import PythonRunner
from noetl_worker.tools.sources.script_address import check_script
from noetl_worker.tools.sources.sources import Sources

if TYPE_CHECKING:  # loaded by the first step that needs them
    from noetl_worker.tools.kinds.python.packages.environments import PackageEnvironments
    from noetl_worker.tools.kinds.python.packages.wanted import WantedPackages
    from noetl_worker.tools.python.other_interpreters import OtherInterpreters

_READS_CONTEXT: Final = re.compile(r"\b(variables|context|main|globals)\b")
_BLOCK: Final = "# /// script"
"""First line of a PEP 723 block: comments in the code that list the packages of the code."""
_LEAST_MEMORY_MB: Final = 32
_NO_CODE: Final = "no code; give 'code', 'script' or 'code_b64'"
_NO_RESULT: Final = {"status": "success", "message": "Code executed without explicit result variable"}
"""Data that a step returns if its code has no result, the same as NoETL's own Python worker returns."""
_NO_ANSWER: Final = (
    "Python code ended with code 0 but without a result that can be read: its process was ended from inside "
    "(os._exit), or something else wrote to its socket; let the code run to its end, or use sys.exit(0)"
)


@dataclass(frozen=True, slots=True)
class PythonConfig:
    """Runs Python code in a process of its own, with an empty directory and a scrubbed environment.

    The code finds each key of `input` as a global, and the whole input as `args` and `input_data`. It also finds
    `context`, `variables`, `execution_id`, `step`, `auth`, the modules `json`, `os`, `uuid`, `datetime`, and `get_val`,
    `deep_merge`, `now_utc`, `format_iso8601`, `make_serializable` as in NoETL's own Python worker. On the Python plane,
    a text in `input` is parsed if the text is an object or a list. The text may be JSON, or a value as Python prints
    it. Any other text loses its last line break, as with NoETL's own Python worker.

    Result: the value of a top-level `return`, else the global `result`, else the return value of `main()`. Code without
    a result gives `{stdout, stderr}`, and on the Python plane also `status` (`success`) and a `message`. `main()` may
    be `async def`, and gets its parameters by name. `main()` runs once, even if `if __name__ == "__main__":` calls
    `main()`. On the Python plane `main()` comes before `result`, unless the code itself calls `main()`. Values without
    a JSON form are converted: NaN, infinities and NaT to null; Decimal, UUID and ints beyond 64 bits to text; dates to
    ISO 8601, numpy's dates in their own unit; bytes to base64; sets to sorted lists; numpy and pandas to numbers and
    lists (a frame: its rows); dataclasses to objects; keys to text as in `json.dumps`; any other value to its `str()`.
    `stdout`, `stderr` and `exit_code` are beside the data. An exception is an error of kind python, with the
    exception's type as the code. The traceback is in stderr, from the code's first line on. A timeout keeps the output
    and adds a traceback of the running code.

    differs-from-upstream: NoETL's Python worker runs the code inside the worker's process. There a `print` is lost,
    an endless loop never ends, and `os._exit` ends the worker.
    """

    code: str | None = None
    """The Python code to run."""
    code_b64: str | None = None
    """The code as base64 of UTF-8 text, instead of `code`."""
    script: str | dict[str, Any] | None = None
    """Source of the code, instead of `code`: a path, a file://, http(s)://, gs:// or s3:// address, source text, or
    {"uri", "source": {"type": inline | file | http | gcs | s3, "code", "auth", "endpoint", "headers", "method",
    "region", "timeout"}}. An http `endpoint` is the address of the code. If `endpoint` ends in `/`, `uri` is the path
    below `endpoint`."""
    input: dict[str, Any] = field(default_factory=dict)
    """Values for the code; they win over the step's own input."""
    libs: dict[str, Any] | list[str] = field(default_factory=dict)
    """Modules to import: global name -> module, or -> {"from": module, "import": name}; or a list of modules."""
    deps: dict[str, Any] | None = None
    """Modules and packages for the code: {"sys_path": [directories to import from], "venv_path": a virtual environment
    to run in (see `python`), "packages": [requirements such as "pandas==2.2.*"], "python": the version that the
    packages need, such as "3.12"}. A PEP 723 block of the code (`# /// script`) names packages too.
    `NOETL_WORKER_PYTHON_PACKAGES` says whether the worker installs packages."""
    auth: str | dict[str, Any] | None = None
    """Credentials for the code: an alias, an object {"key": alias, "service": "postgres"}, or several of them as
    {NAME: alias or object} with any names. The code gets the credentials in the global `auth`, and as environment
    variables. The `service` (absent: the credential's type) decides which variables the worker sets:
    GOOGLE_APPLICATION_CREDENTIALS, AWS_*, AZURE_* or PG*. With `NOETL_WORKER_ISOLATION=basic` a Google key and a
    Postgres password (PGPASSFILE) are open files without a path in any directory. A program started by the code gets
    these files with `subprocess.run(..., pass_fds=auth_fds)`."""
    env: dict[str, Any] = field(default_factory=dict)
    """Environment variables for the code, besides the worker's PATH, HOME, LANG, LC_*, TZ, USER and PYTHONPATH. A
    variable with the value null is left out."""
    cwd: str | None = None
    """Working directory; absent: an empty directory, whose content is removed afterwards."""
    python: str | None = None
    """Path of another interpreter, CPython 3.9 or newer; absent: the worker's own. The worker keeps its own interpreter
    ready, and up to four others. Only root or the owner of the worker's environment may have write access to such an
    interpreter. An interpreter that is not kept ready starts anew for each command (some 0.1 s). With
    `NOETL_WORKER_ISOLATION=basic`, `NOETL_WORKER_PYTHONS` must name the interpreter."""
    timeout: float | None = None
    """Maximum run time of the code in seconds; absent: the command's remaining time."""
    memory_mb: int | None = None
    """Maximum MiB of data memory of the code. Code that needs more gets a MemoryError. Linux only; absent: only the
    machine's limit."""
    max_output_bytes: int = process.MAX_OUTPUT_BYTES
    """Maximum bytes kept of stdout and of stderr each, 4 MiB by default. A longer output loses its middle: half of the
    maximum is kept from the beginning, half from the end."""

    def __post_init__(self) -> None:
        check_numbers(_LEAST_MEMORY_MB, memory_mb=self.memory_mb)
        check_numbers(1, max_output_bytes=self.max_output_bytes)
        process.environment_text(self.env)
        written = check_script(self.source)
        if written is not None and not written.strip():
            raise ConfigurationError(_NO_CODE, field="code", tool="python", reason="missing")
        check_auth(self.auth)
        _libs(self.libs)
        paths = (self.deps or {}).get("sys_path")
        if not isinstance(paths, (str, list, type(None))):
            raise ConfigurationError(
                f"deps: 'sys_path' must be a directory or a list of them, not {type(paths).__name__}",
                field="deps.sys_path",
            )
        unknown = sorted(set(self.deps or {}) - {"sys_path", "venv_path", "packages", "python"})
        if unknown:
            raise ConfigurationError(
                f"deps: {unknown[0]!r} is not supported; give 'packages', 'venv_path' or 'sys_path'",
                field=f"deps.{unknown[0]}",
            )
        if self.deps or _BLOCK in (written or ""):
            self.packages(written or "")

    def packages(self, code: str) -> WantedPackages | None:
        """Return the packages that `deps` or `code` asks for, or None without packages. Raises ConfigurationError for
        an invalid requirement."""
        if _BLOCK in code or {"packages", "python"} & (self.deps or {}).keys():
            from noetl_worker.tools.kinds.python.packages.wanted import wanted_packages

            return wanted_packages(self.deps or {}, code)
        return None

    @property
    def source(self) -> str | dict[str, Any]:
        """Return where the code comes from, as an object like the field `script`. For a step that gives `code` or
        `code_b64`, the object has this code."""
        if self.script is not None:
            return self.script
        text = (self.code or "") if self.code_b64 is None else text_of_base64("code_b64", self.code_b64)
        return {"source": {"code": text}}


class PythonTool:
    kind: ClassVar[str] = "python"
    config_model: ClassVar[type] = PythonConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"code_base64": "code_b64"}
    requires: ClassVar[Mapping[str, str]] = {"botocore": "noetl-worker[aws] for s3:// scripts"}
    is_confined: ClassVar[bool] = True

    def __init__(self, runner: PythonRunner | None = None, *, confinement: Confinement = UNCONFINED) -> None:
        self._runner = runner or PythonRunner(confinement=confinement)
        self._environment = process.base_environment()
        if inherited := os.environ.get("PYTHONPATH"):  # where operators put the modules of their playbooks
            self._environment["PYTHONPATH"] = inherited
        self._confinement = confinement
        self._by_descriptor = confinement.is_on and hasattr(os, "memfd_create")
        self._sources = Sources()
        self._packages: PackageEnvironments | None = None
        self._interpreters: OtherInterpreters | None = None

    async def run(self, config: PythonConfig, context: ToolContext) -> ToolResult:
        code = await self._sources.of_script(config.source, context)
        if not code.strip():
            raise ConfigurationError(_NO_CODE, field="code", tool="python", reason="missing")
        started, wanted = time.monotonic(), config.packages(code)
        timeout_s = context.timeout_s
        async with AsyncExitStack() as directories:
            if wanted is None:
                interpreter = _interpreter(config, context.settings, is_confined=self._confinement.is_on)
            else:
                deadline = None if timeout_s is None else started + timeout_s
                kept = self._environments().environment(wanted, config.python, context, deadline)
                interpreter = await directories.enter_async_context(kept)
                timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            rights = await granted(config.auth, context, by_descriptor=self._by_descriptor)
            if rights.files and not self._by_descriptor:
                rights.write_files(await directories.enter_async_context(self._runner.scratch.directory()))
            scratch = await directories.enter_async_context(self._runner.scratch.directory())
            request = self._request(config, context, code, scratch, rights)
            try:
                run = await self._run_in(interpreter)(
                    request, timeout_s=timeout_s, max_output_bytes=config.max_output_bytes
                )
            except AnswerTooLong as error:
                text = f"the result of the Python code is {error} (step {context.command.step!r}): {LESS_ADVICE}"
                raise ToolError(text, kind="python") from error
        return _result(run, config, context)

    async def prefetch(self, config: PythonConfig, context: ToolContext) -> tuple[str, ...]:
        """Install the packages of a step without running the step. Return the step's requirements, or () if the step
        asks for no packages."""
        wanted = config.packages(await self._sources.of_script(config.source, context))
        if wanted is None:
            return ()
        async with self._environments().environment(wanted, config.python, context, None):
            return wanted.shown

    def warm_up(self) -> None:
        self._runner.warm_up()

    async def aclose(self) -> None:
        """End the template processes, from which the code's processes are forked, and close the HTTP connections for
        fetching scripts."""
        if self._interpreters is not None:
            self._interpreters.end()
        await self._runner.aclose()
        await self._sources.aclose()

    def _run_in(self, interpreter: str) -> Callable[..., Awaitable[process.Finished]]:
        """Return the function that runs code in this interpreter."""
        if interpreter == sys.executable:
            return self._runner.run
        if self._interpreters is None:
            from noetl_worker.tools.python.other_interpreters import OtherInterpreters

            self._interpreters = OtherInterpreters(self._runner)
        return partial(self._interpreters.run, interpreter)

    def _environments(self) -> PackageEnvironments:
        if self._packages is None:
            from noetl_worker.tools.kinds.python.packages.environments import PackageEnvironments

            self._packages = PackageEnvironments(self._runner, self._confinement)
        return self._packages

    def _request(
        self, config: PythonConfig, context: ToolContext, code: str, scratch: str, rights: Granted
    ) -> dict[str, JsonValue]:
        own = {**context.worker.trace_environment(), **process.environment_text(config.env)}
        sys_path = (config.deps or {}).get("sys_path") or []
        return {
            "code": code,
            "input": {**context.values.input, **config.input},
            "libs": _libs(config.libs),
            "execution_id": str(context.command.execution_id),
            "step": context.command.step,
            "env": {**self._environment, "TMPDIR": scratch, **rights.env, **own},
            "cwd": process.directory("python", config.cwd) or scratch,
            "sys_path": [sys_path] if isinstance(sys_path, str) else [str(entry) for entry in sys_path],
            "auth": rights.data,
            "secret_files": {name: text for name, text in rights.files.items() if name not in own},
            "main_first": context.command.form.main_first,
            "reads_input_again": context.command.form.reads_input_again,
            "memory_mb": config.memory_mb,
            # A plane's render context can be megabytes, so it is sent only to code that may read it.
            "variables": dict(context.values.variables) if _READS_CONTEXT.search(code) else {},
        }


def _libs(libs: dict[str, Any] | list[str]) -> dict[str, JsonValue]:
    """Return the field `libs` in one format: global name -> [module] or [module, attribute]. Raises ConfigurationError
    for any other value."""
    named: dict[str, JsonValue] = {}
    for name, module in ({lib: lib for lib in libs} if isinstance(libs, list) else libs).items():
        if isinstance(module, str) and module:
            named[name] = [module]
        elif isinstance(module, Mapping) and module.get("from") and module.get("import"):
            named[name] = [str(module["from"]), str(module["import"])]
        else:
            raise ConfigurationError(
                f"libs: {name!r} must be the name of a module, or {{from: module, import: name}}, not {module!r}",
                field=f"libs.{name}",
                tool="python",
            )
    return named


def _interpreter(config: PythonConfig, settings: ToolSettings, *, is_confined: bool) -> str:
    interpreter, environment = config.python, (config.deps or {}).get("venv_path")
    if environment and not interpreter:
        interpreter = str(Path(str(environment), "bin", "python"))
        if not os.access(interpreter, os.X_OK):
            raise ConfigurationError(
                f"python: deps: 'venv_path' is {environment!r}, which has no bin/python on this worker: name another"
            )
    return allowed(interpreter, settings, is_confined=is_confined) if interpreter else sys.executable


def _result(run: process.Finished, config: PythonConfig, context: ToolContext) -> ToolResult:
    output: dict[str, Any] = {
        "stdout": run.stdout,
        "stderr": run.stderr,
        "exit_code": run.exit_code,
        "duration_ms": run.duration_ms,
    }
    answer = run.answer or {}
    if "result" in answer and not run.timed_out:
        return ToolResult.success(answer["result"], **output)
    data: dict[str, JsonValue] = {"stdout": run.stdout, "stderr": run.stderr}
    if run.notes:
        data["notes"] = list(run.notes)
    if run.timed_out:
        output["stderr"] = data["stderr"] = without_own_frames(run.stderr)
        return ToolResult.timed_out(context.timeout_s or 0.0, data=data, **output)
    error = _failure(run, config)
    if error is None:
        says_it = context.command.form.says_no_result and not answer.get("leaves_none")
        return ToolResult.success({**_NO_RESULT, **data} if says_it else data, **output)
    return ToolResult(status=ToolStatus.ERROR, data=data, error=error, **output)


def _failure(run: process.Finished, config: PythonConfig) -> ToolFailure | None:
    error = (run.answer or {}).get("error")
    if isinstance(error, Mapping) and error.keys() >= {"message", "type"}:
        message, code = str(error["message"]), str(error["type"])
        if code == "MemoryError" and config.memory_mb is not None:
            message += f" (memory_mb={config.memory_mb})"
        return ToolFailure(message, kind="python", code=code)
    if run.exit_code == 0:
        return None if run.answer is not None and error is None else ToolFailure(_NO_ANSWER, kind="process", code="0")
    if run.exit_code == -signal.SIGKILL and run.has_met_oom:
        return ToolFailure("Python code was killed: out of memory", kind="process", code="out_of_memory")
    text, died = f"Python code {process.exit_text(run.exit_code)}", run.exit_code < 0
    return ToolFailure(text, kind="process", retryable=died, code=str(run.exit_code))
