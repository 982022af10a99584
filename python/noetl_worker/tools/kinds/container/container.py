"""Kind `container`: runs a container as a Kubernetes Job and waits for its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.kinds.container.cluster import Cluster, ClusterTool, check_auth, cluster_address
from noetl_worker.tools.kinds.container.container_job import (
    check_counts,
    check_job,
    check_variables,
    check_volumes,
    manifest,
)
from noetl_worker.tools.kinds.container.job_fields import ContainerFields
from noetl_worker.tools.kinds.container.job_run import JobRun
from noetl_worker.tools.process.shortage import before_any_effect

DEFAULT_TIMEOUT_S: Final = 900.0
"""Timeout of a call that has no limit: a Job needs one."""
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
    """Runs an image as a Kubernetes Job and waits for its end; the worker's slot is free meanwhile.

    The Job runs in the worker's own cluster, or in the cluster of the credential that `auth` names.
    """

    def __post_init__(self) -> None:
        for key, value in self.runtime.items():
            if key not in _IN_RUNTIME:
                raise ConfigurationError(
                    f"runtime.{key} is not supported; supported: {', '.join(_IN_RUNTIME)}", field=f"runtime.{key}"
                )
            if value is not None:
                field_name = "service_account" if key == "serviceAccountName" else key
                object.__setattr__(self, field_name, _check_runtime_value(key, value))
        if not (self.image or "").strip():
            raise ConfigurationError("image is required", field="image", reason="missing")
        check_variables(self.variables)
        check_job(self)
        check_counts(max_log_bytes=self.max_log_bytes)
        check_volumes(self.volumes, self.volume_mounts)
        check_auth(self.auth)


def _check_runtime_value(key: str, value: Any) -> Any:
    """Check one value of `runtime`, and return it in the type of the field with that name."""
    if key in ("command", "args"):
        if not isinstance(value, list) or any(isinstance(item, (Mapping, list, type(None))) for item in value):
            raise ConfigurationError(f"{key} must be a list of text", field=f"runtime.{key}")
        return [str(item).lower() if isinstance(item, bool) else str(item) for item in value]
    if key == "env":
        is_list = isinstance(value, list) and all(isinstance(item, Mapping) for item in value)
        if not is_list and not isinstance(value, Mapping):
            raise ConfigurationError(
                "runtime.env must be an object, or a list of objects with 'name'", field="runtime.env"
            )
    elif key == "resources":
        if not isinstance(value, Mapping):
            raise ConfigurationError("runtime.resources must be an object", field="runtime.resources")
    elif not isinstance(value, str):
        raise ConfigurationError(f"runtime.{key} must be text", field=f"runtime.{key}")
    return value


class ContainerTool(ClusterTool):
    """Tool of kind `container`. Data: {job_name, job_uid, namespace, labels, state: succeeded | failed | timeout |
    created, reason, message, pod_name, exit_code, logs, started_at, completed_at}; `stdout` and `exit_code` of the
    result are the container's.

    A command that is redelivered after a crash of its worker finds the Job that it made, and waits for that one. A
    worker that shuts down leaves the Job running for this. Errors: process (it failed), auth, client_error
    (Kubernetes refuses the Job), not_found (no such namespace), connection.

    differs-from-upstream: the Rust worker creates the Job and leaves its end to a callback of the server, which only
    that server has; here the worker waits for the end on both planes, as the Python worker does.
    """

    kind: ClassVar[str] = "container"
    config_model: ClassVar[type] = ContainerConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"service_account_name": "service_account"}
    first_poll_s: ClassVar[float] = 0.5

    async def run(self, config: ContainerConfig, context: ToolContext) -> ToolResult:
        with before_any_effect("no room to fetch the credential"):
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
