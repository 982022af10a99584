"""Jobs of `container` and `script` whose command is stopped while the cluster is being asked for something."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

import virtual_time
from noetl_worker.testing import arun_tool
from noetl_worker.tools.contract import Stop
from noetl_worker.tools.kinds.script.script import ScriptTool

from .cluster import FakeCluster
from .containers import CREDENTIALS, tool_on

anyio_backend = virtual_time.anyio_backend
CONFIGS = {"container": {"image": "busybox"}, "script": {"script": {"content": "print('hi')"}}}


class HangingCluster(FakeCluster):
    """Does what it is asked to, and keeps the answer of one `method` and end of a path until `go_on` is set."""

    def __init__(self, method: str, path: str, *statuses: dict[str, Any]) -> None:
        super().__init__(*statuses, container={"state": {"running": {}}}, log="so far")
        self.hangs_at = method, path
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        method, path = self.hangs_at
        if request.method == method and request.url.path.endswith(path):
            self.asked.set()
            await self.go_on.wait()
        return answer


def tool_of(kind: str, cluster: FakeCluster) -> Any:
    return tool_on(cluster) if kind == "container" else ScriptTool(cluster, first_poll_s=0.001)


async def stopped(
    kind: str, cluster: HangingCluster, reason: str, *, then_answers: bool = False, **config: Any
) -> asyncio.Future[Any]:
    """The ended call of the kind, that was stopped once the cluster hung, which answers after that or never."""
    stop = Stop()
    whole = {**CONFIGS[kind], "auth": "k8s", **config}
    call = asyncio.ensure_future(arun_tool(tool_of(kind, cluster), whole, credentials=CREDENTIALS, stop=stop))
    asked = asyncio.ensure_future(cluster.asked.wait())
    await asyncio.wait({call, asked}, return_when=asyncio.FIRST_COMPLETED)
    assert not call.done()
    stop.set(reason)
    call.cancel()
    if then_answers:
        for _ in range(20):  # the stop has reached whoever waits
            await asyncio.sleep(0)
        cluster.go_on.set()
    await asyncio.wait({call})
    return call


@pytest.mark.parametrize("kind", ["container", "script"])
async def test_job_is_deleted_although_its_output_is_still_read_after_the_timeout(kind: str) -> None:
    cluster = HangingCluster("GET", "/log", {"active": 1})
    await stopped(kind, cluster, "timeout", timeout=0.05)
    assert cluster.deleted == list(cluster.jobs)


@pytest.mark.parametrize("reason", ["cancelled", "timeout", "shutdown"])
@pytest.mark.parametrize(
    ("kind", "method", "path"),
    [
        pytest.param("container", "POST", "/jobs", id="container-at-its-creation"),
        pytest.param("container", "GET", "", id="container-as-it-runs"),
        pytest.param("script", "POST", "/jobs", id="script-at-its-creation"),
        pytest.param("script", "POST", "/configmaps", id="script-before-all-of-its-objects-are-there"),
        pytest.param("script", "GET", "", id="script-as-it-runs"),
    ],
)
async def test_stop_deletes_the_job_but_a_shutdown_leaves_it_for_the_next_worker(
    kind: str, reason: str, method: str, path: str
) -> None:
    """It may be the Job of an earlier delivery, that runs already; the next one makes what is missing."""
    cluster = HangingCluster(method, path, {"active": 1})
    call = await stopped(kind, cluster, reason)
    assert call.cancelled()
    assert len(cluster.jobs) == 1
    assert cluster.deleted == ([] if reason == "shutdown" else list(cluster.jobs))


class SlowToDelete(HangingCluster):
    """Has deleted nothing before `go_on` is set."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            self.asked.set()
            await self.go_on.wait()
        return await super().handle_async_request(request)


@pytest.mark.parametrize("kind", ["container", "script"])
async def test_stop_that_meets_the_deletion_of_a_job_does_not_end_it(kind: str) -> None:
    cluster = SlowToDelete("none", "", {"active": 1})
    await stopped(kind, cluster, "timeout", then_answers=True, timeout=0.05)
    assert cluster.deleted == list(cluster.jobs)
