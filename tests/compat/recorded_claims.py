"""What this worker makes of a claim as a real plane answered it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noetl_worker.models import Command, Dialect, Envelope, ToolResult
from noetl_worker.models.marks import ALL, Marks
from noetl_worker.models.slots import Slots
from noetl_worker.pipeline.command.command import hydrate
from noetl_worker.pipeline.command.dispatch import CallLimits, Dispatch
from noetl_worker.remote.plane.client import Plane
from noetl_worker.tools.registry import Registry
from unit.planes import URL, Script, plane


async def ran_with(plane_name: str, claim: Mapping[str, Any], script: Script) -> ToolResult:
    """Our result for a claim, beside a plane that answers by `script`.

    Raises:
        ToolError: what the worker reports as a failed command.
    """
    at, _ = plane(script, Dialect(plane_name))
    command = await _hydrated(claim, at)
    limits = CallLimits(default_s=60, hard_s=60, cancellation_poll_s=0)
    registry = Registry(plugins=False)
    try:
        dispatch = Dispatch(registry, command, at, worker_id="w", limits=limits, slots=Slots(1))
        return await dispatch.run(await dispatch.prepare())
    finally:
        await registry.aclose()


async def hydrated(plane_name: str, claim: Mapping[str, Any], script: Script, marks: Marks = ALL) -> Command:
    at, _ = plane(script, Dialect(plane_name))
    return await _hydrated(claim, at, marks)


async def _hydrated(claim: Mapping[str, Any], at: Plane, marks: Marks = ALL) -> Command:
    ids = int(claim["execution_id"]), int(claim["event_id"]), claim["meta"]["command_id"]
    return await hydrate(claim, Envelope(*ids, claim["node_name"], URL, None, None), at, marks=marks)
