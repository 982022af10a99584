"""Kind `python`: user code in a process of its own (tools.md 2.4).

The value is, in this order: what a top-level `return` gives, the global `result`, what `main()` returns. With none
of them the data is {"stdout", "stderr"}, as in the Rust worker.

differs-from-upstream: the Python worker runs the code inside itself; there a `print` is lost, a loop never ends
and `os._exit` ends the worker.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import unquote, urlsplit

from noetl_worker.errors import ConfigurationError
from noetl_worker.models import JsonValue, ToolFailure, ToolResult, ToolStatus
from noetl_worker.tools import process
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import time_left
from noetl_worker.tools.python_runner import PythonRun, PythonRunner

__all__ = ["PythonConfig", "PythonTool"]

_READS_CONTEXT: Final = re.compile(r"\b(variables|context|main|globals)\b")


@dataclass(frozen=True, slots=True)
class PythonConfig:
    """Code from `script`, `code_b64` or `code`, in this order; what it finds and where it runs.

    `script`: a path, a file:// address, source text, or {"uri": ...} / {"source": {"type": "inline", "code": ...}}.
    `input`: each key is a global of the code, all of them are `args` and `input_data`.
    `libs`: global name -> module, or a list of modules. `timeout` in seconds. `python`: another interpreter.
    """

    code: str | None = None
    code_b64: str | None = None
    script: str | dict[str, Any] | None = None
    input: dict[str, Any] = field(default_factory=dict)
    libs: dict[str, str] | list[str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    python: str | None = None
    timeout: float | None = None
    max_output_bytes: int = process.MAX_OUTPUT_BYTES


class PythonTool:
    kind: ClassVar[str] = "python"
    aliases: ClassVar[tuple[str, ...]] = ()
    config_model: ClassVar[type] = PythonConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"code_base64": "code_b64"}
    raw_fields: ClassVar[frozenset[str]] = frozenset()
    side_effecting: ClassVar[bool] = True

    def __init__(self, runner: PythonRunner | None = None) -> None:
        self._runner = runner or PythonRunner()

    async def run(self, config: PythonConfig, context: ToolContext) -> ToolResult:
        code = _source(config)
        given = {**context.input, **config.input}
        timeout_s = time_left(config.timeout, context)
        async with process.scratch_directory() as scratch:
            request: dict[str, JsonValue] = {
                "code": code,
                "input": given,
                "libs": config.libs if isinstance(config.libs, dict) else {name: name for name in config.libs},
                "execution_id": str(context.execution_id),
                "step": context.step,
                "env": {**process.base_environment(), "TMPDIR": scratch, **_python_path(config.env), **config.env},
                "cwd": config.cwd or scratch,
                # A plane's render context can be megabytes: it travels only to code that can look at it.
                "variables": dict(context.variables) if _READS_CONTEXT.search(code) else {},
            }
            run = await self._runner.run(
                request,
                interpreter=config.python or sys.executable,
                timeout_s=timeout_s,
                max_output_bytes=config.max_output_bytes,
            )
        return _result(run, timeout_s)

    async def aclose(self) -> None:
        await self._runner.aclose()


def _python_path(env: Mapping[str, str]) -> dict[str, str]:
    """The worker's own PYTHONPATH, where operators put the modules of their playbooks."""
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": inherited} if inherited and "PYTHONPATH" not in env else {}


def _result(run: PythonRun, timeout_s: float | None) -> ToolResult:
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
        timed_out = ToolResult.timed_out(timeout_s or 0.0)
        return ToolResult(status=timed_out.status, data=data, error=timed_out.error, **output)
    if "error" in answer:
        error = ToolFailure(answer["error"]["message"], kind="python", code=answer["error"]["type"])
    elif run.exit_code != 0:
        error = ToolFailure(f"Python code {process.exit_text(run.exit_code)}", kind="python", code=str(run.exit_code))
    else:
        return ToolResult.success(data, **output)
    return ToolResult(status=ToolStatus.ERROR, data=data, error=error, **output)


# ── where the code comes from ───────────────────────────────────────────────────────────────────


def _source(config: PythonConfig) -> str:
    """The text to run; ConfigurationError when there is none or it cannot be read."""
    if config.script is not None:
        code = _from_script(config.script)
    elif config.code_b64 is not None:
        code = _from_base64(config.code_b64)
    else:
        code = config.code or ""
    if not code.strip():
        raise ConfigurationError("python: no code; give 'code', 'script' or 'code_b64'")
    return code


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ConfigurationError(f"python: 'code_b64' is not base64 of UTF-8 text: {error}") from error


def _from_script(script: str | Mapping[str, Any]) -> str:
    if isinstance(script, str):
        return script if _is_source(script) else _from_file(script)
    source = script.get("source")
    if isinstance(source, Mapping) and isinstance(source.get("code"), str):
        return str(source["code"])
    uri = script.get("uri") or (source.get("uri") if isinstance(source, Mapping) else source)
    if not isinstance(uri, str):
        raise ConfigurationError("python: 'script' needs 'uri', or 'source' with 'code'")
    return _from_file(uri)


def _is_source(script: str) -> bool:
    """Source text, not the name of a file: several lines, or something no path of ours looks like."""
    text = script.strip()
    return "\n" in text or not (text.startswith(("file:", "/", "./", "../")) or text.endswith(".py") or "://" in text)


def _from_file(uri: str) -> str:
    parts = urlsplit(uri.strip())
    if parts.scheme not in ("", "file"):
        raise ConfigurationError(f"python: script address {uri!r}: only files can be read (file:///path or a path)")
    path = unquote(parts.path) if parts.scheme else uri.strip()
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"python: script {uri!r} cannot be read: {error}") from error
