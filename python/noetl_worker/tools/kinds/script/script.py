"""Kind `script`: runs a Python script as a Kubernetes Job."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import httpx

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.fields import field_names, unknown_field
from noetl_worker.tools.kinds.container.cluster import Cluster, ClusterTool, check_auth, cluster_address
from noetl_worker.tools.kinds.container.job_run import JobRun
from noetl_worker.tools.kinds.container.script_job import JobConfig, job_config, job_name, manifests
from noetl_worker.tools.process.shortage import before_any_effect
from noetl_worker.tools.sources.script_address import check_script
from noetl_worker.tools.sources.sources import Sources

MAX_LOG_BYTES: Final = 1 << 20
_STATUS: Final = {"succeeded": "completed", "failed": "failed", "timeout": "timeout"}


@dataclass(frozen=True, slots=True)
class ScriptConfig:
    """Runs a Python script as a Kubernetes Job and waits for its end; the worker can run other commands meanwhile.

    The Job runs in the worker's own cluster, or in the cluster of the credential that `auth` names. The Job gets the
    script as a ConfigMap and `job.env` as a Secret, and Kubernetes removes both with the Job. The script gets the input
    as JSON in its first argument. After a timeout or a cancelled execution the worker deletes the Job. A command that
    is redelivered after a crash of its worker waits for its existing Job.

    Result: `{status, job_name, namespace, pod_name, execution_time, output, succeeded, failed, exit_code}`; `output`
    is the first MiB of the newest pod's log, `status` completed, failed or timeout. A Job that fails is an error of
    kind process with the exit code. A refusal of the Kubernetes API is an error of kind auth, not_found or
    client_error.
    """

    script: str | dict[str, Any]
    """Source of the script, as in the python kind; also {"type": inline | local | http | gcs | s3, "uri",
    "content"}."""
    job: dict[str, Any] = field(default_factory=dict)
    """Settings of the Kubernetes Job, defaults in parentheses: image (python:3.11-slim), namespace (noetl),
    ttl_seconds_after_finished (300), backoff_limit (3), timeout (600 seconds), install_dependencies, resources, env,
    image_pull_policy, service_account."""
    auth: str | dict[str, Any] | None = None
    """Alias of a credential with url, token and ca_file of a cluster; absent: the worker's own cluster."""
    input: dict[str, Any] = field(default_factory=dict)
    """Values for the script; they win over the step's own input."""
    timeout: float | None = None
    """Maximum seconds for the Job; absent: the shorter of `job.timeout` and the command's remaining time."""
    decoded_job: JobConfig = field(init=False, repr=False, compare=False)
    """The settings in `job`, parsed."""
    unknown: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """Unknown names in `job`, about which the worker warns."""

    def __post_init__(self) -> None:
        decoded_job, unknown = job_config(self.job)
        object.__setattr__(self, "decoded_job", decoded_job)
        object.__setattr__(self, "unknown", tuple(unknown))
        code = check_script(_as_python_script(self.script))
        if code is not None and not code.strip():
            raise ConfigurationError("the script is empty; write one", field="script")
        check_auth(self.auth)


class ScriptTool(ClusterTool):
    """Tool of kind `script`: runs a script in a Kubernetes Job.

    differs-from-upstream: the worker itself reads gs:// scripts; the Job owns the ConfigMap and the Secret made for it.
    """

    kind: ClassVar[str] = "script"
    config_model: ClassVar[type] = ScriptConfig
    requires: ClassVar[Mapping[str, str]] = {"botocore": "noetl-worker[aws] for s3:// scripts"}
    first_poll_s: ClassVar[float] = 2.0

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None, **options: Any) -> None:
        super().__init__(transport, **options)
        self._sources = Sources()

    def ignored(self, config: ScriptConfig) -> list[ConfigurationError]:
        """Return warnings about unknown names in `job`."""
        unknown = [unknown_field("script: job", name, field_names(JobConfig)) for name in config.unknown]
        return [warning.in_tool("", field="job") for warning in unknown]

    async def run(self, config: ScriptConfig, context: ToolContext) -> ToolResult:
        job = config.decoded_job
        with before_any_effect("to fetch what the script needs"):
            code = await self._sources.of_script(_as_python_script(config.script), context)
            place = await cluster_address(config.auth, context, self._service_account)
        if not code.strip():
            raise ConfigurationError("script: the script is empty; write one")
        given = {**context.values.input, **config.input}
        name, started = job_name(context), time.monotonic()
        run = JobRun(self.kind, Cluster(self._clients, place, job.namespace), name, context)
        await run.create(*manifests(name, job, code, given, context))
        timeout_s = min(context.timeout_s or job.timeout, job.timeout)
        end, output = await run.ended(timeout_s, self._first_poll_s, self._first_poll_s, MAX_LOG_BYTES)
        data = _data(_STATUS[end.state], run, output, job, started)
        if end.state == "timeout":
            return ToolResult.timed_out(timeout_s, data=data)
        if end.state == "succeeded":
            return ToolResult.success(data, stdout=output, exit_code=0)
        text, exit_code = run.failure_text(end), run.pod.exit_code
        word = None if exit_code is None else str(exit_code)
        if run.pod.reason == "OOMKilled":
            word = "out_of_memory"
        return ToolResult.failure(text, kind="process", code=word, data=data, stdout=output, exit_code=exit_code)

    async def aclose(self) -> None:
        """Close the connections for fetching scripts over HTTP and for calling Kubernetes."""
        await self._sources.aclose()
        await super().aclose()


def _as_python_script(script: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """Return the script's source in the form of the python kind: {"uri", "source": {"type", "code", "auth"}}."""
    if isinstance(script, str):
        return script
    source = dict(script["source"]) if isinstance(script.get("source"), Mapping) else {}
    for name in ("type", "auth", "endpoint", "timeout"):
        if name in script:
            source.setdefault(name, script[name])
    if isinstance(script.get("content"), str):
        source.setdefault("code", script["content"])
    if source.get("type") == "local":
        source["type"] = "file"
    return {"uri": script.get("uri"), "source": source}


def _count(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0


def _data(status: str, run: JobRun, output: str | None, job: JobConfig, started: float) -> dict[str, JsonValue]:
    """Return the data of the step's result: the Job's status, name, run time, pod counts, exit code and output. Leave
    out fields with an unknown value."""
    fields: dict[str, JsonValue] = {
        "status": status,
        "job_name": run.name,
        "namespace": job.namespace,
        "execution_time": round(time.monotonic() - started, 3),
        "succeeded": _count(run.status.get("succeeded")),
        "failed": _count(run.status.get("failed")),
    }
    known = {"pod_name": run.pod.name, "exit_code": run.pod.exit_code, "output": output}
    return {**fields, **{name: value for name, value in known.items() if value is not None}}
