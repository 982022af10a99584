"""Kind `script`: a Python script as a Kubernetes Job (tools.md 2.9)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import JsonValue, ToolResult
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import time_left
from noetl_worker.tools.http_client import Clients
from noetl_worker.tools.python_source import Sources
from noetl_worker.tools.script_cluster import ACCOUNT_FILES, Cluster
from noetl_worker.tools.script_job import JobConfig, job_config, job_name, manifests, owned_by

__all__ = ["ScriptConfig", "ScriptTool"]

POLL_S: Final = 2.0
_MAX_SILENT_POLLS: Final = 15
"""Polls in a row that may fail before the API counts as lost."""


@dataclass(frozen=True, slots=True)
class ScriptConfig:
    """Runs a Python script as a Kubernetes Job in the worker's cluster and waits for its end.

    The Job gets the script as a ConfigMap and `job.env` as a Secret, both removed with it; the script gets the input as
    JSON in its first argument. A Job that the timeout or a cancelled command ends is deleted. A command that is
    delivered again waits for the Job that it has already.

    Result: `{status, job_name, namespace, pod_name, execution_time, output, succeeded, failed, exit_code}`; `output` is
    the end of the pod's log (1 MiB), `status` completed, failed or timeout. A Job that fails is an error of kind
    process with the exit code; an API that refuses is one of kind auth, not_found or client_error.
    """

    script: str | dict[str, Any]
    """Where the script is: as in the python kind, also {"type": inline | local | http | gcs, "uri", "content"}."""
    job: dict[str, Any] = field(default_factory=dict)
    """image (python:3.11-slim), namespace (noetl), ttl_seconds_after_finished (300), backoff_limit (3), timeout (600
    seconds), install_dependencies, resources, env, image_pull_policy, service_account."""
    input: dict[str, Any] = field(default_factory=dict)
    """Values for the script; over the step's own input."""
    timeout: float | None = None
    """Seconds; absent: `job.timeout`, and what the command has left."""


class ScriptTool:
    """differs-from-upstream: gs:// scripts are read by the worker; the ConfigMap and the Secret belong to the Job."""

    kind: ClassVar[str] = "script"
    aliases: ClassVar[tuple[str, ...]] = ()
    config_model: ClassVar[type] = ScriptConfig
    field_aliases: ClassVar[Mapping[str, str]] = {}
    raw_fields: ClassVar[frozenset[str]] = frozenset()
    side_effecting: ClassVar[bool] = True

    def __init__(self, *, account: str | Path = ACCOUNT_FILES, poll_s: float = POLL_S) -> None:
        self._clients = Clients()
        self._sources = Sources()
        self._cluster = Cluster(self._clients, account)
        self._poll_s = poll_s

    async def run(self, config: ScriptConfig, context: ToolContext) -> ToolResult:
        job = job_config(config.job, context)
        code = await self._sources.of_script(_as_python_script(config.script), context)
        if not code.strip():
            raise ConfigurationError("script: the script is empty")
        name = job_name(context)
        given = {**context.input, **config.input}
        timeout_s = min(time_left(config.timeout, context) or job.timeout, job.timeout)
        run = _Run(self._cluster, name, job.namespace, self._poll_s)
        await run.start(*manifests(name, job, code, given, context))
        try:
            ended = await asyncio.wait_for(run.ended(), timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            result = await run.result("timeout")
            await run.delete()
            return ToolResult.timed_out(timeout_s, data=result)
        except asyncio.CancelledError:
            await asyncio.shield(run.delete())
            raise
        return _told(await run.result("completed" if ended else "failed"), run.reason, job)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sources.aclose()
        await self._clients.aclose()


def _as_python_script(script: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """The form of the python kind: {"uri", "source": {"type", "code", "auth"}}."""
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


def _told(data: dict[str, JsonValue], reason: str, job: JobConfig) -> ToolResult:
    code = data.get("exit_code")
    exit_code = code if isinstance(code, int) else None
    if data["status"] == "completed":
        return ToolResult.success(data, exit_code=0)
    told = f"exit code {exit_code}" if exit_code is not None else "no exit code"
    return ToolResult.failure(
        f"Job {data['job_name']} in {job.namespace} failed: {reason or 'no reason given'} ({told})",
        kind="process",
        code="out_of_memory" if reason == "OOMKilled" else None if exit_code is None else str(exit_code),
        data=data,
        exit_code=exit_code,
    )


class _Run:
    """One Job: its objects, its end, what is told of it."""

    def __init__(self, cluster: Cluster, name: str, namespace: str, poll_s: float) -> None:
        self._cluster = cluster
        self._name = name
        self._namespace = namespace
        self._poll_s = poll_s
        self._path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._status: Mapping[str, Any] = {}
        self._started = time.monotonic()
        self.reason = ""

    async def start(
        self, job: dict[str, JsonValue], config_map: dict[str, JsonValue], secret: dict[str, JsonValue]
    ) -> None:
        """Create the Job, then what belongs to it: its pod waits for them. All or nothing."""
        created = await self._cluster.create(self._path, job)
        if created is None:
            created = await self._cluster.get(f"{self._path}/{self._name}")
        try:
            for kind, manifest in (("configmaps", config_map), ("secrets", secret)):
                path = f"/api/v1/namespaces/{self._namespace}/{kind}"
                await self._cluster.create(path, owned_by(manifest, created))
        except BaseException:
            await asyncio.shield(self.delete())
            raise

    async def ended(self) -> bool:
        """Wait for the end; True when the Job has completed."""
        silent = 0
        while True:
            try:
                job = await self._cluster.get(f"{self._path}/{self._name}")
                silent = 0
            except ToolError as error:
                silent += 1
                if not error.retryable or silent > _MAX_SILENT_POLLS:
                    raise
                job = {}
            self._status = job.get("status") or self._status
            for condition in self._status.get("conditions") or ():
                if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
                    self.reason = str(condition.get("reason") or "")
                    return bool(condition["type"] == "Complete")
            await asyncio.sleep(self._poll_s)

    async def result(self, status: str) -> dict[str, JsonValue]:
        """What the class docstring of ScriptConfig promises; a log that cannot be had is left out."""
        data: dict[str, JsonValue] = {
            "status": status,
            "job_name": self._name,
            "namespace": self._namespace,
            "execution_time": round(time.monotonic() - self._started, 3),
            "succeeded": int(self._status.get("succeeded") or 0),
            "failed": int(self._status.get("failed") or 0),
        }
        try:
            pods = await self._cluster.get(
                f"/api/v1/namespaces/{self._namespace}/pods", labelSelector=f"job-name={self._name}"
            )
            found = sorted(pods.get("items") or (), key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
            if found:
                await self._add_pod(data, found[-1])
        except ToolError as error:
            data["notes"] = [f"output: {error}"]
        return data

    async def _add_pod(self, data: dict[str, JsonValue], pod: Mapping[str, Any]) -> None:
        name = str(pod["metadata"]["name"])
        data["pod_name"] = name
        for container in (pod.get("status") or {}).get("containerStatuses") or ():
            ended = (container.get("state") or {}).get("terminated") or {}
            if "exitCode" in ended:
                data["exit_code"] = ended["exitCode"]
                if ended.get("reason") not in (None, "Error", "Completed"):
                    self.reason = str(ended["reason"])
        data["output"] = await self._cluster.log(self._namespace, name)

    async def delete(self) -> None:
        await self._cluster.delete(f"{self._path}/{self._name}")
