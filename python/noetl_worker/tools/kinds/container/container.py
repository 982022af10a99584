"""Kind `container`: runs a container as a Kubernetes Job and waits until the Job ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools import fields
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.kinds.container.cluster import Cluster, ClusterTool, check_auth, cluster_address
from noetl_worker.tools.kinds.container.container_job import (
    check_job,
    check_volumes,
    job_variable,
    manifest,
)
from noetl_worker.tools.kinds.container.job_fields import ContainerFields
from noetl_worker.tools.kinds.container.job_run import JobRun
from noetl_worker.tools.process.shortage import before_any_effect

DEFAULT_TIMEOUT_S: Final = 900.0
"""Timeout of a Job in seconds if neither the step nor the command has a timeout."""
LONGEST_POLL_S: Final = 10.0
_MAY_PASS: Final = frozenset({"Evicted", "NodeLost", "Preempting", "Shutdown", "NodeShutdown"})
_IN_RUNTIME: Final = (
    "image",
    "namespace",
    "command",
    "args",
    "env",
    "serviceAccountName",
    "service_account",
    "resources",
)


@dataclass(frozen=True, slots=True)
class ContainerConfig(ContainerFields):
    """Runs an image as a Kubernetes Job and waits until the Job ends. A waiting step does not count towards
    the number of commands that the worker runs at once.

    The Job runs in the worker's own cluster, or in the cluster of the credential that `auth` names.
    """

    def __post_init__(self) -> None:
        for key in self.runtime:
            if key not in _IN_RUNTIME:
                raise ConfigurationError(
                    f"runtime.{key} is not supported; supported: {', '.join(_IN_RUNTIME)}", field=f"runtime.{key}"
                )
        where, spellings = "container: runtime", {"serviceAccountName": "service_account"}
        given, _ = fields.canonical(where, self.runtime, ContainerFields, spellings)
        try:
            inner: ContainerFields = fields.decode(where, ContainerFields, given, self.runtime)
        except ConfigurationError as error:
            raise error.in_tool(where, field="runtime") from error.__cause__
        for name in given:
            object.__setattr__(self, name, getattr(inner, name))
        if not (self.image or "").strip():
            raise ConfigurationError("image is required", field="image", reason="missing")
        for entry in self.variables:
            job_variable(entry)
        check_job(self)
        fields.check_numbers(0, max_log_bytes=self.max_log_bytes)
        check_volumes(self.volumes, self.volume_mounts)
        check_auth(self.auth)


class ContainerTool(ClusterTool):
    """Tool of kind `container`. Data: {job_name, job_uid, namespace, labels, state: succeeded | failed | timeout |
    created, reason, message, pod_name, exit_code, logs, started_at, completed_at}. `stdout` and `exit_code` of the
    result come from the container.

    A worker that shuts down leaves its Job running, and so does a worker that crashes. The redelivered command then
    finds this Job and waits for its end. Errors: process (the container failed), auth, client_error (Kubernetes refuses
    the Job), not_found (no such namespace), connection.

    differs-from-upstream: the Rust worker only creates the Job, and a callback of the Rust server reports the Job's
    end. Here the worker waits for the Job's end on both planes, as the Python worker does.
    """

    kind: ClassVar[str] = "container"
    config_model: ClassVar[type] = ContainerConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"service_account_name": "service_account"}
    first_poll_s: ClassVar[float] = 0.5

    async def run(self, config: ContainerConfig, context: ToolContext) -> ToolResult:
        with before_any_effect("to fetch the credential"):
            place = await cluster_address(config.auth, context, self._service_account)
        timeout_s = context.timeout_s or DEFAULT_TIMEOUT_S
        cluster = Cluster(self._clients, place, config.namespace)
        job = manifest(config, context, timeout_s)
        run = JobRun(self.kind, cluster, str(job["metadata"]["name"]), context)
        about = (await run.create(job, {}))["metadata"]
        data: dict[str, JsonValue] = {
            "job_name": run.name,
            "job_uid": about.get("uid"),
            "namespace": config.namespace,
            "labels": about.get("labels") or {},
        }
        if not config.wait:
            return ToolResult.success({**data, "state": "created"})
        end, output = await run.ended(timeout_s, self._first_poll_s, LONGEST_POLL_S, config.max_log_bytes)
        logs, pod = output or "", run.pod
        data.update(end._asdict(), logs=logs, pod_name=pod.name, exit_code=pod.exit_code)
        data.update(started_at=pod.started_at, completed_at=pod.finished_at)
        if end.state == "timeout":
            return ToolResult.timed_out(timeout_s, data=data, stdout=logs)
        if end.state == "succeeded":
            return ToolResult.success(data, stdout=logs, exit_code=pod.exit_code or 0)
        if pod.never_starts:
            await run.delete()
        return ToolResult.failure(
            f"container {run.failure_text(end)}",
            kind="process",
            retryable=pod.reason in _MAY_PASS,
            data=data,
            stdout=logs,
            exit_code=pod.exit_code,
        )
