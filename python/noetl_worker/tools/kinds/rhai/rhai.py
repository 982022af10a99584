"""Kind `rhai`: runs a Rhai script in a process of its own. The interpreter is in the worker's native build (in Rust).

Rhai does not limit the memory and stack of a single call: `replace` in a long text, closures in closures, values that
contain themselves. So the script runs in its own process, with limits on memory and stack.

The language is a superset of NoETL's two published Rhai dialects. `http_*` return maps with `status`, `body` and
`error`. `args` is a map, and each member of `args` is a variable too. Values keep their JSON types.

differs-from-upstream: NoETL's published `rhai` tool has no limits at all, allows `eval` and `import`, and ignores
`timeout`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models.fit import LESS_ADVICE
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.text import json_text
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.fields import drop_half_at_end, excerpt
from noetl_worker.tools.process import process
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.python.python_answer import AnswerTooLong
from noetl_worker.tools.python.python_runner import PythonRunner
from noetl_worker.tools.requirements import missing

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INSTALL: Final = (
    "kind rhai needs the native build of noetl-worker, which is not installed here: install a native wheel "
    "(`pip install --force-reinstall --only-binary noetl-worker noetl-worker`), or build one with Rust on PATH "
    "(`NOETL_WORKER_BUILD=rust pip install --no-cache-dir --no-binary noetl-worker noetl-worker`)"
)
_MAX_OUTPUT_BYTES: Final = 65_536
"""Maximum bytes of a script's output, as in rust/rhai. The Rust code cuts the line that exceeds this maximum, never
within a character, and drops all later lines."""
_LONGEST_CHARACTER: Final = 4
_PRINTED: Final = 500
"""Maximum number of characters of a script's output in the text of its failure."""
_FAILURES: Final[Mapping[str, str]] = {"script": "execution", "limit": "resource"}
_MEMORY_MB: Final = 512
_GRACE_S: Final = 1.0
"""Seconds from a script's timeout until the script is killed. A script checks the clock only between two calls."""
_PACKAGES: Final = str(Path(__file__).parents[4])
_VARIABLES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy", "gce_metadata_host"})
"""Environment variables that Rust's HTTP client reads: proxies, and the host of Google's metadata server. The script's
process gets them from the worker's environment, whether their names are in lower case, as here, or in upper case."""
_IN_PROCESS: Final = """
from noetl_worker._core import run_rhai

def refusal(host, address, port):
    from noetl_worker.settings.networks import EgressRule, Networks
    from noetl_worker.tools.http import egress
    rule = EgressRule(Networks.parse(args["denied"]), set(args["own_ports"]))
    return egress.refusal(rule, host, address, port)

kind, value, message, output = run_rhai(args["code"], args["scope"].encode(), args["timeout_s"], refusal)
result = {"kind": kind, "value": json.loads(value or b"null"), "message": message, "output": output}
"""


@dataclass(frozen=True, slots=True)
class RhaiConfig:
    """Runs a Rhai script in a process of its own. The script cannot open files or import modules. Memory (512 MiB),
    stack and time are limited.

    The script sees each member of `input` as a variable, and the maps `args`, `vars` and `workload`. The script's
    functions are `log`, `timestamp`, `sleep`, `parse_json`, `to_json`, `contains`, `contains_any`, `http_get`,
    `http_post` and `http_delete` (and the same with `_auth`). Rhai's standard packages are there too. This kind needs
    the native build of the worker.
    """

    code: str
    """The script. The value of its last expression is the step's data."""
    input: Mapping[str, Any] = field(default_factory=dict)
    """Values for the script by name, with their JSON types. The script finds each value as a variable with the value's
    name, and in the map `args`."""
    timeout: float | None = None
    """Maximum run time of the script in seconds; absent: the command's remaining time."""


class RhaiTool:
    """Tool of kind `rhai`. A warm process forks the script's process, as in kind `python`. The script's process is
    killed at the deadline or when the command is cancelled."""

    kind: ClassVar[str] = "rhai"
    config_model: ClassVar[type] = RhaiConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"script": "code"}
    native_feature: ClassVar[str] = "rhai"
    is_confined: ClassVar[bool] = True

    def __init__(self, *, confinement: Confinement = UNCONFINED) -> None:
        self._runner = PythonRunner(confinement=confinement)
        own = {name: value for name, value in os.environ.items() if name.lower() in _VARIABLES}
        self._environment: dict[str, JsonValue] = {**process.base_environment(), **own}

    async def run(self, config: RhaiConfig, context: ToolContext) -> ToolResult:
        """Run the script.

        Returns:
            ToolResult: data is the value of the last expression, stdout the output of `print`, `log` and similar; a
                timeout is a failure.

        Raises:
            ToolError: the script threw an error or reached a limit. The error text has the position in the script. The
                error is raised and not returned, because the Rust plane would continue the playbook after a returned
                failure. The published worker also fails the command.
            ConfigurationError: the script does not parse, or the worker's native build (in Rust) is not installed.
        """
        if missing(self):
            raise ConfigurationError(_INSTALL)
        timeout_s = context.timeout_s
        try:
            run = await self._runner.run(
                self._request(config, context, timeout_s),
                timeout_s=None if timeout_s is None else timeout_s + _GRACE_S,
            )
        except AnswerTooLong as error:
            raise ToolError(f"rhai: the result of the script is {error}: {LESS_ADVICE}", kind="resource") from error
        if run.timed_out:
            return ToolResult.timed_out(timeout_s or 0.0)
        return _result(run, timeout_s)

    async def aclose(self) -> None:
        """End the template process, from which the scripts' processes are forked."""
        await self._runner.aclose()

    def _request(self, config: RhaiConfig, context: ToolContext, timeout_s: float | None) -> dict[str, JsonValue]:
        rule = context.settings.egress
        given: dict[str, JsonValue] = {
            "code": config.code,
            "scope": json_text.dumps(_scope(config, context)).decode(),
            "timeout_s": timeout_s,
            "denied": list(dict.fromkeys(item for item, _ in rule.denied.items)),
            "own_ports": sorted(rule.own_ports),
        }
        return {
            "code": _IN_PROCESS,
            "input": given,
            "execution_id": str(context.command.execution_id),
            "step": context.command.step,
            "env": self._environment,
            "cwd": _PACKAGES,  # the native module is found here, so the template need not load it
            "memory_mb": _MEMORY_MB,
        }


def _result(run: process.Finished, timeout_s: float | None) -> ToolResult:
    answer = (run.answer or {}).get("result")
    if not isinstance(answer, Mapping):
        error = (run.answer or {}).get("error")
        said = str(error.get("message")) if isinstance(error, Mapping) else process.exit_text(run.exit_code)
        limit = f"a script may use {_MEMORY_MB} MiB, and nest values as deep as the stack allows: build smaller values"
        raise ToolError(f"rhai: the process of the script failed ({said}); {limit}", kind="resource")
    took: dict[str, Any] = {"duration_ms": run.duration_ms}
    kind, output = str(answer["kind"]), str(answer["output"])
    if output:
        took["stdout"] = _without_half(output)
    if kind == "success":
        return ToolResult.success(answer["value"], **took)
    if kind == "configuration":
        raise ConfigurationError(f"rhai: {answer['message']}")
    if kind == "timeout" and timeout_s is not None:
        return ToolResult.timed_out(timeout_s, **took)
    printed = f"; it had printed: {excerpt(output, _PRINTED)}" if output else ""
    raise ToolError(f"rhai: {answer['message']}{printed}", kind=_FAILURES[kind])


def _without_half(output: str) -> str:
    """Return the script's output. If the maximum length cut a known secret in two, replace the secret's first part at
    the end by a redaction mark. Redaction would not recognise a part of a secret."""
    data = output.encode()
    if len(data) <= _MAX_OUTPUT_BYTES - _LONGEST_CHARACTER:
        return output
    return drop_half_at_end(data.removesuffix(b"\n")).decode("utf-8", "replace") + "\n"


def _scope(config: RhaiConfig, context: ToolContext) -> dict[str, JsonValue]:
    """Return the variables of a script by name. If two sources have the same name, the later source counts. The
    sources: the step's variables, `input`, `ctx` on the Rust plane, and at last `execution_id`, `step`, `server_url`,
    `workload`, `vars` and `args`."""
    variables = dict(context.values.variables)
    names: dict[str, JsonValue] = {**variables, **config.input}
    form = context.command.form
    if form.variables_hide_arguments and "_task" not in variables:  # a task's input is a variable itself
        names |= fields_of(variables.get("ctx"))  # on the Rust plane `ctx` has the variables without the arguments
    return {
        **{name: value for name, value in names.items() if _IDENTIFIER.fullmatch(name)},
        "execution_id": context.command.execution_id,
        "step": context.command.step,
        "server_url": context.command.server_url,
        "workload": variables.get("workload", {}),
        "vars": variables,
        "args": dict(config.input),
    }
