"""The part of the Kubernetes API that tools use, after the API reference; no cluster was recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

JOBS = "/apis/batch/v1/namespaces/noetl/jobs"
CORE = "/api/v1/namespaces/noetl"
Handler = Callable[[httpx.Request], httpx.Response | None]


def condition(kind: str, reason: str | None = None, message: str | None = None) -> dict[str, Any]:
    """A Job's status with this condition."""
    whole = {"type": kind, "status": "True", "reason": reason, "message": message}
    return {"conditions": [{key: value for key, value in whole.items() if value is not None}]}


def terminated(exit_code: int, reason: str) -> dict[str, Any]:
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:09Z"}
    return {"state": {"terminated": {"exitCode": exit_code, "reason": reason, **times}}}


class FakeCluster(httpx.AsyncBaseTransport):
    """One namespace, `noetl`.

    `statuses` are the Job's statuses, one a look, the last one for ever. `container` is the status of the pod's
    container, `log` its output. `before` may answer a request first.
    """

    def __init__(
        self,
        *statuses: dict[str, Any],
        container: dict[str, Any] | None = None,
        log: str | bytes = "",
        before: Handler | None = None,
    ) -> None:
        self.statuses = list(statuses)
        self.container, self.log, self.before = container, log, before
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: list[httpx.Request] = []
        self.deleted: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        early = self.before(request) if self.before is not None else None
        if early is not None:
            return early
        path = request.url.path
        if request.method == "POST" and path in (JOBS, f"{CORE}/configmaps", f"{CORE}/secrets"):
            return self.create(json.loads(request.content))
        if request.method == "DELETE":
            assert request.url.params["propagationPolicy"] == "Background"
            self.deleted.append(path.rpartition("/")[2])
            return httpx.Response(200, json={"kind": "Status", "status": "Success"})
        if path.startswith(f"{JOBS}/"):
            return self.look(path.rpartition("/")[2])
        if path == f"{CORE}/pods":
            return httpx.Response(200, json={"kind": "PodList", "items": self.pods()})
        if path.endswith("/log"):
            return httpx.Response(200, content=self.log)
        return refusal(404, "the server could not find the requested resource")

    def create(self, made: dict[str, Any]) -> httpx.Response:
        kind, name = made["kind"], made["metadata"]["name"]
        if (kind, name) in self.objects:
            return refusal(409, f'"{name}" already exists')
        self.objects[kind, name] = {**made, "metadata": {**made["metadata"], "uid": f"uid-{len(self.objects)}"}}
        return httpx.Response(201, json=self.objects[kind, name])

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        return {name: one for (kind, name), one in self.objects.items() if kind == "Job"}

    def last(self, wanted: str) -> dict[str, Any]:
        """What was made last of this kind."""
        return [one for (kind, _), one in self.objects.items() if kind == wanted][-1]

    def look(self, name: str) -> httpx.Response:
        if name not in self.jobs:
            return refusal(404, f'jobs.batch "{name}" not found')
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return httpx.Response(200, json={**self.jobs[name], "status": status})

    def pods(self) -> list[dict[str, Any]]:
        if self.container is None:
            return []
        old = {"metadata": {"name": "old-pod", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {}}
        status = {"phase": "Running", "containerStatuses": [{"name": "main", **self.container}]}
        new = {"metadata": {"name": "new-pod", "creationTimestamp": "2026-01-01T00:00:05Z"}, "status": status}
        return [new, old]


def completing(**more: Any) -> FakeCluster:
    """A cluster in which the Job is complete at the first look."""
    return FakeCluster(condition("Complete"), container=terminated(0, "Completed"), **more)


def refusal(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"kind": "Status", "status": "Failure", "message": message, "code": status})
