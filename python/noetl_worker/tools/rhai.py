"""Kind `rhai`: a script in the native build's interpreter.

One superset of the two published dialects (tools.md 6.3): `http_*` return maps with `status`, `body` and `error`,
`args` is a map and each of its members a variable too, values keep their JSON types.
differs-from-upstream: the published tool has no limits at all, allows `eval` and `import`, and ignores `timeout`.
"""

from __future__ import annotations

import asyncio
import importlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from noetl_worker import json_text
from noetl_worker.errors import ConfigurationError, DocumentError, ToolError
from noetl_worker.models import JsonValue, ToolResult
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.fields import excerpt, without_half_at_end
from noetl_worker.tools.http import egress
from noetl_worker.tools.process.shortage import raise_shortage

__all__ = ["RhaiConfig", "RhaiTool"]

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INSTALL: Final = (
    "kind rhai needs the native build of noetl-worker, which is not installed here: install a native wheel "
    "(`pip install --force-reinstall --only-binary noetl-worker noetl-worker`), or build one with Rust on PATH "
    "(`NOETL_WORKER_BUILD=rust pip install --no-cache-dir --no-binary noetl-worker noetl-worker`)"
)
_MAX_OUTPUT_BYTES: Final = 65_536
"""`MAX_OUTPUT_BYTES` of rust/rhai: there a line that does not fit is cut between two characters, and is the last."""
_LONGEST_CHARACTER: Final = 4
_PRINTED: Final = 500
"""Characters of what a script printed that its failure shows."""
_FAILURES: Final[Mapping[str, str]] = {"script": "execution", "limit": "resource", "cancelled": "cancelled"}


@dataclass(frozen=True, slots=True)
class RhaiConfig:
    """Runs a Rhai script in an interpreter inside the worker: no process, no files, no modules, limits on everything.

    The script sees each member of `input` as a variable, and the maps `args`, `vars` and `workload`. Its functions are
    `log`, `timestamp`, `sleep`, `parse_json`, `to_json`, `contains`, `contains_any`, `http_get`, `http_post`,
    `http_delete` (and the same with `_auth`), and Rhai's standard packages. Needs the native build of the worker.
    """

    code: str
    """The script; its last expression is the result."""
    input: Mapping[str, Any] = field(default_factory=dict)
    """Values for the script, with their JSON types: the map `args`, and a variable for each."""
    timeout: float | None = None
    """Seconds for the script; absent: what the command has left."""


class RhaiTool:
    """Runs in a thread without the GIL; ends at the deadline, or some 25 ms after a cancellation."""

    kind: ClassVar[str] = "rhai"
    aliases: ClassVar[tuple[str, ...]] = ()
    config_model: ClassVar[type] = RhaiConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"script": "code"}
    raw_fields: ClassVar[frozenset[str]] = frozenset()
    side_effecting: ClassVar[bool] = True  # it can call http_post
    native_feature: ClassVar[str] = "rhai"

    async def run(self, config: RhaiConfig, context: ToolContext) -> ToolResult:
        """Run the script.

        Returns:
            ToolResult: data is the value of the last expression, stdout what `print`, `log` and its like wrote; a
            timeout is a failure.

        Raises:
            ToolError: the script threw, or reached a limit; with the position in the script. As a result it would let
                the playbook go on as if nothing had happened on the Rust plane, where the published worker fails it.
            ConfigurationError: the script does not parse, or this install has no native build.
        """
        core = _native()
        stop = core.RhaiStop()
        limits = [limit for limit in (config.timeout, context.timeout_s) if limit is not None]
        timeout_s = min(limits, default=None)
        variables = json_text.dumps(_scope(config, context))
        started = time.monotonic()
        try:
            kind, value, message, output = await asyncio.to_thread(
                core.run_rhai, config.code, variables, timeout_s, stop, egress.refusal
            )
        except RuntimeError as error:  # before it has begun
            raise_shortage("no thread to be had for the script", error)
            raise
        finally:
            stop.set()  # a cancelled task leaves its thread behind: the script must not go on in it
        took: dict[str, Any] = {"duration_ms": int((time.monotonic() - started) * 1000)}
        if output:
            took["stdout"] = _without_half(output)
        if kind == "success":
            return ToolResult.success(_read(value), **took)
        if kind == "configuration":
            raise ConfigurationError(f"rhai: {message}")
        if kind == "timeout" and timeout_s is not None:
            return ToolResult.timed_out(timeout_s, **took)
        printed = f"; it had printed: {excerpt(output, _PRINTED)}" if output else ""
        raise ToolError(f"rhai: {message}{printed}", kind=_FAILURES[kind])


def _read(value: str) -> JsonValue:
    try:
        return json_text.loads_exact(value)
    except DocumentError as error:
        raise ToolError(f"rhai: the result is nested too deeply, or too large: {error}", kind="resource") from error


def _without_half(output: str) -> str:
    """A last line that was cut at the limit may end inside of a secret."""
    data = output.encode()
    if len(data) <= _MAX_OUTPUT_BYTES - _LONGEST_CHARACTER:
        return output
    return without_half_at_end(data.removesuffix(b"\n")).decode("utf-8", "replace") + "\n"


def _native() -> Any:
    try:
        core = importlib.import_module("noetl_worker._core")
    except ImportError as error:
        raise ConfigurationError(_INSTALL) from error
    if "rhai" not in core.FEATURES:
        raise ConfigurationError(_INSTALL)
    return core


def _scope(config: RhaiConfig, context: ToolContext) -> dict[str, JsonValue]:
    """Name what a script sees; later ones win: variables, each argument, what hides an argument, then the maps."""
    variables = dict(context.variables)
    names: dict[str, JsonValue] = {**variables, **config.input}
    if context.form.variables_hide_arguments and "_task" not in variables:  # a task's input is a variable itself
        names |= _without_arguments(variables)
    return {
        **{name: value for name, value in names.items() if _IDENTIFIER.fullmatch(name)},
        "execution_id": context.execution_id,
        "step": context.step,
        "server_url": context.server_url,
        "workload": variables.get("workload", {}),
        "vars": variables,
        "args": dict(config.input),
    }


def _without_arguments(variables: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """The command's variables as they are below its arguments: on the Rust plane `ctx` is a copy of all of them."""
    own = variables.get("ctx")
    return own if isinstance(own, Mapping) else {}
