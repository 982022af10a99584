"""Recorded claims of small playbooks (`samples/values-claims.jsonl`), and what their published worker made of them.

One line is one command: `plane`, `name` (the playbook), `n` (its place among the playbook's exchanges), `claim` (the
answer of the real plane) and `response` (the data that the plane's own worker reported for it; `metrics` left out).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from noetl_worker.models import Command, Dialect, Envelope, ToolResult
from noetl_worker.models.marks import ALL, Marks
from noetl_worker.models.slots import Slots
from noetl_worker.pipeline.command.command import hydrate
from noetl_worker.pipeline.command.dispatch import CallLimits, Dispatch
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.transport.transport import Response
from noetl_worker.text import json_text
from noetl_worker.tools.registry import Registry
from unit.planes import URL, Script, answer, plane

SAMPLES = Path(__file__).parent / "samples" / "values-claims.jsonl"
Case = tuple[str, str, int]
"""(plane, playbook, n)"""


def _no_keychain(method: str, path: str, *_: Any) -> Response:
    return answer(404, {"status": 404}) if "/credentials/" in path else answer(200, {"status": "not_found"})


@lru_cache(maxsize=1)
def recorded() -> Mapping[Case, Mapping[str, Any]]:
    lines = map(json.loads, SAMPLES.read_text().splitlines())
    return {(line["plane"], line["name"], line["n"]): line for line in lines}


async def ran_with(plane_name: str, claim: Mapping[str, Any], script: Script) -> ToolResult:
    """Our result for a claim, beside a plane that answers by `script`.

    Raises:
        ToolError: what the worker reports as a failed command.
    """
    registry = Registry(plugins=False)
    try:
        return await _run(plane_name, claim, script, registry)
    finally:
        await registry.aclose()


async def hydrated(plane_name: str, claim: Mapping[str, Any], script: Script, marks: Marks = ALL) -> Command:
    at, _ = plane(script, Dialect(plane_name))
    return await _hydrated(claim, at, marks)


async def value(case: Case, registry: Registry) -> Any:
    """Our data for a recorded claim, as JSON says it; the plane knows no keychain entry.

    Raises:
        ToolError: what the worker reports as a failed command.
    """
    result = await _run(case[0], recorded()[case]["claim"], _no_keychain, registry)
    return json.loads(json.dumps(json_text.plain(result.data)))


def theirs(case: Case) -> Any:
    return recorded()[case]["response"]


async def _hydrated(claim: Mapping[str, Any], at: Plane, marks: Marks = ALL) -> Command:
    ids = int(claim["execution_id"]), int(claim["event_id"]), claim["meta"]["command_id"]
    return await hydrate(claim, Envelope(*ids, claim["node_name"], URL, None, None), at, marks=marks)


async def _run(plane_name: str, claim: Mapping[str, Any], script: Script, registry: Registry) -> ToolResult:
    at, _ = plane(script, Dialect(plane_name))
    command = await _hydrated(claim, at)
    limits = CallLimits(default_s=60, hard_s=60, cancellation_poll_s=0)
    dispatch = Dispatch(registry, command, at, worker_id="w", limits=limits, slots=Slots(1))
    return await dispatch.run(await dispatch.prepare())


def same(ours: Any, their: Any) -> bool:
    """Whether two values are the same to a playbook.

    For a missing name the published Python worker gives "", and one level deeper the template's own text; ours may be
    null there.
    """
    if ours is None and isinstance(their, str):
        return their == "" or their.startswith("{{")
    if isinstance(ours, dict) and isinstance(their, dict):
        return ours.keys() == their.keys() and all(same(ours[key], their[key]) for key in ours)
    if isinstance(ours, list) and isinstance(their, list):
        return len(ours) == len(their) and all(map(same, ours, their))
    return type(ours) is type(their) and ours == their
