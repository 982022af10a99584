"""Calls of kind `container` on a fake of the Kubernetes API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from noetl_worker.testing import run_tool
from noetl_worker.tools.kinds.container.container import ContainerTool

from .cluster import FakeCluster, refusal

LABELS = {
    "app.kubernetes.io/managed-by": "noetl-worker",
    "noetl-worker.execution-id": "42",
    "noetl-worker.step-name": "step",
    "noetl-worker.tool-kind": "container",
}
WATCHED = {"noetl.execution-id", "noetl.step-name"}
"""Labels by which the platform's k8s-watcher takes a Job for one that it has to report."""
CREDENTIALS = {"k8s": {"type": "kubernetes", "url": "https://cluster.test", "token": "t0ken"}}


def tool_on(cluster: FakeCluster) -> ContainerTool:
    return ContainerTool(cluster, first_poll_s=0.001)


def call(cluster: FakeCluster, config: dict[str, Any] | None = None, **context: Any) -> Any:
    whole = {"image": "busybox", "auth": "k8s", **(config or {})}
    return run_tool(tool_on(cluster), whole, credentials=CREDENTIALS, **context)


def refusing(status: int, message: str, *, method: str = "", path: str = "") -> Callable[[httpx.Request], Any]:
    """For `before` of a cluster: requests with this method, and with this end of their path, are refused."""

    def answer_first(request: httpx.Request) -> httpx.Response | None:
        is_refused = method in ("", request.method) and request.url.path.endswith(path)
        return refusal(status, message) if is_refused else None

    return answer_first
